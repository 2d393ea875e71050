import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.grid import grid_of
from bidsseg.labels import LEFT, N_GYRI, RIGHT, TISSUE, TISSUES, gyri, lobe_parts, part_of_gyrus
from bidsseg.network.probabilities import Probabilities
from bidsseg.segmentation.decision import Decision, decide, decide_on_native_grid, edge_fraction

GYRUS = {gyrus.abbreviation: index for index, gyrus in enumerate(gyri())}


def probabilities(tissue: str, right: float, gyrus: str, all_gyri: bool) -> NDArray[np.float32]:
    """Channels (C, 1, 1, 1) of a voxel that is surely one thing."""
    channels = np.zeros((len(TISSUES) + 1 + (N_GYRI + 4 if all_gyri else len(lobe_parts())), 1, 1, 1), np.float32)
    channels[TISSUE[tissue]], channels[len(TISSUES)] = 1, right
    channels[len(TISSUES) + 1 + (GYRUS[gyrus] if all_gyri else part_of_gyrus()[GYRUS[gyrus]])] = 1
    return channels


def decided(channels: NDArray[np.float32], all_gyri: bool) -> Decision:
    n = len(TISSUES)
    return decide(channels[:n], channels[n], lambda where: channels[n + 1 :, where], all_gyri)


@pytest.mark.parametrize("all_gyri", [False, True])
@pytest.mark.parametrize(
    ("tissue", "right", "gyrus", "side"), [("cortex", 0.9, "PrG", RIGHT), ("white-matter", 0.1, "PCgG", LEFT)]
)
def test_decide_takes_the_likeliest(tissue: str, right: float, gyrus: str, side: int, all_gyri: bool) -> None:
    found = decided(probabilities(tissue, right, gyrus, all_gyri), all_gyri)
    assert found.tissue.item() == TISSUE[tissue]
    assert found.side.item() == side
    assert part_of_gyrus()[found.parcel.item()] == part_of_gyrus()[GYRUS[gyrus]]
    if all_gyri:
        assert found.parcel.item() == GYRUS[gyrus]
    assert found.confidence.item() == 1


def test_a_gyrus_never_contradicts_its_lobe() -> None:
    # one temporal gyrus is the likeliest single gyrus, but the frontal ones together are likelier
    channels = probabilities("cortex", 0, "STG", all_gyri=True)
    first = len(TISSUES) + 1
    channels[first + GYRUS["STG"]] = 0.4
    channels[first + GYRUS["SFG"]], channels[first + GYRUS["MFG"]] = 0.35, 0.25
    assert decided(channels, all_gyri=True).parcel.item() == GYRUS["SFG"]


def test_confidence_outside_the_brain_is_zero() -> None:
    assert decided(probabilities("background", 0, "PrG", all_gyri=False), all_gyri=False).confidence.item() == 0


def test_thick_voxels_take_what_fills_most_of_them() -> None:
    # 4 mm slices over a border: slice 0 is 3/4 caudate, slice 1 all putamen
    tissue = np.zeros((len(TISSUES), 4, 4, 8), np.float16)
    tissue[TISSUE["caudate"], ..., :3] = 1
    tissue[TISSUE["putamen"], ..., 3:] = 1
    parts = np.ones((2, 2, 4, len(lobe_parts())), np.float16)
    found = Probabilities((0, 0, 0), tissue, np.zeros((1, 4, 4, 8), np.float16), parts)
    native = decide_on_native_grid(found, grid_of((4, 4, 2), np.diag((1.0, 1.0, 4.0, 1.0))), gyri=False)
    assert (native.tissue[..., 0] == TISSUE["caudate"]).all()
    assert (native.tissue[..., 1] == TISSUE["putamen"]).all()
    assert native.confidence[0, 0, 0] == pytest.approx(0.75)


@pytest.mark.parametrize("axis", range(3))
def test_edge_fraction_sees_brain_cut_by_any_face(axis: int) -> None:
    tissue = np.zeros((10, 10, 10), np.uint8)
    tissue[2:7, 2:8, 2:8] = 1
    assert edge_fraction(tissue) == 0
    assert edge_fraction(np.swapaxes(tissue[6:], 0, axis)) == pytest.approx(0.36)
    assert edge_fraction(np.swapaxes(tissue[:4], 0, axis)) == pytest.approx(0.36)
