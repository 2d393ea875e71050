import numpy as np
import pytest

from bidsseg.imaging.bias import correct_bias
from tests.phantoms import image


@pytest.mark.parametrize("darkest", [0.0, -300.0])
def test_bias_correction_flattens_a_field(darkest: float) -> None:
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, 40),) * 3, indexing="ij")
    head = (i**2 + j**2 + k**2 < 0.8).astype(np.float32)
    field = np.exp(0.5 * i).astype(np.float32)
    corrected = correct_bias(image(100 * head * field + np.float32(darkest), np.diag((4.0, 4.0, 4.0, 1.0))))
    inside = head > 0
    spread = [float(data[inside].std() / data[inside].mean()) for data in (100 * field, corrected.data - darkest)]
    assert spread[1] < 0.4 * spread[0]
    assert np.ptp(corrected.data[~inside]) < 1


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e9])
def test_the_unit_of_grey_values_does_not_matter(scale: float) -> None:
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, 40),) * 3, indexing="ij")
    data = (100 * (i**2 + j**2 + k**2 < 0.8) * np.exp(0.5 * i) + np.random.default_rng(0).random(i.shape)).astype("f4")
    affine = np.diag((4.0, 4.0, 4.0, 1.0))
    plain, scaled = (correct_bias(image(data * np.float32(factor), affine)).data for factor in (1, scale))
    np.testing.assert_allclose(scaled / scale, plain, atol=0.02 * plain.max())
