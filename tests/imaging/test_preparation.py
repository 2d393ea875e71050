import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray

from bidsseg.imaging.grey import normalise
from bidsseg.imaging.preparation import conformed
from tests.phantoms import ORIENTATIONS, image, ramp


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
    grey = seen.on_scale_of(brain)
    np.testing.assert_allclose(grey[..., 7], np.linspace(0, 1, 11)[:, None].repeat(11, 1), atol=0.01)
    assert grey[0, 0, 9] == pytest.approx(0.4, abs=0.01)
    assert grey[..., 12].min() == 1


@pytest.mark.parametrize("spacing_mm", [0.8, 1.0])
def test_thin_voxels_are_normalised_as_they_are(spacing_mm: float) -> None:
    seen = conformed(image(ramp(12, 10, 8), np.diag((spacing_mm, spacing_mm, spacing_mm, 1.0))))
    brain = seen.volume > np.median(seen.volume)
    np.testing.assert_array_equal(seen.on_scale_of(brain), normalise(seen.volume, brain))


def test_without_a_brain_all_voxels_count() -> None:
    seen = conformed(image(ramp(12, 10, 8), np.diag((1, 1, 4, 1.0))))
    np.testing.assert_array_equal(seen.on_scale_of(np.zeros(seen.volume.shape, bool)), normalise(seen.volume))
