import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from bidsseg.cli.exit_codes import CLI_USAGE
from bidsseg.cli.main import main
from bidsseg.files import read_json, stem_of
from bidsseg.imaging.image import load
from bidsseg.labels import Scheme, label_table
from bidsseg.network.card import read_card
from bidsseg.quality.verdicts import in_words, tally
from tests.conftest import write_scan
from tests.phantoms import head


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_one_scan_to_one_named_file(tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    found = run("predict", scan, "-o", tmp_path / "out" / "seg.nii.gz", "--model", tiny_model, "--threads", 1)
    assert found.exit_code == 0, found.output
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["seg.nii.gz", "seg.png", "seg_mask.nii.gz", "seg_qc.json", "seg_volumes.tsv"]
    quality = read_json(tmp_path / "out" / "seg_qc.json")
    assert quality["Model"] == "tiny"
    assert f"{scan}: {in_words(quality)}" in found.stderr.splitlines()
    labels, original = nib.load(tmp_path / "out" / "seg.nii.gz"), nib.load(scan)
    assert labels.shape == original.shape
    np.testing.assert_array_equal(labels.affine, original.affine)
    assert set(np.unique(labels.dataobj)) <= {0, *(label.index for label in label_table("regions"))}
    mask = np.asarray(nib.load(tmp_path / "out" / "seg_mask.nii.gz").dataobj)
    np.testing.assert_array_equal(mask > 0, np.asarray(labels.dataobj) > 0)


@pytest.mark.parametrize("bad", ["a", "b"])
def test_several_scans_to_a_folder_and_a_bad_one_does_not_stop_the_rest(
    bad: str, tiny_model: Path, tmp_path: Path
) -> None:
    """The first is read in a thread of its own."""
    scans = {name: write_scan(tmp_path / f"{name}.nii.gz") for name in "abc"}
    scans[bad].write_bytes(scans[bad].read_bytes()[:500])
    quick = ("--model", tiny_model, "--no-picture", "--threads", 1)
    found = run("predict", *scans.values(), "-o", tmp_path / "out", *quick)
    assert found.exit_code == 1
    errors = [line for line in found.stderr.splitlines() if f"{bad}.nii.gz" in line]
    assert len(errors) == 1
    assert "damaged or truncated" in errors[0]
    assert "Traceback" not in found.output
    verdicts = tally(read_json(path)["Verdict"] for path in (tmp_path / "out").glob("*_qc.json"))
    assert found.stderr.splitlines()[-1] == f"2 done: {verdicts}; 1 failed"
    good = {f"{name}_dseg.nii.gz" for name in scans if name != bad}
    assert {path.name for path in (tmp_path / "out").glob("*_dseg.nii.gz")} == good


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        *(("a.nii.gz", "a"), ("A.NII.GZ", "A"), ("a.b.nii", "a.b"), ("a.gz", "a"), ("a", "a"), ("n.img", "n")),
        *(("a.mgz", "a"), ("a.seg.NRRD", "a.seg"), ("a.mha", "a"), ("a.hdr.gz", "a"), ("1.2.840", "1.2.840")),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert stem_of(Path(name)) == stem


@pytest.mark.parametrize("scheme", ["regions", "lobes", "gyri"])
def test_schemes(scheme: Scheme, tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", (32, 31, 30))
    found = run("predict", scan, "--seg", scheme, "--model", tiny_model, "--quiet", "--no-picture", "--threads", 1)
    assert found.exit_code == 0, found.output
    assert found.output == ""
    table = (tmp_path / "scan_dseg_volumes.tsv").read_text().splitlines()
    assert len(table) == 1 + len(label_table(scheme))
    assert load(tmp_path / "scan_dseg.nii.gz").data.max() > 0


@pytest.mark.parametrize("empty", [False, True])
def test_lesions_of_a_mask(empty: bool, tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    original = nib.load(scan)
    mask = np.zeros(original.shape, np.uint8)
    if not empty:
        mask[10:14, 10:13, 9:12] = 1
    nib.save(nib.Nifti1Image(mask, original.affine), tmp_path / "mask.nii.gz")
    found = run("lesions", scan, "--mask", tmp_path / "mask.nii.gz", "-o", tmp_path / "out", "--model", tiny_model)
    assert found.exit_code == 0, found.output
    rows = (tmp_path / "out" / "scan_desc-lesions_lesions.tsv").read_text().splitlines()
    assert len(rows) == (1 if empty else 2)
    if not empty:
        assert float(rows[1].split("\t")[1]) == 4 * 3 * 3 * 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scan.nii.gz", "-o", "seg.png"], "not a NIfTI name"),
        (["scan.nii.gz", "-o", "scan.nii.gz"], "is the scan itself"),
        (["x/scan.nii.gz", "y/scan.nii.gz", "-o", "out"], "several scans"),
        (["scan.nii.gz", "--device", "gpu"], "--device gpu"),
        (["scan.nii.gz", "--model", "nowhere"], "not a model card"),
    ],
)
def test_wrong_calls_say_so_in_one_line(
    arguments: list[str], says: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in arguments else ["--model", tiny_model]
    found = run("predict", *arguments, *model)
    assert found.exit_code == 2
    assert says in found.output
    assert len(found.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_scan_is_an_error_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    found = run("predict", tmp_path / "nowhere.nii.gz", "--model", tiny_model)
    assert found.exit_code == 1
    assert "no such file" in found.output


def test_an_output_that_cannot_be_written_is_said(tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    (tmp_path / "blocked").write_text("a file, not a folder")
    found = run("predict", scan, "-o", tmp_path / "blocked" / "seg.nii.gz", "--model", tiny_model)
    assert found.exit_code == 1
    assert "cannot be written" in found.output


@pytest.mark.parametrize("module", ["bidsseg.cli.main", "bidsseg.cli.bids_app"])
def test_help_is_quick_because_nothing_heavy_is_imported(module: str) -> None:
    heavy = {"torch", "numpy", "nibabel", "bids", "nipype"}
    code = f"import sys; import {module}; print(sorted({heavy} & set(sys.modules)))"
    start = time.monotonic()
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    assert time.monotonic() - start < 10  # generous: what is imported is the test, machines differ


def test_evaluate_fills_rows_of_card_and_readme(tiny_model: Path, tmp_path: Path) -> None:
    model, readme = tmp_path / "model", tmp_path / "README.md"
    shutil.copytree(tiny_model, model)
    readme.write_text("before\n<!-- accuracy -->\n<!-- /accuracy -->\nafter\n")
    manual = np.full((40, 20, 20), 58, np.int16)  # BrainCOLOR's left putamen
    for name, values in (("T1w", head(manual.shape, np.eye(4)).data), ("dseg", manual)):
        path = tmp_path / "data" / "miccai2012-train" / "sub-1015" / f"sub-1015_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    for more in ([], ["--mirror"]):
        given = ("--seg", "regions", "--model", model, "--readme", readme, "--threads", 1, *more)
        assert run("evaluate", tmp_path / "data", *given).exit_code == 0
    assert list(read_card(model).accuracy) == ["1 mm", "1 mm, --mirror"]
    lines = readme.read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| 1 mm")] == ["| 1 mm", "| 1 mm, --mirror"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--init-share", 0.5), "give --init"),
        (("--init", "nowhere"), "nowhere"),
        (("--init-share", 1.5, "--init", "nowhere"), "1.5"),
        (("--widths", "16,48,wide"), "16,48,wide"),
        (("--widths", ""), "no list of numbers"),
        (("--widths", f"16,{'9' * 5000}"), "no list of numbers"),
        (("--widths", "16,0"), "2 to 8 levels, of 1 to 1024"),
        (("--widths", "16"), "2 to 8 levels"),
        (("--widths", "4,4,4,4,4,4,4,4"), "7 levels at most"),
        (("--widths", "16,48,96", "--init", "anycontrast"), "grows neither"),
    ],
)
def test_train_refuses_what_it_cannot_start_from(given: tuple[object, ...], told: str, tmp_path: Path) -> None:
    found = run("train", tmp_path, tmp_path / "out", *given)
    assert found.exit_code == 2
    assert told in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "calibrate", "reference"])
def test_a_folder_without_data_is_refused_and_changes_nothing(
    command: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    given = {"train": ["out"], "reference": ["-o", "table.tsv"]}.get(command, ["--model", tiny_model])
    found = run(command, "data", *given)
    assert found.exit_code == 1
    (line,) = found.stderr.splitlines()
    assert line.startswith("error: data: no ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_calibrate_refuses_an_unknown_model(tmp_path: Path) -> None:
    found = run("calibrate", tmp_path, "--model", "nowhere")
    assert found.exit_code == 1
    assert found.stderr.startswith("error: ")
    assert "nowhere" in found.stderr


def test_a_scan_too_large_for_memory_does_not_stop_the_rest(tiny_model: Path, tmp_path: Path) -> None:
    huge, scan = nib.Nifti1Header(), write_scan(tmp_path / "scan.nii.gz")
    huge.set_data_dtype(np.float64)
    huge.set_data_shape((32767, 32767, 32767))
    (tmp_path / "huge.nii").write_bytes(huge.binaryblock + bytes(400))
    found = run("predict", tmp_path / "huge.nii", scan, "--model", tiny_model, "--no-picture", "--threads", 1)
    assert found.exit_code == 1
    error, verdict, summary = (line for line in found.stderr.splitlines() if not line.startswith("warning: "))
    assert "huge.nii: 32767 x 32767 x 32767 voxels" in error
    assert str(scan) in verdict
    assert summary.endswith("1 failed")
    assert (tmp_path / "scan_dseg.nii.gz").exists()


def test_lesions_into_a_folder_that_cannot_be_written(tiny_model: Path, tmp_path: Path) -> None:
    scan, mask = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(nib.load(scan).shape, np.uint8), nib.load(scan).affine), mask)
    (tmp_path / "file").touch()
    found = run("lesions", scan, "--mask", mask, "-o", tmp_path / "file" / "out", "--model", tiny_model, "--threads", 1)
    assert found.exit_code == 1
    (line,) = found.stderr.splitlines()
    assert str(tmp_path / "file") in line


def _lesion_mask(scan: Path, path: Path) -> Path:
    stored = nib.load(scan)
    mask = np.zeros(stored.shape, np.uint8)
    mask[10:14, 10:13, 9:12] = 1
    nib.save(nib.Nifti1Image(mask, stored.affine), path)
    return path


def _states(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("theirs", "arguments", "says"),
    [
        ("a_mask.nii.gz", "predict a_mask.nii.gz -o a.nii.gz", "a_mask.nii.gz: would be replaced, but is an input"),
        ("a_dseg.nii.gz", "predict a.nii.gz a_dseg.nii.gz", "a_dseg.nii.gz: would be replaced, but is an input"),
        ("a_dseg.nii.gz", "predict a.nii.gz", "a_dseg.nii.gz: was not written by bidsseg"),
        ("a_dseg_mask.nii.gz", "predict a.nii.gz", "a_dseg_mask.nii.gz: was not written by bidsseg"),
        ("a_dseg_volumes.tsv", "predict a.nii.gz", "a_dseg_volumes.tsv: was not written by bidsseg"),
        ("a_dseg.png", "predict a.nii.gz", "a_dseg.png: was not written by bidsseg"),
        ("m.nii.gz", "lesions a.nii.gz --mask a_desc-lesions_dseg.nii.gz", "would be replaced, but is an input"),
        ("a_desc-lesions_dseg.nii.gz", "lesions a.nii.gz --mask m.nii.gz", "was not written by bidsseg"),
        ("a_desc-lesions_lesions.tsv", "lesions a.nii.gz --mask m.nii.gz", "was not written by bidsseg"),
    ],
)
def test_neither_inputs_nor_others_files_are_replaced(
    theirs: str, arguments: str, says: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    for name in {"m.nii.gz", "a_desc-lesions_dseg.nii.gz"} if "--mask" in arguments else ():
        _lesion_mask(scan, tmp_path / name)
    if not theirs.endswith(".nii.gz"):
        (tmp_path / theirs).write_text("mine\n")
    elif not (tmp_path / theirs).exists():
        write_scan(tmp_path / theirs, seed=1)
    if "m.nii.gz" in arguments and "desc-lesions_dseg" not in theirs:
        (tmp_path / "a_desc-lesions_dseg.nii.gz").unlink()
    monkeypatch.chdir(tmp_path)
    before = _states(tmp_path)
    found = run(*arguments.split(), "--model", tiny_model, "--threads", 1)
    assert found.exit_code != 0
    [line] = found.stderr.splitlines()
    assert says in line
    assert _states(tmp_path) == before
    if "not written" in says:
        assert run(*arguments.split(), "--overwrite", "--model", tiny_model, "--threads", 1).exit_code == 0
        assert _states(tmp_path)[theirs] != before[theirs]


def test_predict_of_all_images_run_again_takes_its_results_for_results(tiny_model: Path, tmp_path: Path) -> None:
    scans = [write_scan(tmp_path / f"{name}.nii.gz", seed=seed) for seed, name in enumerate("ab")]
    quick = ("--model", tiny_model, "--threads", 1)
    assert run("predict", *scans, *quick).exit_code == 0
    before = _states(tmp_path)
    assert len(before) == 2 * 6
    again = run("predict", *sorted(tmp_path.glob("*.nii.gz")), *quick)
    assert again.exit_code == 0
    left_out = [line.partition(": ")[0] for line in again.stderr.splitlines() if "left out" in line]
    names = [f"{name}_dseg{kind}.nii.gz" for name in "ab" for kind in ("", "_mask")]
    assert left_out == [str(tmp_path / name) for name in names]
    assert _states(tmp_path).keys() == before.keys()


def test_a_label_image_corrected_by_hand_is_not_replaced(tiny_model: Path, tmp_path: Path) -> None:
    scan, quick = write_scan(tmp_path / "a.nii.gz"), ("--model", tiny_model, "--threads", 1)
    assert run("predict", scan, *quick).exit_code == 0
    labels = nib.load(tmp_path / "a_dseg.nii.gz")
    corrected = np.asarray(labels.dataobj).copy()
    corrected[12, 11, 10] += 1
    nib.save(nib.Nifti1Image(corrected, labels.affine, labels.header), tmp_path / "a_dseg.nii.gz")
    again = run("predict", scan, *quick)
    assert again.exit_code == 1
    assert "a_dseg.nii.gz: was not written by bidsseg, or was changed since" in again.stderr
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "a_dseg.nii.gz").dataobj), corrected)


def test_lesions_run_again_replaces_its_own(tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    command = ("lesions", scan, "--mask", _lesion_mask(scan, tmp_path / "m.nii.gz"), "--model", tiny_model)
    assert [run(*command).exit_code for _ in range(2)] == [0, 0]


def test_fill_writes_the_scan_on_its_own_grid_with_other_voxels_as_they_were(tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    command = ("fill", scan, "--mask", _lesion_mask(scan, tmp_path / "m.nii.gz"), "--model", tiny_model)
    found = run(*command)
    assert found.exit_code == 0, found.output
    before, after = (nib.load(tmp_path / name) for name in ("a.nii.gz", "a_filled.nii.gz"))
    assert np.array_equal(before.affine, after.affine)
    far = np.ones(before.shape, bool)
    far[6:18, 6:17, 5:16] = False
    assert np.array_equal(before.get_fdata()[far], after.get_fdata()[far])
    assert run(*command).exit_code == 0  # its own file is replaced


@pytest.mark.parametrize(
    ("output", "says"), [("a.nii.gz", "is an input of this command"), ("a.png", "not a NIfTI name")]
)
def test_fill_refuses_outputs(output: str, says: str, tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    mask = _lesion_mask(scan, tmp_path / "m.nii.gz")
    found = run("fill", scan, "--mask", mask, "-o", tmp_path / output, "--model", tiny_model)
    assert found.exit_code == 1
    (line,) = found.stderr.splitlines()
    assert says in line


def test_fill_writes_into_a_folder(tiny_model: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    (tmp_path / "out").mkdir()
    mask = _lesion_mask(scan, tmp_path / "m.nii.gz")
    assert run("fill", scan, "--mask", mask, "-o", tmp_path / "out", "--model", tiny_model).exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_filled.nii.gz"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("lesions a.nii.gz --mask m.nii.gz --threshold 7", "7.0 is not in the range 0<x<=1"),
        ("lesions a.nii.gz --mask m.nii.gz --min-volume -1", "-1.0 is not in the range x>=0"),
        ("lesions a.nii.gz --mask m.nii.gz --tolerance -1", "-1.0 is not in the range x>=0"),
        ("lesions a.nii.gz --mask m.nii.gz --bands 0", "0.0 is not in the range x>0"),
        (
            "lesions a.nii.gz --mask m.nii.gz --lesion-threshold 0.3",
            "--lesion-threshold is for lesions that the network finds",
        ),
        ("lesions a.nii.gz --mask m.nii.gz --probseg", "--probseg is for lesions that the network finds"),
        ("lesions a.nii.gz --threshold 0.3", "--threshold is for the lesions of a --mask"),
        ("lesions a.nii.gz -o m.nii.gz", "m.nii.gz' is a file"),
        ("fill a.nii.gz --mask m.nii.gz --threshold 7", "7.0 is not in the range 0<x<=1"),
        ("normalize a.nii.gz --mask m.nii.gz --threshold 0", "0.0 is not in the range 0<x<=1"),
        ("normalize a.nii.gz --threshold 0.3", "--threshold is for the lesions of a mask"),
        ("normalize a.nii.gz -o m.nii.gz", "m.nii.gz' is a file"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(
    arguments: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lesion_mask(write_scan(tmp_path / "a.nii.gz"), tmp_path / "m.nii.gz")
    before = _states(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = run(*arguments.split())
    assert found.exit_code == CLI_USAGE
    assert says in found.stderr
    assert _states(tmp_path) == before


def test_normalize_refuses_a_scan_without_a_brain_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    """A model of random weights finds nothing that looks like a brain."""
    found = run("normalize", write_scan(tmp_path / "a.nii.gz"), "--model", tiny_model, "--threads", 1)
    assert found.exit_code == 1
    (line,) = found.stderr.splitlines()
    assert "too little of the brain" in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
