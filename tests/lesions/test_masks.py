"""What the values of a lesion mask mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.errors import UserError
from bidsseg.lesions.masks import is_probability, read_labels
from tests.lesion_phantom import Spacing, ball

SPACINGS: list[Spacing] = [(1, 1, 1), (1, 1, 6), (0.5, 0.5, 3)]


@pytest.mark.parametrize(
    ("values", "kind", "voxels"),
    [
        ([0, 1, 1], "binary", 2),
        ([0, 255, 255], "binary", 2),
        ([0, 0, 0], "binary", 0),
        ([0, 1, 2], "labels", 2),
        ([0.2, 0.5, 0.9], "probability", 2),
        ([0.0, 0.3, 0.3], "probability", 0),
    ],
)
def test_kinds_of_masks(values: list[float], kind: str, voxels: int) -> None:
    found = read_labels(np.array(values, np.float32)[:, None, None], threshold=0.5)
    assert found.kind == kind
    assert int((found.labels > 0).sum()) == voxels
    below = kind == "probability" and voxels == 0
    assert [warning.partition(";")[0] for warning in found.warnings] == (
        ["no voxel of the lesion mask reaches the threshold 0.5"] if below else []
    )


def balls(spacing: Spacing) -> NDArray[np.float32]:
    """Six lesions of 3 to 8 mm."""
    centres = [(-20, -20, 0), (20, -20, 0), (-20, 20, 0), (20, 20, 0), (0, 0, 24), (0, 30, -20)]
    found = np.zeros(ball(spacing, centres[0], 3).shape, bool)
    for centre, radius in zip(centres, (3, 4, 5, 6, 7, 8), strict=True):
        found |= ball(spacing, centre, radius)
    return found.astype(np.float32)


def blurred(mask: NDArray[np.float32], spacing: Spacing) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ndimage.gaussian_filter(mask, [1.5 / max(mm, 1.5) for mm in spacing])
    return np.asarray(found / found.max(), np.float32)


def resampled(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """To a coarser grid in plane and back."""
    low = ndimage.zoom(mask * 255, (0.7, 0.7, 1), order=1)
    back: NDArray[np.float32] = ndimage.zoom(low, np.array(mask.shape) / low.shape, order=1)
    return back.round()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("scale", [100, 255, 1000])
def test_whole_numbers_that_lie_inside_each_other_are_probabilities(spacing: Spacing, scale: int) -> None:
    share = blurred(balls(spacing), spacing)
    wanted, found = read_labels(share, 0.5), read_labels((share * scale).round(), 0.5)
    assert found.kind == "probability"
    assert f"of which {scale} is 1" in found.warnings[0]
    assert abs(int(found.labels.sum()) - int(wanted.labels.sum())) <= 0.02 * wanted.labels.sum()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_mask_resampled_linearly_is_no_labelled_one(spacing: Spacing) -> None:
    mask = balls(spacing)
    for moved in (resampled(mask), ndimage.shift(mask * 255, (0.5, 0, 0), order=1).round()):
        found = read_labels(moved, 0.5)
        assert found.kind == "probability"
        assert found.labels.sum() == pytest.approx(mask.sum(), rel=0.3)


MOVES: list[Callable[[NDArray[np.float32]], NDArray[np.float32]]] = [
    lambda mask: ndimage.shift(mask, (0.29, 0.29, 0), order=1),
    lambda mask: ndimage.shift(mask, (0.5, 0.5, 0.5), order=1),
    lambda mask: ndimage.zoom(mask, (2, 2, 1), order=1),
    lambda mask: ndimage.zoom(mask, (0.7, 0.7, 1), order=1),
]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("highest", [2, 7, 100, 255])
def test_fractions_up_to_the_value_of_a_mask_are_shares_of_it(
    highest: int, move: Callable[[NDArray[np.float32]], NDArray[np.float32]], spacing: Spacing
) -> None:
    wanted, found = (read_labels(move(balls(spacing) * value), 0.5) for value in (1, highest))
    assert found.kind == "probability"
    assert found.warnings == (
        f"lesion mask: fractions up to {highest}, taken for probabilities of which {highest} is 1",
    )
    assert np.count_nonzero(found.labels != wanted.labels) <= 0.001 * wanted.labels.sum()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("labels", [6, 2])
def test_labels_with_fractions_between_them_are_asked_about(
    labels: int, move: Callable[[NDArray[np.float32]], NDArray[np.float32]], spacing: Spacing
) -> None:
    numbered = ndimage.label(balls(spacing))[0]
    moved = move(np.where(numbered > 0, 1 + numbered % labels, 0).astype(np.float32))
    with pytest.raises(UserError, match=f"to {labels}; give 0/1, probabilities 0-1, or labels"):
        read_labels(moved, 0.5)


@pytest.mark.parametrize("highest", [100, 255])
@pytest.mark.parametrize("width", [0, 2])
def test_a_scan_is_no_mask_of_its_highest_value(highest: int, width: float) -> None:
    noise = np.abs(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 30, 30)), width))
    with pytest.raises(UserError, match=f"to {highest}; give 0/1"):
        read_labels((noise * highest / noise.max()).astype(np.float32), 0.5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("move", MOVES)
def test_a_mask_of_twos_that_was_rounded_stays_labels_with_a_word(
    move: Callable[[NDArray[np.float32]], NDArray[np.float32]], spacing: Spacing
) -> None:
    rounded = move(balls(spacing) * 2).round()
    thick = spacing[2] > 3 and move is MOVES[1]
    found = read_labels(rounded, 0.5)
    assert found.kind == "labels"
    np.testing.assert_array_equal(found.labels, rounded)
    told = "lesion mask: labels up to 2, of which 2 alone is inside lesions"
    assert [warning.partition(" and ")[0] for warning in found.warnings] == ([] if thick else [told])


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("first", [1, 60, 250])
def test_labels_stay_labels(spacing: Spacing, first: int) -> None:
    """Components, and a confluent one cut in two, whatever their numbers."""
    numbered = ndimage.label(balls(spacing))[0]
    numbered[: len(numbered) // 2][numbered[: len(numbered) // 2] == numbered.max()] += 1
    labels = np.where(numbered > 0, numbered + first - 1, 0).astype(np.float32)
    found = read_labels(labels, 0.5)
    assert found.kind == "labels"
    assert found.warnings == ()
    np.testing.assert_array_equal(found.labels, labels)


def test_numbers_of_no_known_scale_are_asked_about() -> None:
    with pytest.raises(UserError, match=r"whole numbers from 1 to 43: probabilities, or labels\?"):
        read_labels((blurred(balls(SPACINGS[0]), SPACINGS[0]) * 43).round(), 0.5)


def test_a_probseg_holds_probabilities_whatever_its_numbers() -> None:
    labels = np.where(balls(SPACINGS[0]) > 0, 30, 0).astype(np.float32)
    labels[: len(labels) // 2] *= 3
    assert read_labels(labels, 0.5).kind == "labels"
    found = read_labels(labels, 0.5, named_probability=True)
    assert found.kind == "probability"
    np.testing.assert_array_equal(found.labels > 0, labels == 90)
    assert is_probability("sub-01_label-lesion_probseg.nii.gz")
    assert not is_probability("sub-01_label-lesion_mask.nii.gz")


@pytest.mark.parametrize(
    ("values", "told"),
    [([0.5, 1, 36.5], r"values from 0\.5 to 36\.5"), ([0, -1, -1], "values from -1 to 0; lesions need values above 0")],
)
def test_values_that_mean_nothing(values: list[float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_labels(np.array(values, np.float32)[:, None, None], threshold=0.5)
