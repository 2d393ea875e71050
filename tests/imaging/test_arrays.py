from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.arrays import along, as_float32, box_around, normalise, resampling_matrix
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


def test_normalise_spans_0_to_1_and_ignores_empty_background() -> None:
    data = np.zeros((10, 10, 10), np.float32)
    data[5:] = np.linspace(100, 200, 500).reshape(5, 10, 10)
    found = normalise(data)
    assert found.min() == 0
    assert found.max() == 1
    assert found[5:].mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(normalise(data * 7), found, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1, 1e30])
def test_normalise_knows_no_scale(factor: float) -> None:
    data = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    np.testing.assert_allclose(normalise(data * np.float32(factor)), normalise(data), atol=1e-5)


def test_normalise_on_the_brain_leaves_the_scalp_out() -> None:
    data = np.full((10, 10, 10), 3000, np.float32)
    data[:, :, 0] = 0
    brain = np.zeros(data.shape, bool)
    brain[3:7, 3:7, 3:7] = True
    data[brain] = np.linspace(100, 200, 64)
    found = normalise(data, brain)
    assert found[brain].mean() == pytest.approx(0.5, abs=0.01)
    assert found[0, 0, 1] == 1
    assert found[0, 0, 0] == 0


@pytest.mark.parametrize("inside", [None, np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)])
def test_normalise_of_a_constant_is_zero(inside: NDArray[np.bool_] | None) -> None:
    assert not normalise(np.full((3, 3, 3), 4, np.float32), inside).any()


@pytest.mark.parametrize("values", [np.array([0, 6e-8, 0.1, 1], np.float16), np.array([0, 255], np.uint8), [True]])
def test_as_float32_keeps_values(values: Any) -> None:
    given = np.asarray(values)[None, ::-1]
    found = as_float32(given)
    assert found.dtype == np.float32
    assert found.tolist() == given.astype(float).tolist()
