"""A DICOM segmentation refers to its series, and has every label where the label image has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidsseg.authorship import is_ours
from bidsseg.errors import FileError, UserError
from bidsseg.imaging import dicom_seg
from bidsseg.imaging.dicom_seg import Maker, check_can_write, save_dicom_seg
from bidsseg.imaging.image import load
from bidsseg.labels import SCHEMES, Scheme, label_table
from bidsseg.segmentation.dicom_terms import CATEGORIES, PRIVATE_SCHEME, segments_of
from tests.dicom import Series, write_series
from tests.imaging.test_dicom import VALUES, turned

MAKER = Maker("bidsseg", "1.0", "tiny", "regions")
OBLIQUE = turned((12, -20, 33))


def labels() -> Any:
    """Blocks of three labels, of which one is only in the last slice."""
    found = np.zeros(VALUES.shape, np.uint16)
    found[2:9, 3:20, 1:6], found[10:14, 3:8, 2:8], found[5, 6, -1] = 17, 4206, 16
    return found


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_it_is_read_back_voxel_by_voxel(backwards: bool, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    scan = load(write_series(tmp_path / "dicom", VALUES, OBLIQUE, Series(backwards=backwards)))
    save_dicom_seg(tmp_path / "seg.dcm", labels(), scan, segments_of("regions"), MAKER)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    volume = found.get_volume(combine_segments=False)
    np.testing.assert_allclose(np.sort(volume.spacing), np.sort(scan.spacing_mm), atol=1e-4)
    kept = {segment.SegmentLabel: n for n, segment in enumerate(found.SegmentSequence)}
    assert list(kept) == ["Brain-Stem", "Left-Hippocampus", "wm-rh-parietal-lobe"]
    of_name = {label.name: label.index for label in label_table("regions")}
    lps_to_ras = np.diag((-1.0, -1.0, 1.0, 1.0))
    to_scan = np.linalg.inv(scan.affine) @ lps_to_ras @ volume.affine
    for name, n in kept.items():
        mask = np.zeros(scan.data.shape, bool)
        inside = np.argwhere(volume.array[..., n])
        places = inside @ to_scan[:3, :3].T + to_scan[:3, 3]
        np.testing.assert_allclose(places, np.rint(places), atol=1e-3)
        mask[tuple(np.rint(places).astype(int).T)] = True
        np.testing.assert_array_equal(mask, labels() == of_name[name])


def test_segments_have_names_colours_codes_and_a_source(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    scan = load(write_series(tmp_path / "dicom", VALUES, OBLIQUE))
    save_dicom_seg(tmp_path / "seg.dcm", labels(), scan, segments_of("regions"), MAKER)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    hippocampus, white_matter = found.SegmentSequence[1:]
    assert hippocampus.SegmentedPropertyTypeCodeSequence[0].CodeValue == "5366008"
    assert hippocampus.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert hippocampus.SegmentDescription == "Label 17 of the regions of bidsseg"
    assert white_matter.AnatomicRegionSequence[0].CodeMeaning == "Parietal lobe"
    color = highdicom.color.CIELabColor.from_dicom_value(hippocampus.RecommendedDisplayCIELabValue)
    assert np.abs(np.subtract(color.to_rgb(), (0xDC, 0xD8, 0x14))).max() <= 2
    assert (found.StudyInstanceUID, found.PatientID) == ("1.2.826.0.1", "1")
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == Series.uid
    assert found.FrameOfReferenceUID == "1.2.826.0.2"
    assert is_ours(tmp_path / "seg.dcm")
    assert load(tmp_path / "dicom").data.shape == VALUES.shape
    (tmp_path / "seg.dcm").rename(tmp_path / "dicom" / "seg.dcm")
    assert load(tmp_path / "dicom").warnings == ()  # a segmentation is no scan


def test_a_series_that_cannot_be_referred_to_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    series = Series(change=lambda _, tags: {name: value for name, value in tags.items() if name != "0020|0052"})
    scan = load(write_series(tmp_path / "dicom", VALUES, OBLIQUE, series))
    with pytest.raises(FileError, match="leave --dicom-seg out") as caught:
        save_dicom_seg(tmp_path / "seg.dcm", labels(), scan, segments_of("regions"), MAKER)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="no labels"):
        save_dicom_seg(tmp_path / "seg.dcm", labels() * 0, scan, segments_of("regions"), MAKER)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_label_has_a_term_and_no_private_one_without_need(scheme: Scheme) -> None:
    segments = segments_of(scheme)
    assert list(segments) == [label.index for label in label_table(scheme)]
    private = {segment.name for segment in segments.values() if segment.kind.scheme == PRIVATE_SCHEME}
    groups = {f"{side}-{name}" for side in ("Left", "Right") for name in ("Ventricles", "Deep-Grey")}
    assert private == (groups | {"Midline-Ventricles"} if scheme == "lobes" else set())
    assert all(len(segment.name) <= 64 and segment.category in CATEGORIES.values() for segment in segments.values())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_terms_are_those_of_dicoms_own_dictionary(scheme: Scheme) -> None:
    pytest.importorskip("pydicom")
    from pydicom.sr.codedict import codes

    known = {(code.value, name) for name in ("SCT", "DCM") for code in _all(getattr(codes, name))}
    for segment in segments_of(scheme).values():
        for term in (segment.kind, segment.category, segment.region):
            assert term is None or term.scheme == PRIVATE_SCHEME or (term.value, term.scheme) in known


def _all(collection: Any) -> list[Any]:
    return [getattr(collection, name) for name in collection.dir() if name.isidentifier()]


def test_advice_where_the_extra_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_seg, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'bidsseg\[dicom\]'"):
        check_can_write()
