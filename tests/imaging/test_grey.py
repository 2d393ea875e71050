import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray

from bidsseg.imaging.grey import normalise, normalised, on_scale_of
from bidsseg.imaging.preparation import conformed
from tests.phantoms import ORIENTATIONS, image, ramp


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


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("scalp", [10.0, 40.0, 4000.0])
def test_a_scalp_is_clipped_in_its_slice_before_it_is_interpolated(
    scalp: float, orientation: NDArray[np.float64]
) -> None:
    """Two slices of 5 mm with a brain of 0 to 10 from left to right, and one of scalp above them.

    Two fifths of the way from the upper slice of brain to the scalp, where the brain is 0, lies two fifths of the
    brain's brightest; the scalp itself, shared by a fifth, must not count for brain where the mask reaches up to it.
    """
    data = np.full((11, 11, 3), scalp, np.float32)
    data[..., :2] = np.arange(11, dtype=np.float32)[:, None, None]
    turned = np.ascontiguousarray(apply_orientation(data, orientation))
    seen = conformed(image(turned, np.diag((1, 1, 5, 1.0)) @ inv_ornt_aff(orientation, data.shape)))
    brain = np.zeros(seen.volume.shape, bool)
    brain[..., :9] = True  # slices are centred on the voxels 2, 7 and 12
    grey = on_scale_of(seen, brain)
    np.testing.assert_allclose(grey[..., 7], np.linspace(0, 1, 11)[:, None].repeat(11, 1), atol=0.01)
    assert grey[0, 0, 9] == pytest.approx(0.4, abs=0.01)
    assert grey[..., 12].min() == 1


@pytest.mark.parametrize("spacing_mm", [0.8, 1.0])
def test_thin_voxels_are_normalised_as_they_are(spacing_mm: float) -> None:
    seen = conformed(image(ramp(12, 10, 8), np.diag((spacing_mm, spacing_mm, spacing_mm, 1.0))))
    brain = seen.volume > np.median(seen.volume)
    np.testing.assert_array_equal(on_scale_of(seen, brain), normalise(seen.volume, brain))


@pytest.mark.parametrize("brain", [np.s_[:0], np.s_[:4]], ids=["no brain", "air alone"])
def test_without_a_brain_all_voxels_count(brain: slice) -> None:
    data = ramp(12, 10, 8)
    data[:5] = 0
    seen = conformed(image(data, np.diag((1, 1, 4, 1.0))))
    taken_for_brain = np.zeros(seen.volume.shape, bool)
    taken_for_brain[brain] = True
    np.testing.assert_array_equal(on_scale_of(seen, taken_for_brain), normalise(seen.volume))
