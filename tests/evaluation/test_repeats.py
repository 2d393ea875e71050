"""Heads scanned again, and structures that grow by a known share."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.evaluation.repeats import taken, widened
from tests.phantoms import image

SIDE = 48
PLACES = np.indices((SIDE,) * 3)


def ball(radius: float, centre: float = SIDE / 2) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = ((PLACES - centre) ** 2).sum(0) < radius**2
    return inside


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_a_ball_grows_by_the_share(share: float) -> None:
    structure = ball(8)
    wider = widened(100 * structure.astype(np.float32), structure, share)
    assert wider.sum() / 100 / structure.sum() == pytest.approx(1 + share, abs=0.02)


def test_what_is_far_away_stays_and_what_is_near_gives_way_without_loss() -> None:
    structure, near, far = ball(6), ball(3, 14.0), ball(3, 5.0)
    for other, moved in ((near, 0.2), (far, 0.05)):
        data = 100 * other.astype(np.float32)
        wider = widened(data, structure, 0.1)
        assert wider.sum() / data.sum() == pytest.approx(1, abs=0.02)
        before, after = (np.array([(grey * axis).sum() / grey.sum() for axis in PLACES]) for grey in (data, wider))
        assert (after <= before + 1e-3).all(), "away from the structure"
        assert np.linalg.norm(after - before) < moved


def test_a_head_is_taken_elsewhere_in_thick_slices() -> None:
    head = image(np.where(ball(15), 100, 0).astype(np.float32))
    one, other = (taken(head, 4, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.spacing_mm.tolist() == [1, 1, 4]
    assert one.data.shape != head.data.shape
    assert (one.data.shape != other.data.shape) or not np.array_equal(one.data, other.data)
    np.testing.assert_array_equal(one.data, taken(head, 4, np.random.default_rng(0)).data)
    bright = (one.data > 50).sum() * one.voxel_volume_mm3
    assert bright == pytest.approx(ball(15).sum(), rel=0.1)
