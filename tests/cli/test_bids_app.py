from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bidsseg.cli.bids_app import run, spread
from bidsseg.cli.exit_codes import (
    APP_USAGE,
    EXIT_CANNOT_WRITE,
    EXIT_DEFECT,
    EXIT_INVALID_BIDS,
    EXIT_NOTHING_SELECTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
)
from bidsseg.files import read_json
from bidsseg.network.device import count_gpus
from bidsseg.quality.verdicts import tally
from bidsseg.workflow.nipype_plugins import JOB_DIED
from tests.conftest import Dataset, Run, write_scan


def labels(out: Path, scheme: str = "lobes") -> list[str]:
    return sorted(path.name for path in out.rglob(f"*seg-{scheme}_*dseg.nii.gz"))


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("a b participant --participant-label 01 02", "a b participant --participant-label 01 --participant-label 02"),
        ("a b participant --participant_label=01", "a b participant --participant-label=01"),
        ("--participant_label 01 02 a b participant", "--participant-label 01 --participant-label 02 a b participant"),
        ("a b participant --seg lobes gyri -v", "a b participant --seg lobes --seg gyri -v"),
        ("a b participant --seg", "a b participant --seg"),
        ("a b participant -w x_y --work_dir p_q", "a b participant -w x_y --work-dir p_q"),
    ],
)
def test_bids_apps_way_of_writing_options(given: str, understood: str) -> None:
    assert spread(given.split()) == understood.split()


def test_help_is_quick_and_grouped() -> None:
    code = "import sys, bidsseg.cli.bids_app as a; print(a.run(['--help']), {'numpy', 'torch'} & set(sys.modules))"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert text.endswith("0 set()\n")
    for part in ("Which scans:", "Segmentation:", "Computing:", "Running:", "Examples:", "Exit codes:"):
        assert part in text


OPTIONS = (
    *("participant-label", "session-label", "bids-filter-file", "skip-bids-validation", "bids-database-dir"),
    *("modality", "work-dir", "nprocs", "n-cpus", "omp-nthreads", "mem-gb", "low-mem", "device", "output-spaces"),
    *(
        "seg",
        "probseg",
        "mirror",
        "fuse",
        "longitudinal",
        "use-plugin",
        "stop-on-first-crash",
        "write-graph",
        "resource-monitor",
    ),
    *("overwrite", "dry-run", "reports-only", "verbose", "version"),
)


def test_every_option_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == EXIT_OK
    text = capsys.readouterr().out
    assert [name for name in OPTIONS if f"--{name}" not in text] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--particpant-label", "01"], "--participant-label"),
        (["--seg", "gyry"], "gyry"),
        (["--nprocs", "0"], "--nprocs"),
        (["--device", "toaster"], "--device toaster"),
        (["--model", "nowhere"], "not a model card"),
        (["--bids-filter-file", "nowhere.json"], "nowhere.json"),
        (["--lesion-pattern", "*.nii"], "give their folder with --derivatives"),
        (["--fill", "--lesions", "none"], "--fill needs lesions"),
    ],
)
def test_wrong_usage(dataset: Dataset, tmp_path: Path, args: list[str], message: str,
                     capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    root = dataset("sub-01_T1w.nii.gz")
    assert run([str(root), str(tmp_path / "out"), "participant", *args]) == APP_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("option", "inside"), [("out", ""), ("--work-dir", "work"), ("--bids-database-dir", "sub-01/index")]
)
def test_the_input_is_only_read(dataset: Dataset, tmp_path: Path, option: str, inside: str) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    before = sorted(root.rglob("*"))
    out = root / inside if option == "out" else tmp_path / "out"
    options = [] if option == "out" else [option, str(root / inside)]
    assert run([str(root), str(out), "participant", *options]) == APP_USAGE
    assert sorted(root.rglob("*")) == before


def test_a_folder_that_is_not_bids(tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert app(tmp_path / "data") == EXIT_INVALID_BIDS
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'data'}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--participant-label", "77"], ["--modality", "PDw"], ["--session-label", "x"]])
def test_nothing_selected(dataset: Dataset, app: Run, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app(dataset("sub-01_T1w.nii.gz"), *options) == EXIT_NOTHING_SELECTED
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_output_that_cannot_be_written(dataset: Dataset, tmp_path: Path, app: Run,
                                          capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    root = dataset("sub-01_T1w.nii.gz")
    (tmp_path / "out").write_text("a file")
    assert app(root) == EXIT_CANNOT_WRITE
    assert str(tmp_path / "out") in capsys.readouterr().err


def test_group_level_without_results(dataset: Dataset, tmp_path: Path) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    assert run([str(root), str(tmp_path / "out"), "group"]) == EXIT_NOTHING_SELECTED


def test_dry_run_writes_nothing(dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]) -> None:
    root = dataset("sub-01_T1w.nii.gz", "sub-02_T2w.nii.gz")
    assert app(root, "--dry-run") == EXIT_OK
    text = capsys.readouterr().out
    assert "sub-01_T1w" in text
    assert "to do" in text
    assert "sub-02" in text
    assert not (tmp_path / "out").exists()


def test_bad_scans_among_good_ones(dataset: Dataset, tmp_path: Path, app: Run,
                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    root = dataset("sub-01_run-1_T1w.nii.gz", "sub-01_run-2_T1w.nii.gz", "sub-02_FLAIR.nii", "sub-02_FLAIR.nii.gz")
    bad = write_scan(root / "sub-03" / "anat" / "sub-03_T1w.nii.gz")
    bad.write_bytes(bad.read_bytes()[:2000])
    (root / "sub-04" / "anat").mkdir(parents=True)
    (root / "sub-04" / "anat" / "sub-04_T1w.nii.gz").symlink_to("annex/object")
    assert app(root, "--seg", "lobes") == EXIT_SOME_FAILED
    assert labels(tmp_path / "out") == [
        "sub-01_run-1_space-orig_seg-lobes_desc-T1w_dseg.nii.gz",
        "sub-01_run-2_space-orig_seg-lobes_desc-T1w_dseg.nii.gz",
    ]
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in captured.err + captured.out
    assert sorted(error.split(":")[1].rpartition("/")[2] for error in errors) == [
        "sub-02_FLAIR.nii", "sub-02_FLAIR.nii.gz", "sub-03_T1w.nii.gz", "sub-04_T1w.nii.gz"
    ]  # fmt: skip
    assert not (tmp_path / "out" / "work").exists()


def _times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.rglob("*_dseg.nii.gz")}


def test_running_again_does_only_what_is_missing(dataset: Dataset, tmp_path: Path, app: Run,
                                                 capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    root, out = dataset("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"), tmp_path / "out"
    assert app(root, "--seg", "lobes", "--participant-label", "sub-01") == EXIT_OK
    first = _times(out)
    assert app(root, "--seg", "lobes") == EXIT_OK
    second = _times(out)
    assert len(first) == 1
    assert len(second) == 2
    assert first.items() <= second.items()
    assert "skipped" in capsys.readouterr().out
    assert app(root, "--seg", "lobes", "--output-spaces", "orig", "1mm") == EXIT_OK
    third = _times(out)
    assert len(third) == 4
    assert not second.items() & third.items()
    assert app(root, "--seg", "lobes", "--output-spaces", "orig", "1mm", "--overwrite") == EXIT_OK
    assert not third.items() & _times(out).items()


@pytest.mark.parametrize("given", [["01,02"], ["sub-01,sub-02"], ["01", "02"], ["01 02"], ["01,", "02", "01"]])
def test_labels_may_be_parted_by_commas(
    given: list[str], dataset: Dataset, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset(*(f"sub-0{number}_T1w.nii.gz" for number in (1, 2, 3)))
    assert app(root, "--dry-run", "--participant-label", *given) == EXIT_OK
    assert "2 to do" in capsys.readouterr().out


def test_dropped_names_are_warned_of(dataset: Dataset, app: Run, capsys: pytest.CaptureFixture[str]) -> None:
    root = dataset("sub-01_T1w.nii.gz", "sub-02_FLAIR.nii.gz")
    (root / "sub-01" / "anat" / "sub-01_FLAIR.NII.GZ").touch()
    assert app(root, "--dry-run") == EXIT_OK
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {root}/sub-01/anat/sub-01_FLAIR.NII.GZ: left out: not a valid BIDS name")


def test_a_label_image_corrected_by_hand_stays_until_overwritten(
    dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = dataset("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"), tmp_path / "out"
    assert app(root, "--seg", "lobes") == EXIT_OK
    path = out / "sub-01" / "anat" / "sub-01_space-orig_seg-lobes_desc-T1w_dseg.nii.gz"
    stored = nib.load(path)
    corrected = np.asarray(stored.dataobj).copy()
    corrected[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(corrected, stored.affine, stored.header), path)
    content = path.read_bytes()
    assert app(root, "--seg", "lobes", "--mirror") == EXIT_SOME_FAILED
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert f"{path}: was not written by bidsseg, or was changed since" in line
    assert path.read_bytes() == content
    assert app(root, "--seg", "lobes", "--mirror", "--overwrite") == EXIT_OK
    assert path.read_bytes() != content


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--reports-only"]])
def test_another_programs_folder_is_no_output(
    options: list[str], dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = dataset("sub-01_T1w.nii.gz"), tmp_path / "out"
    out.mkdir()
    (out / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "fMRIPrep"}]}')
    (out / "sub-01.html").write_text("theirs")
    assert app(root, *options) == APP_USAGE
    assert "contains a dataset of fMRIPrep" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["dataset_description.json", "sub-01.html"]


def test_a_page_of_others_is_no_report(dataset: Dataset, tmp_path: Path, app: Run,
                                       capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    root, page = dataset("sub-01_T1w.nii.gz"), tmp_path / "out" / "sub-01.html"
    page.parent.mkdir()
    page.write_text("<html>theirs</html>")
    assert app(root, "--seg", "lobes") == EXIT_SOME_FAILED
    assert f"{page}: was not written by bidsseg" in capsys.readouterr().err
    assert page.read_text() == "<html>theirs</html>"
    assert app(root, "--seg", "lobes", "--reports-only", "--overwrite") == EXIT_OK
    assert app(root, "--seg", "lobes", "--reports-only") == EXIT_OK


def test_a_marker_that_names_a_foreign_file_does_no_harm(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    root, out = dataset("sub-01_T1w.nii.gz"), tmp_path / "out"
    (tmp_path / "victim").touch()
    marker = out / "sub-01" / "anat" / "sub-01_desc-T1w_qc.json"
    marker.parent.mkdir(parents=True)
    marker.write_text('{"Outputs": ["../victim"], "Sources": ["bids:raw:../x_T1w.nii"]}')
    assert app(root, "--seg", "lobes") == EXIT_OK
    assert (tmp_path / "victim").exists()
    assert len(labels(out)) == 1


def test_nothing_is_written_elsewhere(dataset: Dataset, tmp_path: Path, app: Run,
                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    root = dataset("sub-01_T1w.nii.gz")
    before = sorted(root.rglob("*"))
    assert app(root, "-w", str(tmp_path / "work"), "--seg", "lobes") == EXIT_OK
    assert not list(home.iterdir())
    assert sorted(root.rglob("*")) == before
    assert {path.name for path in tmp_path.iterdir()} == {"home", "data", "out", "work", "plugin.json"}


VALIDATOR = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
"Also that of a virtual environment which is not on PATH."


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_output_is_valid_bids(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    names = ("sub-01_ses-1_run-1_T1w.nii.gz", "sub-01_ses-1_acq-a_ce-gd_FLAIR.nii.gz")
    root = dataset(*names)
    description = root / "dataset_description.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "Authors": ["A", "B"]}))
    assert app(root, "--output-spaces", "orig", "1mm", "--fuse", "--probseg") == EXIT_OK
    command = [str(VALIDATOR), "--format", "json", str(tmp_path / "out")]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    assert report["issues"]["issues"] == []
    assert report["summary"]["subjects"] == ["01"]


def test_session_of_two_contrasts_fused_with_probabilities(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    root, out = dataset("sub-01_ses-1_T1w.nii.gz", "sub-01_ses-1_FLAIR.nii.gz"), tmp_path / "out"
    options = ("--fuse", "--mirror", "--probseg", "--low-mem", "--write-graph", "--seg", "lobes")
    assert app(root, *options) == EXIT_OK
    assert labels(out) == [
        f"sub-01_ses-1_space-orig_seg-lobes_desc-{name}_dseg.nii.gz"
        for name in ("FLAIR", "FLAIRfused", "T1w", "T1wfused")
    ]
    quality = json.loads((out / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_desc-T1w_qc.json").read_text())
    assert quality["Verdict"] in ("pass", "check", "fail")
    assert quality["MirrorAveraging"] is True
    agreement = json.loads((out / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_desc-T1w_agreement.json").read_text())
    assert agreement["ContrastAgreementWith"].keys() == {"sub-01_ses-1_FLAIR"}
    fused = json.loads((out / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_desc-T1wfused_qc.json").read_text())
    assert [Path(source).name for source in fused["Sources"]] == [
        "sub-01_ses-1_T1w.nii.gz",
        "sub-01_ses-1_FLAIR.nii.gz",
    ]
    assert "digraph" in (out / "logs" / "graph.dot").read_text()
    before = _times(out)
    assert app(root, *options) == EXIT_OK
    assert _times(out) == before


def test_probabilities_of_each_voxel_add_up_to_one_at_most(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    root, out = dataset("sub-01_T1w.nii.gz"), tmp_path / "out"
    assert app(root, "--probseg", "--seg", "lobes", "--output-spaces", "orig", "1mm") == EXIT_OK
    paths = sorted(out.rglob("*_probseg.nii.gz"))
    names = ("space-individual_seg-lobes_res-1mm_desc-T1w", "space-orig_seg-lobes_desc-T1w")
    assert [path.name for path in paths] == [f"sub-01_{name}_probseg.nii.gz" for name in names]
    for path in paths:
        values = np.asarray(nib.load(path).dataobj)
        assert values.shape[3] == len(json.loads(path.with_suffix("").with_suffix(".json").read_text())["LabelMap"])
        assert values.min() >= 0
        assert values.sum(3).max() == pytest.approx(1, abs=0.05)  # each is rounded to 1/255


def test_the_command_in_processes_of_its_own(dataset: Dataset, tmp_path: Path, tiny_model: Path) -> None:
    root, out, here = dataset("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"), tmp_path / "out", tmp_path / "current"
    here.mkdir()
    command = [sys.executable, "-m", "bidsseg.cli.bids_app", str(root), str(out), "participant", "--resource-monitor"]
    command += ["--model", str(tiny_model), "--nprocs", "2", "--omp-nthreads", "1", "--seg", "lobes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=here)
    assert done.returncode == EXIT_OK, done.stderr
    assert len(labels(out)) == 2
    verdicts = tally(read_json(path)["Verdict"] for path in out.rglob("*_qc.json"))
    assert f"2 done: {verdicts}" in done.stdout
    methods = (out / "logs" / "CITATION.md").read_text()
    assert "N4" in methods
    assert "BrainCOLOR" not in methods
    head, *rows = (out / "logs" / "resources.tsv").read_text().splitlines()
    assert head.split("\t") == ["scan", "step", "seconds", "peak_memory_gb", "cpu_percent"]
    assert sorted(row.split("\t")[1] for row in rows) == sorted(2 * ["n4", "segmentation", "outputs"])
    assert list(here.iterdir()) == []
    assert not (out / "work").exists()


def _fake_slurm(folder: Path) -> None:
    """An sbatch that runs jobs at once but for those of sub-03, as if killed, and a squeue that knows of none."""
    folder.mkdir()
    for name, script in (
        ("sbatch", '[[ $* = *sub_03* ]] || bash "${@: -1}" >/dev/null 2>&1; echo Submitted batch job $$'),
        ("squeue", "true"),
    ):
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)


def test_slurm_plugin_reports_bad_scans_and_killed_jobs(dataset: Dataset, tmp_path: Path, app: Run,
                                                              monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    _fake_slurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("LOGNAME", raising=False)
    plugin = tmp_path / "slurm.json"
    plugin.write_text('{"plugin": "SLURM", "plugin_args": {"sbatch_args": "--mem=4G"}}')
    root = dataset("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz", "sub-03_T1w.nii.gz")
    bad = root / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    bad.write_bytes(bad.read_bytes()[:2000])
    assert app(root, "--seg", "lobes", "--use-plugin", str(plugin)) == EXIT_SOME_FAILED
    assert len(labels(tmp_path / "out")) == 1
    errors = capsys.readouterr().err
    assert f"error: {bad}: damaged or truncated" in errors
    assert f"sub-03_T1w.nii.gz: {JOB_DIED}" in errors
    assert not (tmp_path / "out" / "work").exists()


@pytest.mark.parametrize(
    ("device", "chosen", "gpus"), [("auto", "cuda", 2), ("cuda:1", "cuda:1", 1), ("auto", "cpu", 0)]
)
def test_all_gpus_are_used_unless_one_is_named(device: str, chosen: str, gpus: int,
                                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("bidsseg.network.device.choose_device", lambda name: torch.device(chosen))
    monkeypatch.setattr("bidsseg.network.device.has_cuda_driver", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert count_gpus(device) == gpus


def test_a_report_that_cannot_be_written_fails_the_run(
    dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    assert app(root, "--seg", "lobes") == EXIT_OK
    page = tmp_path / "out" / "sub-01.html"
    page.unlink()
    page.mkdir()
    assert app(root, "--reports-only") == EXIT_SOME_FAILED
    assert "error: sub-01: no report" in capsys.readouterr().err
    page.rmdir()
    assert app(root, "--reports-only") == EXIT_OK
    assert page.is_file()


def test_a_column_that_makes_no_groups_is_told_before_anything_is_written(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    (root / "participants.tsv").write_text("participant_id\tsex\nsub-01\tF\n")
    out = tmp_path / "out"
    out.mkdir()
    assert run([str(root), str(out), "group", "--group-by", "age"]) == APP_USAGE
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"error: {root / 'participants.tsv'}: has no column age; its columns are participant_id, sex"
    assert not list(out.iterdir())


@pytest.mark.parametrize("level", ["participant", "group"])
def test_a_defect_is_told_in_one_line_with_a_log(
    level: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("bidsseg.workflow.participant_level.find_scans", defect)
    monkeypatch.setattr("bidsseg.report.group_tables.run", defect)
    (tmp_path / "out").mkdir()
    assert run([str(dataset("sub-01_T1w.nii.gz")), str(tmp_path / "out"), level]) == EXIT_DEFECT
    log = tmp_path / "out" / "logs" / "bidsseg_error.txt"
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ZeroDivisionError: by zero; ")
    assert str(log) in line
    assert "Traceback" in log.read_text()
