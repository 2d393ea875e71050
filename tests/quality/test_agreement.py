"""How far answers agree, between grids whose offsets are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.image import Image
from bidsseg.quality.agreement import agreement, agreement_file, carry
from bidsseg.quality.verdicts import AGREEMENT, WITH

SHAPE = (8, 8, 8)


def labels(start: int, shift_mm: float = 0, spacing_mm: float = 1.0) -> Image:
    """Label 12 from voxel ``start`` of the first axis on."""
    data = np.zeros(SHAPE, np.float32)
    data[start:] = 12
    affine = np.diag((spacing_mm, 1, 1, 1.0))
    affine[0, 3] = shift_mm
    return Image(data, affine)


def shift(mm: float) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[0, 3] = mm
    return matrix


@pytest.mark.parametrize(
    ("other", "to_other", "expected"),
    [
        (labels(4), shift(0), 1.0),
        (labels(4, shift_mm=3), shift(3), 1.0),  # the same head, three mm to the right
        (labels(6), shift(0), 2 * 2 / (4 + 2)),
        (labels(2, shift_mm=0.5, spacing_mm=2), shift(0), 1.0),  # slices twice as thick
        (labels(4, shift_mm=4), shift(0), 0.0),  # reaches the upper half only, and has nothing there
    ],
)
def test_agreement_of_two_answers(other: Image, to_other: NDArray[np.float64], expected: float) -> None:
    assert agreement(labels(4), other, to_other) == pytest.approx(expected)


def test_labels_end_where_their_image_ends() -> None:
    carried, reached = carry(labels(0), labels(0), shift(5))
    assert carried[:, 0, 0].tolist() == [12, 12, 12, 0, 0, 0, 0, 0]
    assert reached[:, 0, 0].tolist() == [True] * 3 + [False] * 5


def test_a_file_of_agreement() -> None:
    found = agreement_file({"sub-1_FLAIR": 0.8, "sub-1_T2w": 0.5}, {"SoftwareVersion": "1"})
    assert (found[AGREEMENT], found[WITH]) == (0.65, {"sub-1_FLAIR": 0.8, "sub-1_T2w": 0.5})
