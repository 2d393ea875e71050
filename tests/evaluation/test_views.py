"""Scans of every kind, made of a head that fits into a hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.evaluation.damage import DAMAGES, KINDS, NONE, Damage, _displacement, _moved, add_motion, damage
from bidsseg.evaluation.views import View, with_lesions
from bidsseg.imaging.image import at_1mm
from bidsseg.labels import TISSUE, UNKNOWN_PARCEL
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.data import LESION_KIND, Subject, pack, unpack
from bidsseg.train.held_out import Case

SHAPE = (24, 24, 24)


def anatomy() -> Anatomy:
    """White matter in the middle of air, its upper half right."""
    tissue = np.zeros(SHAPE, np.uint8)
    tissue[4:20, 4:20, 4:20] = TISSUE["white-matter"]
    side = np.zeros_like(tissue)
    side[..., 12:] = 1
    parcel = np.full_like(tissue, UNKNOWN_PARCEL)
    parcel[:12] = 3
    return Anatomy(tissue, side, parcel)


def case() -> Case:
    data = (100.0 * (anatomy().tissue > 0)).astype(np.float32)
    return Case("cube", at_1mm(data), anatomy())


def test_unpacking_is_packing_reversed() -> None:
    found, given = unpack(pack(anatomy())), anatomy()
    for volume in ("tissue", "side", "parcel"):
        np.testing.assert_array_equal(getattr(found, volume), getattr(given, volume))


@pytest.mark.parametrize("mm3", [100, 1000, 1e6])
def test_lesions_are_painted_until_there_are_enough(mm3: float) -> None:
    """Each of three patients has a slab of the whole brain."""
    masks: list[NDArray[np.uint8]] = []
    for first in (60, 80, 100):
        masks.append(np.zeros((182, 218, 182), np.uint8))
        masks[-1][:, :, first : first + 20] = 1
    box = np.array([[4.0, 4, 4], [19, 19, 19]])
    subject = Subject("cube", pack(anatomy()), None, box)
    painted = with_lesions(subject, tuple(masks), mm3, np.random.default_rng(0))
    lesion = (painted >> 12 & 15) == LESION_KIND
    assert not lesion[anatomy().tissue == 0].any()
    patients = {100: 1, 1000: 2, 1e6: 3}[mm3]
    assert lesion.sum() == pytest.approx(patients * 256 * 20 * 15 / 125, rel=0.3)
    np.testing.assert_array_equal(unpack(painted).tissue, anatomy().tissue)


def test_views_have_names() -> None:
    view = View("sub-1", "head", "flair", 2.0, 5.0, "coronal", 0, 1)
    assert view.name == "sub-1, flair, head, 2 mL of lesions, coronal slices of 5 mm"
    assert replace(view, slices=7, head="").name == "sub-1, flair, brain, 2 mL of lesions, 7 coronal slices of 5 mm"
    assert (view.condition.slice_mm, view.condition.axis, view.condition.slices) == (5, "coronal", 0)


@pytest.mark.parametrize("how", [*DAMAGES, NONE], ids=lambda how: how.name)
def test_damage_is_repeatable_and_keeps_labels_on_the_grid(how: Damage) -> None:
    one, other = damage(case(), how), damage(case(), how)
    np.testing.assert_array_equal(one.image.data, other.image.data)
    assert one.image.data.shape == one.anatomy.tissue.shape
    changed = one.image.data.shape != SHAPE or (one.image.data != case().image.data).any()
    assert (changed or (one.image.affine != np.eye(4)).any()) == (how != NONE)


def test_a_cut_takes_its_share_and_moves_the_origin() -> None:
    found = damage(case(), Damage("cut below", 0.25))
    assert found.image.data.shape == (24, 24, 16)  # four of sixteen, and the four below them
    np.testing.assert_allclose(found.image.affine[:3, 3], (0, 0, 8))
    assert set(KINDS) >= {how.kind for how in DAMAGES}


@pytest.mark.parametrize("place", [(0.0, 0.0), (3.0, -2.0)])
def test_a_displacement_is_found(place: tuple[float, float]) -> None:
    still = np.fft.fft2(case().image.data, axes=(0, 1))
    moved = still * _moved(np.tile(place, (24, 1)), 24)
    np.testing.assert_allclose(_displacement(still, moved), place, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_moved_head_is_seen_where_it_was_at_rest(seed: int) -> None:
    still = case().image.data
    seen = add_motion(still, 3.0, np.random.default_rng(seed))
    assert np.abs(seen - still).max() > 0.1 * still.max()
    place = _displacement(*(np.fft.fft2(data, axes=(0, 1)) for data in (still, seen)))
    assert np.abs(place).max() < 0.5  # voxels
