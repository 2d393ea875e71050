from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.bids.completeness import is_complete, remove_outputs
from bidsseg.bids.names import parse_scan
from bidsseg.bids.outputs import OutputSettings, ScanOutputs
from bidsseg.bids.root_files import (
    BIDSIGNORE,
    bids_tissue,
    copy_session_times,
    links_in,
    refuse_other_dataset,
    write_root,
)
from bidsseg.bids.session_order import in_time, sessions_table
from bidsseg.errors import UserError
from bidsseg.files import table, write_json
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import load
from bidsseg.labels import SCHEMES, Scheme, label_table
from bidsseg.quality.agreement import agreement_file
from bidsseg.segmentation import mosaic as pictures
from bidsseg.segmentation.result import Segmentation
from bidsseg.workflow import derivatives
from bidsseg.workflow.derivatives import ScanResult, outputs_of, refuse_to_replace_of, write_scan
from tests.conftest import write_scan as write_image

RECIPE = OutputSettings("1", "tiny", "abc", schemes=("regions", "lobes"))


def blocks(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Segmentation:
    """Left frontal cortex in one half."""
    tissue = np.zeros(shape, np.uint8)
    tissue[: shape[0] // 2] = 1
    zeros = np.zeros(shape, np.uint8)
    return Segmentation(tissue, zeros, zeros, affine, confidence=np.ones(shape, np.float16))


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def mosaic(path: Path, *_: object) -> None:
        path.write_bytes(b"png")

    monkeypatch.setattr(pictures, "mosaic", mosaic)


@pytest.fixture
def outputs(tmp_path: Path) -> ScanOutputs:
    path = write_image(tmp_path / "data" / "sub-01" / "anat" / "sub-01_run-2_T1w.nii.gz", (20, 9, 10))
    return ScanOutputs(parse_scan(path), tmp_path / "data", tmp_path / "out")


def result_for(outputs: ScanOutputs) -> ScanResult:
    image = load(outputs.scan.path)
    grid = image.grid
    native, one_mm = (blocks(shape, affine) for shape, affine in (image.geometry, (grid.shape, grid.affine)))
    return ScanResult(image, native, conform(image)[0], one_mm)


def test_all_files_of_a_scan_are_written(outputs: ScanOutputs) -> None:
    marker = write_scan(outputs, RECIPE, result_for(outputs))
    folder = outputs.out / "sub-01" / "anat"
    names = {
        "space-orig_seg-regions_desc-T1w_dseg.nii.gz",
        "space-orig_seg-lobes_desc-T1w_dseg.nii.gz",
        "space-orig_label-brain_desc-T1w_mask.nii.gz",
        "space-individual_res-1mm_desc-preproc_T1w.nii.gz",
        "desc-T1w_volumes.tsv",
    }
    sidecars = {name.removesuffix(".nii.gz").removesuffix(".tsv") + ".json" for name in names}
    expected = {f"sub-01_run-2_{name}" for name in names | sidecars | {"desc-T1w_qc.json"}}
    assert {path.name for path in folder.iterdir()} == expected
    assert marker == folder / "sub-01_run-2_desc-T1w_qc.json"


def test_labels_lie_on_the_scans_own_grid(outputs: ScanOutputs) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    scan = load(outputs.scan.path)
    labels = load(outputs.file("dseg.nii.gz", space="orig", seg="regions", desc="T1w"))
    assert labels.data.shape == scan.data.shape
    np.testing.assert_array_equal(labels.affine, scan.affine)
    assert set(np.unique(labels.data)) <= {0, *(label.index for label in label_table("regions"))}
    assert labels.data.any()


def test_one_millimetre_labels_lie_on_the_grid_of_the_preprocessed_image(outputs: ScanOutputs) -> None:
    write_scan(outputs, replace(RECIPE, spaces=("1mm",)), result_for(outputs))
    one_mm = {"space": "individual", "res": "1mm"}
    labels = load(outputs.file("dseg.nii.gz", seg="regions", desc="T1w", **one_mm))
    preprocessed = load(outputs.file("T1w.nii.gz", desc="preproc", **one_mm))
    assert labels.data.shape == preprocessed.data.shape
    np.testing.assert_allclose(labels.affine, preprocessed.affine)
    np.testing.assert_allclose(labels.spacing_mm, 1)
    assert not outputs.file("dseg.nii.gz", space="orig", seg="regions", desc="T1w").exists()


def test_sidecars_tell_where_an_image_comes_from(outputs: ScanOutputs) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    path = outputs.file("T1w.json", space="individual", res="1mm", desc="preproc")
    sidecar = json.loads(path.read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_run-2_T1w.nii.gz"]
    assert sidecar["SkullStripped"] is False
    assert "1mm" in sidecar["Resolution"]
    assert sidecar["WeightsSHA256"] == "abc"


def test_volumes_are_those_of_the_scans_own_grid(outputs: ScanOutputs) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    lines = outputs.file("volumes.tsv", desc="T1w").read_text().splitlines()
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    found = [row for row in rows if row["voxels"] != "0"]
    assert {row["scheme"] for row in rows} == {"regions", "lobes"}
    assert [float(row["volume_mm3"]) for row in found] == [10 * 9 * 10 * 8.0] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"weights_sha256": "def"},
        {"bias_correction": False},
        {"schemes": ("regions",)},
        {"spaces": ("orig", "1mm")},
        {"mirror": True},
    ],
)
def test_another_recipe_is_done_again(outputs: ScanOutputs, change: dict[str, object]) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    assert is_complete(outputs, RECIPE)
    assert not is_complete(outputs, replace(RECIPE, **change))  # type: ignore[arg-type]


def test_a_missing_output_or_another_scan_is_done_again(outputs: ScanOutputs) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    mask = outputs.file("mask.nii.gz", space="orig", label="brain", desc="T1w")
    mask.rename(mask.with_name("kept"))
    assert not is_complete(outputs, RECIPE)
    mask.with_name("kept").rename(mask)
    assert is_complete(outputs, RECIPE)
    write_image(outputs.scan.path, (9, 9, 9))
    assert not is_complete(outputs, RECIPE)


def test_a_mended_header_is_done_again(outputs: ScanOutputs) -> None:
    scan = replace(outputs.scan, path=outputs.scan.path.with_suffix(""))  # uncompressed: it keeps its size
    outputs = replace(outputs, scan=scan)
    loaded = nib.load(write_image(scan.path), mmap=False)  # it is written over
    size = scan.path.stat().st_size
    write_scan(outputs, RECIPE, result_for(outputs))
    assert is_complete(outputs, RECIPE)
    mended = np.diag((-1.0, 1.0, 1.0, 1.0)) @ loaded.affine
    nib.save(nib.Nifti1Image(np.asarray(loaded.dataobj), mended, loaded.header), scan.path)
    assert scan.path.stat().st_size == size
    assert not is_complete(outputs, RECIPE)


def test_another_recipe_leaves_nothing_of_the_former(outputs: ScanOutputs) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    fewer = replace(RECIPE, schemes=("regions",))
    write_scan(outputs, fewer, result_for(outputs))
    assert is_complete(outputs, fewer)
    left = {path.relative_to(outputs.out).as_posix() for path in outputs.out.rglob("*") if path.is_file()}
    assert left == {
        *json.loads(outputs.quality.read_text())["Outputs"],
        outputs.quality.relative_to(outputs.out).as_posix(),
    }
    assert not [name for name in left if "seg-lobes" in name]


def test_an_interrupted_scan_is_not_complete(outputs: ScanOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(derivatives, "_write_volumes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_scan(outputs, RECIPE, result_for(outputs))
    assert not is_complete(outputs, RECIPE)
    assert not outputs.quality.exists()
    assert not [path for path in outputs.out.rglob(".*") if path.is_file()]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"SoftwareVersion": "1"}'])
def test_a_damaged_marker_is_not_complete(outputs: ScanOutputs, text: str) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    outputs.quality.write_text(text)
    assert not is_complete(outputs, RECIPE)


@pytest.mark.parametrize("name", ["../victim", "{abs}", "sub-02/anat/victim", "sub-01/../victim", "sub-01/away/victim"])
def test_a_marker_that_names_others_files_removes_none_and_is_not_complete(outputs: ScanOutputs, name: str) -> None:
    (outputs.out / "sub-02" / "anat").mkdir(parents=True)
    (outputs.out / "sub-01").mkdir()
    (outputs.out / "sub-01" / "away").symlink_to(outputs.out.parent)
    victims = [outputs.out.parent / "victim", outputs.out / "victim", outputs.out / "sub-02" / "anat" / "victim"]
    for victim in victims:
        victim.touch()
    write_scan(outputs, RECIPE, result_for(outputs))
    marker = json.loads(outputs.quality.read_text())
    marker["Outputs"].append(name.format(abs=victims[0]))
    outputs.quality.write_text(json.dumps(marker))
    assert not is_complete(outputs, RECIPE)
    assert remove_outputs(outputs.out, outputs.quality)
    assert all(victim.exists() for victim in victims)
    assert not list(outputs.out.rglob("*_dseg.nii.gz"))


@pytest.mark.parametrize("listed", [None, 3, "sub-01", [1, None], [["a"]], ["\0"], {"a": 1}])
def test_a_marker_that_lists_no_names_is_not_complete(outputs: ScanOutputs, listed: object) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    marker = json.loads(outputs.quality.read_text())
    outputs.quality.write_text(json.dumps({**marker, "Outputs": listed}))
    assert not is_complete(outputs, RECIPE)
    assert remove_outputs(outputs.out, outputs.quality)


def _change(path: Path) -> None:
    stored = nib.load(path)
    changed = np.asarray(stored.dataobj).copy()
    changed[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(changed, stored.affine, stored.header), path)


def test_what_others_changed_is_refused_and_not_removed(outputs: ScanOutputs) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    for path in outputs.out.rglob("*.png"):  # those of this test are not ours
        path.unlink()
    refuse_to_replace_of(outputs, RECIPE)
    labels = outputs.file("dseg.nii.gz", space="orig", seg="lobes", desc="T1w")
    _change(labels)
    for recipe in (RECIPE, replace(RECIPE, schemes=("regions",))):
        with pytest.raises(UserError, match=f"{labels}: was not written by bidsseg, or was changed since"):
            refuse_to_replace_of(outputs, recipe)
    remove_outputs(outputs.out, outputs.quality)
    assert [path.name for path in outputs.out.rglob("*.nii.gz")] == [labels.name]


def test_agreement_goes_with_the_labels_it_is_about(outputs: ScanOutputs) -> None:
    write_scan(outputs, RECIPE, result_for(outputs))
    alone = outputs.quality.read_text()
    write_json(outputs.agreement, agreement_file({"sub-01_FLAIR": 0.3}, {"SoftwareVersion": "1"}))
    assert is_complete(outputs, RECIPE)
    write_scan(outputs, RECIPE, result_for(outputs))
    assert not outputs.agreement.exists()
    assert outputs.quality.read_text() == alone


@pytest.mark.parametrize("name", ["dseg.nii.gz", "probseg.nii.gz", "dseg.json"])
def test_what_others_wrote_is_refused(outputs: ScanOutputs, name: str) -> None:
    recipe = replace(RECIPE, probseg=True)
    refuse_to_replace_of(outputs, recipe)
    path = outputs.file(name, space="orig", seg="lobes", desc="T1w")
    path.parent.mkdir(parents=True)
    path.write_text("theirs")
    with pytest.raises(UserError, match="was not written by bidsseg"):
        refuse_to_replace_of(outputs, recipe)


def test_everything_that_is_written_is_expected(outputs: ScanOutputs) -> None:
    recipe = replace(RECIPE, spaces=("orig", "1mm"))
    write_scan(outputs, recipe, result_for(outputs))
    written = {path for path in outputs.out.rglob("*") if path.is_file()} - {outputs.quality}
    assert written == {path for path in outputs_of(outputs, recipe) if path.suffix != ".png"}


def test_a_scan_that_fails_while_it_is_written_leaves_nothing(
    outputs: ScanOutputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(derivatives, "write_volumes", fail)
    with pytest.raises(OSError, match="No space left"):
        write_scan(outputs, RECIPE, result_for(outputs))
    assert [path for path in outputs.out.rglob("*") if path.is_file() and path.suffix != ".png"] == []


def test_a_picture_that_fails_is_a_warning(outputs: ScanOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(pictures, "mosaic", fail)
    write_scan(outputs, RECIPE, result_for(outputs))
    assert is_complete(outputs, RECIPE)
    assert "no ink" in json.loads(outputs.quality.read_text())["Warnings"][-1]


def test_root_files(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text('{"Authors": ["A", "B"]}')
    write_root(tmp_path / "out", tmp_path, replace(RECIPE, schemes=SCHEMES), ("T1w",))
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0] == {"Name": "bidsseg", "Version": "1", "Description": "segmentation"}
    assert description["DatasetLinks"] == {"raw": tmp_path.as_uri()}
    assert description["Authors"] == ["A", "B"]
    for scheme in SCHEMES:
        header, *rows = (tmp_path / "out" / f"seg-{scheme}_dseg.tsv").read_text().splitlines()
        assert header.split("\t")[:6] == ["index", "name", "abbreviation", "color", "hemisphere", "mapping"]
        assert len(rows) == len(label_table(scheme))
    assert "desc-T1w\t" in (tmp_path / "out" / "descriptions.tsv").read_text()


def test_root_files_keep_what_earlier_runs_rest_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_root(out, tmp_path, RECIPE, ("T1w",), {"masks": "file:///masks"})
    write_root(out, tmp_path, RECIPE, ("FLAIR",))
    assert links_in(out) == {"raw": tmp_path.as_uri(), "masks": "file:///masks"}
    described = [line.split("\t")[0] for line in (out / "descriptions.tsv").read_text().splitlines()]
    assert described == [
        "desc_id",
        "desc-preproc",
        "desc-lesions",
        "desc-lesionparts",
        "desc-filled",
        "desc-T1w",
        "desc-FLAIR",
    ]


@pytest.mark.parametrize(
    ("scheme", "name", "tissue"),
    [
        ("regions", "ctx-lh-frontal-lobe", 8),
        ("regions", "wm-rh-insula-lobe", 2),
        ("regions", "Left-Cerebellum-White-Matter", 11),
        ("regions", "4th-Ventricle", 3),
        ("regions", "Left-Thalamus", 9),
        ("lobes", "Left-Frontal-Lobe", None),
        ("lobes", "Brain-Stem", 10),
        ("gyri", "Left-Cerebral-White-Matter", 2),
    ],
)
def test_labels_are_mapped_to_bids_tissues(scheme: Scheme, name: str, tissue: int | None) -> None:
    [label] = [label for label in label_table(scheme) if label.name == name]
    assert bids_tissue(label, scheme) == tissue


def test_every_gyrus_is_cortex() -> None:
    assert {bids_tissue(label, "gyri") for label in label_table("gyri") if label.index >= 100} == {8}


def test_tables_say_na() -> None:
    assert table(("a", "b", "c"), [(1, "", None), (float("nan"), 0, "x")]) == "a\tb\tc\n1\tn/a\tn/a\nn/a\t0\tx\n"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'=1"),
        ("-0.5", "-0.5"),
        ("+1e3", "+1e3"),
        ("a\tb\r\nc", "a b c"),
        ("ses-1", "ses-1"),
    ],
)
def test_no_cell_is_a_formula_or_breaks_its_row(cell: str, written: str) -> None:
    assert table(("a",), [(cell,)]) == f"a\n{written}\n"


SECRET = "root:x:0:0:root\n"
TIMES = "session_id\tacq_time\tnote\nses-b\t2020-01-02T03:04:05\t=1+1\nses-a\t2021-01-02T03:04:05\t@x\n"


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        (TIMES, "session_id\tacq_time\nses-a\t2021-01-02T03:04:05\nses-b\t2020-01-02T03:04:05\n"),
        ("session_id\tacq_time\n=1+1\t2020-01-02\nses-a\t=1+1\n", None),
        ("session_id\tnote\nses-a\t1\n", None),
        (SECRET, None),
        ("", None),
        (TIMES.replace("=1+1", "x" * 200_000), TIMES.partition("\tnote")[0]),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_of_tables_of_sessions_only_labels_and_times_are_copied(
    linked: bool, text: str, copied: str | None, tmp_path: Path
) -> None:
    stored = tmp_path / ("elsewhere" if linked else "data/sub-01/sub-01_sessions.tsv")
    (tmp_path / "data" / "sub-01").mkdir(parents=True)
    stored.write_text(text)
    if linked:
        sessions_table(tmp_path / "data", "01").symlink_to(stored)
    copy_session_times(tmp_path / "data", tmp_path / "out", ["01"])
    target = sessions_table(tmp_path / "out", "01")
    assert target.exists() == (copied is not None)
    if copied is not None:
        assert target.read_text().startswith(copied)
        assert not any(sign in target.read_text() for sign in "=@x")
        assert in_time(tmp_path / "data", "01", "ab") == in_time(tmp_path / "out", "01", "ab") == ["b", "a"]


def test_what_users_wrote_at_the_root_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README").write_text("About my patients.\n")
    (out / ".bidsignore").write_text("mine/\n*.html\n")
    for _ in range(2):
        write_root(out, tmp_path, RECIPE, ("T1w",))
    assert (out / "README").read_text() == "About my patients.\n"
    lines = (out / ".bidsignore").read_text().splitlines()
    assert lines[:2] == ["mine/", "*.html"]
    assert len(set(lines)) == len(lines) == len({*BIDSIGNORE, "mine/"})


@pytest.mark.parametrize(
    ("description", "whose"),
    [
        ('{"GeneratedBy": [{"Name": "fMRIPrep"}]}', "fMRIPrep"),
        ('{"Name": "raw"}', "somebody else"),
        ("[", "somebody else"),
        ('{"GeneratedBy": [{"Name": "bidsseg"}]}', None),
        (None, None),
    ],
)
def test_the_dataset_of_another_program_is_left_alone(
    description: str | None, whose: str | None, tmp_path: Path
) -> None:
    if description is not None:
        (tmp_path / "dataset_description.json").write_text(description)
    if whose is None:
        refuse_other_dataset(tmp_path)
        return
    with pytest.raises(UserError, match=f"contains a dataset of {whose}"):
        refuse_other_dataset(tmp_path)
