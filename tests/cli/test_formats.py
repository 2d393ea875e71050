"""The commands take what users have: DICOM folders, MGZ, NRRD, MetaImage, Analyze; and replace none of it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner, Result

from bidsseg.cli.main import main
from bidsseg.imaging import dicom_seg
from bidsseg.imaging.image import load
from tests.conftest import write_scan
from tests.dicom import Series, write_series

QUICK = ("--no-picture", "--threads", "1")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def series(folder: Path, *more: Series) -> Path:
    """The scan of the tests as DICOM series; the first has number 5."""
    scan = load(write_scan(folder.parent / "source.nii.gz"))
    for each in (Series(), *more):
        write_series(folder, np.rint(scan.data * 10).astype(np.int16), scan.affine, each)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_dicom_folder_is_labelled_on_its_own_grid_and_beside_it(tiny_model: Path, tmp_path: Path) -> None:
    folder = series(tmp_path / "1.2.840")
    before = names(folder)
    found = run("predict", folder, "--model", tiny_model, *QUICK)
    assert found.exit_code == 0, found.output
    assert names(folder) == before
    written = {f"1.2.840_dseg{ending}" for ending in (".nii.gz", "_mask.nii.gz", "_volumes.tsv", "_qc.json")}
    assert names(tmp_path) == {"1.2.840", "source.nii.gz", *written}
    scan, labels = load(tmp_path / "source.nii.gz"), nib.load(tmp_path / "1.2.840_dseg.nii.gz")
    assert labels.shape == scan.data.shape
    np.testing.assert_allclose(np.sort(np.abs(labels.affine[:3, :3]).sum(0)), (2, 2, 2), atol=1e-4)
    within = ("predict", folder, "-o", folder, "--model", tiny_model, *QUICK)
    assert [run(*within).exit_code for _ in range(2)] == [0, 0]


def test_here_is_a_folder_too(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(series(tmp_path / "dicom"))
    assert run("predict", ".", "--model", tiny_model, *QUICK).exit_code == 0
    assert (tmp_path / "dicom_dseg.nii.gz").exists()


def test_several_series_are_listed_in_one_line_and_one_is_chosen(tiny_model: Path, tmp_path: Path) -> None:
    folder = series(tmp_path / "dicom", Series("1.2.826.0.1.9", 6, "FLAIR"))
    asked = run("predict", folder, "--model", tiny_model, *QUICK)
    assert asked.exit_code == 1
    [line] = asked.stderr.splitlines()
    assert "1 = T1w (axial, 20 images), 2 = FLAIR (axial, 20 images); choose one with --series" in line
    for choice in ("2", "1.2.826.0.1.9"):
        out = tmp_path / f"{choice}.nii.gz"
        assert run("predict", folder, "-o", out, "--series", choice, "--model", tiny_model, *QUICK).exit_code == 0


@pytest.mark.parametrize("name", ["a.mgz", "a.nrrd", "a.mha", "a.img"])
def test_other_formats_give_nifti_on_their_grid(name: str, tiny_model: Path, tmp_path: Path) -> None:
    scan = load(write_scan(tmp_path / "source.nii.gz"))
    if name == "a.mgz":
        nib.save(nib.MGHImage(scan.data, scan.affine), tmp_path / name)
    elif name == "a.img":
        nib.save(nib.Spm99AnalyzeImage(scan.data, scan.affine), tmp_path / name)
    else:
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "source.nii.gz")), str(tmp_path / name))
    for given in (name, "source.nii.gz"):
        assert run("predict", tmp_path / given, "--model", tiny_model, *QUICK).exit_code == 0
    labels, expected = (nib.load(tmp_path / f"{stem}_dseg.nii.gz") for stem in ("a", "source"))
    np.testing.assert_array_equal(np.asarray(labels.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(labels.affine, expected.affine, atol=1e-4)


def test_mgz_in_gives_mgz_out(tiny_model: Path, tmp_path: Path) -> None:
    scan = load(write_scan(tmp_path / "source.nii.gz"))
    nib.save(nib.MGHImage(scan.data, scan.affine), tmp_path / "a.mgz")
    command = ("predict", tmp_path / "a.mgz", "-o", tmp_path / "out" / "seg.mgz", "--model", tiny_model, *QUICK)
    assert [run(*command).exit_code for _ in range(2)] == [0, 0]  # the second replaces what is its own
    assert names(tmp_path / "out") == {"seg.mgz", "seg_mask.mgz", "seg_volumes.tsv", "seg_qc.json"}
    labels, mask = (nib.load(tmp_path / "out" / name) for name in ("seg.mgz", "seg_mask.mgz"))
    np.testing.assert_allclose(labels.affine, scan.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(labels.dataobj) > 0, np.asarray(mask.dataobj) > 0)
    corrected = np.asarray(labels.dataobj).copy()
    corrected[3, 3, 3] += 1
    nib.save(nib.MGHImage(corrected, labels.affine), tmp_path / "out" / "seg.mgz")
    again = run(*command)
    assert again.exit_code == 1
    assert "seg.mgz: was not written by bidsseg, or was changed since" in again.stderr


def test_lesions_of_a_dicom_flair_with_a_mask_in_nrrd(tiny_model: Path, tmp_path: Path) -> None:
    folder = series(tmp_path / "dicom", Series("1.2.826.0.1.9", 6, "FLAIR"))
    source = nib.load(tmp_path / "source.nii.gz")
    mask = np.zeros(source.shape, np.uint8)
    mask[10:14, 10:13, 9:12] = 1
    nib.save(nib.Nifti1Image(mask, source.affine), tmp_path / "mask.nii.gz")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "mask.nii.gz")), str(tmp_path / "mask.nrrd"))
    command = ("lesions", folder, "--mask", tmp_path / "mask.nrrd", "-o", tmp_path / "out", "--model", tiny_model)
    assert "choose one with --series" in run(*command).stderr
    found = run(*command, "--series", "2", "--threads", "1")
    assert found.exit_code == 0, found.output
    rows = (tmp_path / "out" / "dicom_desc-lesions_lesions.tsv").read_text().splitlines()
    assert [float(row.split("\t")[1]) for row in rows[1:]] == [4 * 3 * 3 * 8]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dicom", "--dicom-seg", "seg.nii.gz"], "not a DICOM name; end it in .dcm"),
        (["dicom", "a.nii.gz", "--dicom-seg", "seg.dcm"], "give one scan at a time"),
        (["a.nii.gz", "--dicom-seg", "seg.dcm"], "a.nii.gz: not a folder"),
        (["dicom", "-o", "seg.nrrd"], "not a NIfTI name; end it in .nii.gz or .mgz"),
        (["dicom", "--dicom-seg", "dicom/5-000.dcm"], "would be replaced, but is an input of this command"),
        (["dicom", "--dicom-seg", "dicom/5-000.dcm", "--overwrite"], "would be replaced, but is an input"),
    ],
)
def test_wrong_calls_change_nothing_and_say_so_in_one_line(
    arguments: list[str], says: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series(tmp_path / "dicom")
    write_scan(tmp_path / "a.nii.gz")
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: name)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = run("predict", *arguments, "--model", tiny_model, *QUICK)
    assert found.exit_code == 2
    [line] = found.stderr.splitlines()
    assert says in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_file_has_no_series_to_choose(tiny_model: Path, tmp_path: Path) -> None:
    found = run("predict", write_scan(tmp_path / "a.nii.gz"), "--series", "1", "--model", tiny_model, *QUICK)
    assert found.exit_code == 1
    assert "a.nii.gz: a file, so there is no series to choose; leave out --series" in found.stderr


def test_without_highdicom_advice_comes_before_any_work(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_seg, "find_spec", lambda _: None)
    found = run("predict", series(tmp_path / "dicom"), "--dicom-seg", tmp_path / "s.dcm", "--model", tiny_model)
    assert found.exit_code == 2
    assert "pip install 'bidsseg[dicom]'" in found.stderr
    assert names(tmp_path) == {"dicom", "source.nii.gz"}


def test_a_dicom_segmentation_beside_the_labels_holds_the_same(tiny_model: Path, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    folder, out = series(tmp_path / "dicom"), tmp_path / "out"
    command = ("predict", folder, "-o", out / "seg.nii.gz", "--dicom-seg", out / "seg.dcm", "--model", tiny_model)
    assert [run(*command, *QUICK).exit_code for _ in range(2)] == [0, 0]
    labels = np.asarray(nib.load(out / "seg.nii.gz").dataobj)
    found = highdicom.seg.segread(out / "seg.dcm")
    volume = found.get_volume(combine_segments=True)
    by_slice = [np.count_nonzero(labels[:, :, k]) for k in range(labels.shape[2])]
    found_by_slice = [np.count_nonzero(plane) for plane in volume.array]
    assert found_by_slice in ([n for n in by_slice if n], [n for n in by_slice[::-1] if n])
    assert len(found.SegmentSequence) == len(np.unique(labels)) - 1
    (out / "seg.dcm").write_bytes(b"theirs")
    again = run(*command, *QUICK)
    assert again.exit_code == 1
    assert "seg.dcm: was not written by bidsseg" in again.stderr
