from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bidsseg.bids.names import parse_scan
from bidsseg.bids.outputs import ScanOutputs, sidecar_of
from bidsseg.files import read_json
from bidsseg.imaging.image import load, save
from bidsseg.workflow.lesion_filling import Masked, fill_session
from tests.lesion_phantom import Bounds, Spacing, boxes, brain, image

ONE_MM: Spacing = (1, 1, 1)
IN_FLAIR: Bounds = (16, 28, -6, 6, 18, 30)
IN_T1W: Bounds = (16, 28, -2, 10, 18, 30)
"The patient has moved forwards by 4 mm."
WHITE = 100.0


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Masked, ScanOutputs]:
    """A FLAIR with the mask of a lesion, and a T1w in which the lesion is dark and lies elsewhere."""
    anatomy = brain(ONE_MM)
    outputs, scans = [], []
    noise = np.random.default_rng(0).normal(0, 1, anatomy.tissue.shape)
    for suffix, bounds, brightness in (("FLAIR", IN_FLAIR, 40), ("T1w", IN_T1W, -40)):
        data = (anatomy.tissue > 0) * (WHITE + noise) + brightness * boxes(ONE_MM, [bounds])
        scans.append(image(data, anatomy.affine))
        path = tmp_path / "data" / "sub-01" / "anat" / f"sub-01_{suffix}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, scans[-1].data, anatomy.affine)
        outputs.append(ScanOutputs(parse_scan(path), tmp_path / "data", tmp_path / "out"))
        outputs[-1].filled.parent.mkdir(parents=True, exist_ok=True)
    forwards = np.eye(4)
    forwards[1, 3] = 4
    monkeypatch.setattr("bidsseg.imaging.registration.rigid_transform", lambda *_: forwards)
    monkeypatch.setattr("bidsseg.workflow.lesion_filling.anatomy_of", lambda *_: anatomy)
    mask = image(boxes(ONE_MM, [IN_FLAIR]), anatomy.affine)
    return Masked(outputs[0], scans[0], anatomy, mask, 0.5, False), outputs[1]


def test_lesions_are_filled_where_they_lie_in_each_scan(session: tuple[Masked, ScanOutputs]) -> None:
    masked, other = session
    written, warnings = fill_session(masked, [other], {"Sources": ["bids:masks:m.nii.gz", "bids:raw:flair"]}, 1)
    assert written == [path for scan in (masked.outputs, other) for path in (scan.filled, sidecar_of(scan.filled))]
    assert warnings == []
    for outputs, bounds in ((masked.outputs, IN_FLAIR), (other, IN_T1W)):
        lesion = boxes(ONE_MM, [bounds])
        before, after = load(outputs.scan.path).data, load(outputs.filled).data
        assert after[lesion].mean() == pytest.approx(WHITE, abs=1)
        far = ~ndimage.binary_dilation(lesion, np.ones((3, 3, 3)), iterations=4)
        np.testing.assert_array_equal(after[far], before[far])
    assert read_json(sidecar_of(other.filled))["Sources"] == ["bids:masks:m.nii.gz", other.source_uri]


def test_what_was_not_filled_is_told_of_each_scan(
    session: tuple[Masked, ScanOutputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patient has moved so that half of the lesion lies in the T1w's cortex, which begins at 36 mm."""
    to_the_right = np.eye(4)
    to_the_right[0, 3] = 14
    monkeypatch.setattr("bidsseg.imaging.registration.rigid_transform", lambda *_: to_the_right)
    masked, other = session
    _, (warning,) = fill_session(masked, [other], {"Sources": ["mask", "scan"]}, 1)
    told = "sub-01_T1w.nii.gz: 50% of the lesion mask (864 voxels) lies outside of white matter and was not filled"
    assert warning == told


def test_a_scan_that_cannot_be_filled_costs_a_warning(session: tuple[Masked, ScanOutputs]) -> None:
    masked, other = session
    other.scan.path.write_bytes(b"no image")
    written, (warning,) = fill_session(masked, [other], {"Sources": ["mask", "scan"]}, 1)
    assert written == [masked.outputs.filled, sidecar_of(masked.outputs.filled)]
    assert warning.startswith("lesions were not filled in sub-01_T1w.nii.gz: ")
