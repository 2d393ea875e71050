"""Averages of probabilities between grids whose offsets are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.blocks import blocks_along
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUES, lobe_parts
from bidsseg.network.probabilities import Probabilities
from bidsseg.segmentation.fusion import Contrast, answered_in, contrast_of, fuse
from tests.quality.test_agreement import SHAPE, labels, shift


def certain(tissue: int, origin: tuple[int, int, int] = (0, 0, 0), shape: tuple[int, ...] = SHAPE) -> Probabilities:
    """One tissue everywhere in the box."""
    channels = np.zeros((len(TISSUES), *shape), np.float16)
    channels[tissue] = 1
    parcels = np.zeros((*blocks_along(shape), len(lobe_parts())), np.float16)
    return Probabilities(origin, channels, np.ones((1, *shape), np.float16), parcels)


def contrast(scan: Image, answered: Probabilities) -> Contrast:
    """A scan on the 1 mm grid, of which the network says so."""
    return contrast_of(scan, scan.data, answered_in(answered))


def fused(answered: Probabilities, to_other: NDArray[np.float64]) -> Probabilities:
    """A scan that says tissue 3 everywhere, fused with another on the same grid."""
    scan = labels(4)
    return fuse(contrast(scan, certain(3)), [(contrast(scan, answered), to_other)])


def test_probabilities_are_averaged() -> None:
    found = fused(certain(5), shift(0))
    assert float(found.tissue[3, 4, 4, 4]) == float(found.tissue[5, 4, 4, 4]) == 0.5
    np.testing.assert_allclose(found.tissue.sum(0), 1, atol=1e-3)


def test_where_the_other_scan_does_not_reach_the_first_counts_alone() -> None:
    found = fused(certain(5), shift(4))
    assert found.tissue[5, :, 4, 4].tolist() == [0.5] * 4 + [0] * 4
    assert found.tissue[3, :, 4, 4].tolist() == [0.5] * 4 + [1] * 4


def test_beyond_the_box_of_its_brain_the_other_scan_says_background() -> None:
    found = fused(certain(5, (4, 0, 0), (4, 8, 8)), shift(0))
    assert found.tissue[0, :3, 4, 4].tolist() == [0.5] * 3
    assert found.tissue[5, 5:, 4, 4].tolist() == [0.5] * 3


def test_between_voxels_the_other_scan_is_interpolated() -> None:
    left = certain(5)
    left.tissue[:, 4:] = certain(7).tissue[:, 4:]
    found = fused(left, shift(0.25))
    assert found.tissue[5, :, 4, 4].tolist() == [0.5] * 3 + [0.375] + [0] * 4
    assert found.tissue[7, :7, 4, 4].tolist() == [0] * 3 + [0.125] + [0.5] * 3


def test_two_others_count_as_much_as_the_scan_itself() -> None:
    scan = labels(4)
    others = [(contrast(scan, certain(tissue)), shift(0)) for tissue in (5, 7)]
    found = fuse(contrast(scan, certain(3)), others)
    assert [round(float(found.tissue[tissue, 4, 4, 4]), 3) for tissue in (3, 5, 7)] == [0.333] * 3


def test_certain_background_stays_as_it_is() -> None:
    scan, nothing = labels(4), certain(0)
    nothing.right[:] = 0
    found = fuse(contrast(scan, nothing), [(contrast(scan, nothing), shift(0))])
    assert (found.tissue == nothing.tissue).all()


def test_parcels_are_averaged_block_by_block() -> None:
    own, other = certain(3), certain(5)
    own.parcels[..., 1] = 1
    other.parcels[:2, ..., 2] = 1
    other.parcels[2:, ..., 3] = 1
    scan = labels(4)
    found = fuse(contrast(scan, own), [(contrast(scan, other), shift(1))])  # half a block further on in the other scan
    assert found.parcels.shape == (4, 4, 4, len(lobe_parts()))
    assert found.parcels[:, 1, 1, 1].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert found.parcels[:, 1, 1, 2].tolist() == [0.5, 0.25, 0, 0]
    assert found.parcels[:, 1, 1, 3].tolist() == [0, 0.25, 0.5, 0.5]  # the last lies on the edge of its field of view


def test_where_one_scan_is_certain_of_background_the_other_tells_the_side() -> None:
    outside = certain(0)
    assert (fused(outside, shift(0)).right > 0.5).all()


@pytest.mark.parametrize("offset", [-0.4, 0.4])
def test_at_the_edge_of_a_field_of_view_the_outermost_voxels_count(offset: float) -> None:
    found = fused(certain(5), shift(offset))
    np.testing.assert_allclose(found.tissue[5, :, 4, 4], 0.5, atol=2e-3)
