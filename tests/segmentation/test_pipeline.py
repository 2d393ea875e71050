from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from bidsseg.imaging.image import Image
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.segmentation.pipeline import segment
from tests.phantoms import ORIENTATIONS, head


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.8, 1.1, 3.0)])
def test_48_orientations_give_the_same_labels(spacing: tuple[float, ...], tiny_model: Path) -> None:
    model, options = load_model(tiny_model), PredictOptions("cpu", threads=1)
    affine = np.diag((*spacing, 1.0))
    scan = head((30, 26, 14), affine)
    reference = segment(scan, model, options).labels("regions")
    assert len(np.unique(reference)) > 3
    for orientation in ORIENTATIONS:
        turned = np.ascontiguousarray(apply_orientation(scan.data, orientation))
        image = Image(turned, affine @ inv_ornt_aff(orientation, scan.data.shape), scan.header)
        found = segment(image, model, options).labels("regions")
        assert found.shape == turned.shape
        assert (found == apply_orientation(reference, orientation)).mean() >= 0.999


@pytest.mark.parametrize("shape", [(1, 40, 40), (40, 40, 1), (3, 3, 3), (70, 20, 33)])
@pytest.mark.parametrize("with_gyri", [False, True])
def test_any_shape_gets_labels_on_its_own_grid(shape: tuple[int, int, int], with_gyri: bool, tiny_model: Path) -> None:
    found = segment(head(shape, np.eye(4)), load_model(tiny_model), PredictOptions("cpu", 1, with_gyri))
    for volume in (found.tissue, found.side, found.parcel, found.confidence):
        assert volume.shape == shape
    assert found.has_gyri == with_gyri


def test_probabilities_in_files_are_the_same_and_leave_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    model, image = load_model(tiny_model), head((40, 44, 36), np.eye(4))
    plain, filed = (
        segment(image, model, PredictOptions("cpu", threads=1, gyri=True, scratch=scratch))
        for scratch in (None, tmp_path)
    )
    for scheme in ("regions", "gyri"):
        np.testing.assert_array_equal(plain.labels(scheme), filed.labels(scheme))
    assert list(tmp_path.iterdir()) == []
