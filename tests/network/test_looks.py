import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import bidsseg.network.inference
import bidsseg.network.looks
from bidsseg.labels import TISSUES
from bidsseg.network.config import UNetConfig
from bidsseg.network.looks import ALIGNED, Look, find_brain, padded
from bidsseg.network.unet import Features, UNet


def blocky(brain: NDArray[np.bool_]) -> tuple[UNet, Features]:
    """A network whose tissue head copies its only feature: brain where the mask of 2 mm blocks says so."""
    net = UNet(UNetConfig(widths=(1, 1), head_width=1))
    with torch.no_grad():
        for layer in (net.hidden, net.tissue_head):
            layer.weight.zero_()
            layer.bias.zero_()
        net.hidden.weight[0, 0] = 1
        net.tissue_head.weight.view(8, len(TISSUES), 1)[:, 0] = -9
        net.tissue_head.bias.view(8, len(TISSUES))[:, 0] = 6
    fine = torch.zeros(1 + 8 * (1 + net.config.n_filters), *brain.shape)
    fine[0] = torch.from_numpy(brain)
    return net, Features(fine, (torch.zeros(1, *(n // 2 for n in brain.shape)),))


@pytest.mark.parametrize("origin", [(0, 0, 0), (-3, 5, 40)])
def test_a_look_says_where_its_brain_lies_in_the_volume(origin: tuple[int, int, int]) -> None:
    """A block of 4 mm at place 2 of the look lies 8 voxels beyond the look's first voxel."""
    brain = np.zeros((6, 6, 6), bool)
    brain[2, 2, 2] = True
    found = Look([], brain, brain, np.array(origin)).brain_in((50, 50, 50))
    expected = np.zeros((50, 50, 50), bool)
    i, j, k = (first + 8 for first in origin)
    expected[i : i + 4, j : j + 4, k : k + 4] = True
    np.testing.assert_array_equal(found, expected)


def test_heads_are_asked_near_the_brain_alone() -> None:
    brain = np.zeros((40, 40, 40), bool)
    brain[14:26, 14:26, 14:26] = True
    island = brain.copy()
    island[36:38, 36:38, 36:38] = True
    found, near = find_brain(*blocky(island))
    np.testing.assert_array_equal(found, brain[::2, ::2, ::2])
    assert near.shape == brain.shape
    assert near[8:32, 8:32, 8:32].all()  # 12 mm are 6 blocks
    assert near.sum() == 24**3  # the island is too small to be brain
    assert not any(mask.any() for mask in find_brain(*blocky(np.zeros((8, 8, 8), bool))))


@pytest.mark.parametrize(
    ("most_mm3", "sure", "found"),
    [(12**3, 0.99, False), (12**3 * 8, 0.99, True), (12**3, 0.0, True)],
    ids=["large and unsure", "of a brain's size", "large and sure"],
)
def test_noise_that_fills_the_image_is_no_brain(
    most_mm3: float, sure: float, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A brain of 24 mm a side, of whose tissue the network is about 0.05 sure, as it bears all alike."""
    monkeypatch.setattr(bidsseg.network.looks, "MOST_BRAIN_MM3", most_mm3)
    monkeypatch.setattr(bidsseg.network.looks, "SURE_OF_NOISE", sure)
    brain = np.zeros((40, 40, 40), bool)
    brain[14:26, 14:26, 14:26] = True
    assert all(mask.any() == found for mask in find_brain(*blocky(brain)))


@pytest.mark.parametrize(("certainty", "kept"), [(0.3, False), (0.6, False), (0.75, True), (0.9, True)])
def test_a_second_large_piece_is_brain_where_it_is_nearly_as_sure(
    certainty: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a brain whose certainty is 0.9, three quarters are 0.675."""
    tissue = np.zeros((len(TISSUES), 20, 20, 20), np.float32)
    tissue[0] = 1
    first, second = ((slice(start, start + 6),) * 3 for start in (2, 12))
    for place, sure in ((first, 0.9), (second, certainty)):
        tissue[(slice(None), *place)] = 0
        tissue[(slice(2, None), *place)] = (1 - sure) / (len(TISSUES) - 3)
        tissue[(2, *place)] = sure
    monkeypatch.setattr(bidsseg.network.looks, "_coarse_tissue", lambda net, features: tissue)
    brain, _ = find_brain(*blocky(np.zeros((40, 40, 40), bool)))
    assert brain[first].all()
    assert (brain[second] == kept).all()
    assert brain.sum() == 6**3 * (1 + kept)


@pytest.mark.parametrize(
    ("noise", "most_mm3", "kept"),
    [(0.4, 1e5, False), (0.4, 1e6, True), (0.8, 1e5, True)],
    ids=["noise around a brain", "of a brain's size", "one large brain"],
)
def test_noise_that_hangs_on_a_brain_is_left_out_where_both_are_too_large(
    noise: float, most_mm3: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A brain of 32 mm a side, of which the network is sure by 0.9, in the middle of 80 mm of noise: 512 ml in all."""
    sure = np.full((20, 20, 20), noise, np.float32)
    brain = (slice(6, 14),) * 3
    sure[brain] = 0.9
    tissue = np.zeros((len(TISSUES), *sure.shape), np.float32)
    tissue[2] = sure
    tissue[3:] = (1 - sure) / (len(TISSUES) - 3)
    monkeypatch.setattr(bidsseg.network.looks, "_coarse_tissue", lambda net, features: tissue)
    monkeypatch.setattr(bidsseg.network.looks, "MOST_BRAIN_MM3", most_mm3)
    monkeypatch.setattr(bidsseg.network.looks, "SURE_OF_NOISE", 0.0)
    seen, _ = find_brain(*blocky(np.zeros((40, 40, 40), bool)))
    assert seen[8:12, 8:12, 6:14].all()  # noise is near the brain's edges
    seen[brain] = kept
    assert (seen == kept).all()


@pytest.mark.parametrize("start", range(8))
@pytest.mark.parametrize("length", [1, 16, 31, 64])
def test_boxes_are_padded_evenly_from_aligned_voxels(start: int, length: int) -> None:
    volume = np.ones((80, 8, 8), np.float32)
    surrounded, before = padded(volume, (slice(start, start + length), slice(0, 8), slice(0, 8)), 16)
    assert all(n % 16 == 0 for n in surrounded.shape)
    assert (start - before[0]) % ALIGNED == 0
    assert (surrounded[before[0] : before[0] + length].sum(), surrounded.sum()) == (length * 64, length * 64)
    assert abs(surrounded.shape[0] - length - 2 * before[0]) <= 2 * ALIGNED
