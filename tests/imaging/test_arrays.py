from typing import Any, Literal

import numpy as np
import pytest

from bidsseg.imaging.arrays import along, as_float32, box_around, first_axis_fastest, resampling_matrix
from tests.phantoms import ramp


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(0, (slice(2, 4), slice(1, 5), slice(0, 1))), (2, (slice(0, 6), slice(0, 6), slice(0, 3)))],
)
def test_box_around(margin: int, expected: tuple[slice, ...]) -> None:
    mask = np.zeros((8, 6, 4), bool)
    mask[2:4, 1:5, 0] = True
    assert box_around(mask, margin) == expected
    assert box_around(np.zeros((8, 6, 4), bool), margin) == (slice(0, 8), slice(0, 6), slice(0, 4))


@pytest.mark.parametrize(
    ("centres", "n_in", "width", "expected"),
    [
        # on the samples: the identity
        ([0, 1, 2], 3, 1, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        # half way: linear interpolation, also for a thin output
        ([0.5], 3, 1, [[0.5, 0.5, 0]]),
        ([1.25], 3, 0.2, [[0, 0.75, 0.25]]),
        # two samples wide: covers half, all, half of three neighbours
        ([1], 3, 2, [[0.25, 0.5, 0.25]]),
        ([0.5], 4, 2, [[0.5, 0.5, 0, 0]]),
        # three wide
        ([1], 3, 3, [[1 / 3, 1 / 3, 1 / 3]]),
        # beyond the end the nearest sample counts
        ([-5, 9], 3, 1, [[1, 0, 0], [0, 0, 1]]),
    ],
)
def test_resampling_matrix(centres: list[float], n_in: int, width: float, expected: list[list[float]]) -> None:
    found = resampling_matrix(np.array(centres, float), n_in, width)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_applies_a_matrix_to_one_axis(axis: int) -> None:
    volume, matrix = ramp(2, 3, 4, 5), np.ones((1, (3, 4, 5)[axis]), np.float32)
    np.testing.assert_allclose(along(matrix, volume, axis), volume.sum(axis + 1, keepdims=True))


@pytest.mark.parametrize("values", [np.array([0, 6e-8, 0.1, 1], np.float16), np.array([0, 255], np.uint8), [True]])
def test_as_float32_keeps_values(values: Any) -> None:
    given = np.asarray(values)[None, ::-1]
    found = as_float32(given)
    assert found.dtype == np.float32
    assert found.tolist() == given.astype(float).tolist()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(37, 5, 4), (3, 2, 1)])
def test_the_order_in_memory_changes_no_voxel(shape: tuple[int, int, int], order: Literal["C", "F"]) -> None:
    volume = np.arange(np.prod(shape)).reshape(shape, order=order)
    ordered = first_axis_fastest(volume)
    assert ordered.flags.f_contiguous
    np.testing.assert_array_equal(ordered, volume)


def test_as_float32_takes_any_view() -> None:
    halves = np.arange(24).reshape(2, 3, 4).astype(np.float16)
    for view in (halves[:, 1:, ::2], halves.transpose(2, 0, 1), halves[:, ::-1]):
        found = as_float32(view)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, view)
