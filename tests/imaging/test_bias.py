import numpy as np
import pytest
import SimpleITK as sitk

from bidsseg.imaging.bias import _shrunk, correct_bias
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
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, 20),) * 3, indexing="ij")
    data = (100 * (i**2 + j**2 + k**2 < 0.8) * np.exp(0.5 * i) + np.random.default_rng(0).random(i.shape)).astype("f4")
    affine = np.diag((8.0, 8.0, 8.0, 1.0))
    plain, scaled = (correct_bias(image(data * np.float32(factor), affine)).data for factor in (1, scale))
    np.testing.assert_allclose(scaled / scale, plain, atol=0.02 * plain.max())


@pytest.mark.parametrize("shape", [(32, 33, 19), (17, 24, 4)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 0.9, 0.7), (0.45, 0.488281, 6.0), (0.5, 0.86, 1.2)])
def test_shrinking_takes_the_voxels_that_itk_takes(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    data = np.random.default_rng(0).random(shape, np.float32)
    factors = [max(1, min(int(4 // mm), n // 4)) for mm, n in zip(spacing_mm, shape, strict=True)]
    whole = sitk.GetImageFromArray((data - data.min()).T.copy())
    whole.SetSpacing(spacing_mm)
    expected, found = sitk.Shrink(whole, factors), _shrunk(data, data.min(), spacing_mm, factors)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    assert (found.GetOrigin(), found.GetSpacing()) == (expected.GetOrigin(), expected.GetSpacing())
