import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bidsseg.imaging.grey import normalise, normalised


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


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_the_percentiles_are_numpys(share: float) -> None:
    image = torch.randn(40, 20, 20, generator=torch.Generator().manual_seed(0))
    inside = torch.rand(image.shape, generator=torch.Generator().manual_seed(1)) < share
    counted = image[inside] if share else image[image > image.min()]
    low, high = np.percentile(counted.numpy(), (0.5, 99.5))
    expected = np.clip((image.numpy() - low) / (high - low), 0, 1)
    np.testing.assert_allclose(normalised(image, inside), expected, atol=1e-5)
