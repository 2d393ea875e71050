"""Sessions segmented together by the BIDS App: who with whom, what the results say of it, what one failure leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bidsseg.bids.contrasts import session_groups, with_other_sessions
from bidsseg.cli.bids_app import run
from bidsseg.cli.exit_codes import APP_USAGE, EXIT_OK, EXIT_SOME_FAILED
from bidsseg.errors import UserError
from bidsseg.quality import assessment
from bidsseg.segmentation.fusion import Contrast, Matrix
from bidsseg.workflow import session_stages
from bidsseg.workflow.scan_stages import segmentation_stage
from tests.bids.test_contrasts import all_outputs
from tests.conftest import Dataset, Run

pytestmark = pytest.mark.usefixtures("balls_are_heads")

TOGETHER = ("--longitudinal", "--seg", "regions", "--modality", "FLAIR")


def names(sessions: Sequence[int]) -> list[str]:
    return [f"sub-01_ses-{session}_FLAIR.nii.gz" for session in sessions]


def raw(root: Path, session: int) -> Path:
    return root / "sub-01" / f"ses-{session}" / "anat" / f"sub-01_ses-{session}_FLAIR.nii.gz"


def cut(root: Path, session: int, slices: int) -> None:
    """Leave a part of a session's slices."""
    whole: nib.Nifti1Image = nib.load(raw(root, session))
    part = nib.Nifti1Image(whole.get_fdata()[:, :, :slices].astype(np.float32), whole.affine)
    raw(root, session).unlink()
    nib.save(part, raw(root, session))


def rows(told: str) -> dict[str, str]:
    """What the table of a run says of each scan."""
    cells = [line.split("│") for line in told.splitlines() if "FLAIR" in line and "│" in line]
    return {row[1].strip(): row[2].strip() for row in cells}


def quality(out: Path, session: int) -> dict[str, Any]:
    path = out / "sub-01" / f"ses-{session}" / "anat" / f"sub-01_ses-{session}_desc-FLAIR_qc.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def labels(out: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(out.rglob("*_dseg.nii.gz"))}


def test_scans_whose_names_differ_in_the_session_alone_go_together(tmp_path: Path) -> None:
    scans = ("sub-1_ses-1_T1w", "sub-1_ses-2_T1w", "sub-1_ses-2_acq-2d_T1w", "sub-1_ses-1_FLAIR", "sub-2_ses-1_T1w")
    found = with_other_sessions(all_outputs(tmp_path, *scans))
    assert [[path.name for path in outputs.others] for outputs in found] == [
        ["sub-1_ses-2_T1w.nii.gz"],
        ["sub-1_ses-1_T1w.nii.gz"],
        *([[]] * 3),
    ]
    assert [[outputs.scan.stem for outputs in group] for group in session_groups(found)] == [list(scans[:2])]


def test_two_sessions_and_then_a_third(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    root, out = dataset(*names((1, 2)), "sub-02_FLAIR.nii.gz"), tmp_path / "out"
    assert app(root, *TOGETHER) == EXIT_OK
    uri = "bids:raw:sub-01/ses-{0}/anat/sub-01_ses-{0}_FLAIR.nii.gz"
    assert quality(out, 1)["SegmentedWith"] == [uri.format(2)]
    assert quality(out, 1)["Sources"] == [uri.format(1), uri.format(2)]
    sidecar = next(out.glob("sub-01/ses-2/anat/*seg-regions*_dseg.json"))
    assert json.loads(sidecar.read_text())["SegmentedWith"] == [uri.format(1)]
    alone = next(out.glob("sub-02/anat/*_qc.json"))
    assert "SegmentedWith" not in json.loads(alone.read_text())
    before = labels(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_qc.json")}
    assert app(root, *TOGETHER) == EXIT_OK
    assert {path: path.stat().st_mtime_ns for path in times} == times
    raw(root, 3).parent.mkdir(parents=True)
    shutil.copy(raw(root, 1), raw(root, 3))
    assert app(root, *TOGETHER) == EXIT_OK
    assert [len(quality(out, session)["SegmentedWith"]) for session in (1, 2, 3)] == [2, 2, 2]
    assert alone.stat().st_mtime_ns == times[alone]
    assert {name: labels(out)[name] for name in before if "sub-02" in name}.items() <= before.items()
    assert not (out / "work").exists()


def test_a_session_twice_is_labelled_much_as_alone_and_without_the_option_as_alone(
    dataset: Dataset, tmp_path: Path, app: Run
) -> None:
    root, out = dataset(*names((1,))), tmp_path / "out"
    assert app(root, *TOGETHER) == EXIT_OK
    [path] = out.rglob("*_dseg.nii.gz")
    alone = np.asarray(nib.load(path).dataobj)
    raw(root, 2).parent.mkdir(parents=True)
    shutil.copy(raw(root, 1), raw(root, 2))
    assert app(root, *TOGETHER) == EXIT_OK
    for path in out.rglob("*_dseg.nii.gz"):
        agreement = np.mean(np.asarray(nib.load(path).dataobj) == alone)
        assert agreement > 0.9, "a ball may be registered to itself in any turn"
    assert app(root, *TOGETHER[1:]) == EXIT_OK  # without: both by themselves again
    for path in out.rglob("*_dseg.nii.gz"):
        np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), alone)
    assert "SegmentedWith" not in quality(out, 1)


def test_one_bad_session_leaves_the_others(
    dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = dataset(*names((1, 2, 3))), tmp_path / "out"
    raw(root, 2).write_bytes(raw(root, 2).read_bytes()[:500])
    assert app(root, *TOGETHER) == EXIT_SOME_FAILED
    assert len(quality(out, 1)["SegmentedWith"]) == 1
    assert [path.name for path in (out / "logs").glob("*_error.txt")] == ["sub-01_ses-2_FLAIR_error.txt"]
    told = capsys.readouterr()
    assert f"{raw(root, 2)}" in told.out + told.err
    assert len(labels(out)) == 2
    shutil.copy(raw(root, 1), raw(root, 2))
    assert app(root, *TOGETHER) == EXIT_OK
    assert len(quality(out, 1)["SegmentedWith"]) == 2
    assert not list((out / "logs").glob("*_error.txt"))


def test_a_bad_session_is_tried_again_and_the_others_stand(
    dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = dataset(*names((1, 2, 3))), tmp_path / "out"
    raw(root, 2).write_bytes(raw(root, 2).read_bytes()[:500])
    assert app(root, *TOGETHER) == EXIT_SOME_FAILED
    log = out / "logs" / "sub-01_ses-2_FLAIR_error.txt"
    why = log.read_text()
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_dseg.nii.gz")}
    capsys.readouterr()
    assert app(root, *TOGETHER, "--dry-run") == EXIT_OK
    one, two, three = (f"sub-01_ses-{session}_FLAIR" for session in (1, 2, 3))
    assert rows(capsys.readouterr().out) == {one: "complete", three: "complete", two: "to do"}
    assert app(root, *TOGETHER) == EXIT_SOME_FAILED
    told = capsys.readouterr()
    assert rows(told.out) == {one: "complete", two: "failed", three: "complete"}
    assert log.read_text() == why
    assert {path: path.stat().st_mtime_ns for path in times} == times
    raw(root, 4).parent.mkdir(parents=True)
    shutil.copy(raw(root, 1), raw(root, 4))
    assert app(root, *TOGETHER, "--dry-run") == EXIT_OK
    assert set(rows(capsys.readouterr().out).values()) == {"to do"}, "a new session changes what is said of all"
    assert app(root, *TOGETHER) == EXIT_SOME_FAILED
    assert [len(quality(out, session)["SegmentedWith"]) for session in (1, 3, 4)] == [2, 2, 2]


def test_a_session_that_fails_by_itself_has_no_say(
    dataset: Dataset, tmp_path: Path, app: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assessment, "LEAST_BRAIN_MM3", 60e3)  # a ball has 80 mL
    root, out = dataset(*names((1, 3))), tmp_path / "out"
    assert app(root, *TOGETHER) == EXIT_OK
    without = labels(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_dseg.nii.gz")}
    raw(root, 2).parent.mkdir(parents=True)
    shutil.copy(raw(root, 1), raw(root, 2))
    cut(root, 2, 6)
    assert app(root, *TOGETHER) == EXIT_OK
    assert (quality(out, 2)["Verdict"], "SegmentedWith" in quality(out, 2)) == ("fail", False)
    assert {path: path.stat().st_mtime_ns for path in times} == times, "they stand, since it has no say"
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_dseg.nii.gz")}
    assert app(root, *TOGETHER) == EXIT_OK
    assert {path: path.stat().st_mtime_ns for path in times} == times, "all are complete"
    assert app(root, *TOGETHER, "--overwrite") == EXIT_OK
    assert [len(quality(out, session)["SegmentedWith"]) for session in (1, 3)] == [1, 1]
    assert without.items() <= labels(out).items()


def test_after_a_kill_answers_that_were_given_are_not_asked_for_again(
    dataset: Dataset, tmp_path: Path, app: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, work = dataset(*names((1, 2))), ("--work-dir", str(tmp_path / "work"))
    asked = []

    def killed_before_the_second(job: dict[str, Any], *given: Any) -> str:
        asked.append(job["scan"])
        if len(asked) == 2:
            raise MemoryError("killed")
        return segmentation_stage(job, *given)

    monkeypatch.setattr(session_stages, "segmentation_stage", killed_before_the_second)
    monkeypatch.setattr(session_stages, "one_line_errors", lambda _: nullcontext())  # ends the node
    assert app(root, *TOGETHER, *work) == EXIT_SOME_FAILED
    assert app(root, *TOGETHER, *work) == EXIT_OK
    assert [Path(scan).name[7:12] for scan in asked] == ["ses-1", "ses-2", "ses-2"]
    assert app(root, *TOGETHER, *work, "--overwrite", "--seg", "lobes") == EXIT_OK
    assert len(asked) == 5, "other labels are another answer"


def test_a_session_of_one_slice_goes_with_the_others(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    root, out = dataset(*names((1, 2))), tmp_path / "out"
    whole: nib.Nifti1Image = nib.load(raw(root, 2))
    one_slice = nib.Nifti1Image(whole.get_fdata()[:, :, 10:11].astype(np.float32), whole.affine)
    raw(root, 2).unlink()
    nib.save(one_slice, raw(root, 2))
    assert app(root, *TOGETHER) == EXIT_OK
    assert [len(quality(out, session)["SegmentedWith"]) for session in (1, 2)] == [1, 1]


def test_lesions_are_looked_for_in_every_session(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    root, out = dataset(*names((1, 2))), tmp_path / "out"
    assert app(root, *TOGETHER, "--lesions", "found") == EXIT_OK
    for session in (1, 2):
        content = quality(out, session)
        assert len(content["SegmentedWith"]) == 1
        assert "no lesions looked for: hardly any white matter" in " ".join(content["Warnings"]), "a ball has none"


@pytest.mark.parametrize("left", [(1, 3), (1,)])
def test_a_session_that_fits_to_no_other_leaves_them(
    dataset: Dataset, tmp_path: Path, app: Run, monkeypatch: pytest.MonkeyPatch, left: tuple[int, ...]
) -> None:
    root, out = dataset(*names((*left, 2))), tmp_path / "out"
    cut(root, 2, 12)

    def register(one: Contrast, other: Contrast, threads: int) -> tuple[Matrix, Matrix]:
        if one.grid.shape != other.grid.shape:
            raise RuntimeError("they lie apart")
        return np.eye(4), np.eye(4)

    monkeypatch.setattr(session_stages, "register", register)
    assert app(root, *TOGETHER) == EXIT_SOME_FAILED
    assert [path.name for path in (out / "logs").glob("*_error.txt")] == ["sub-01_ses-2_FLAIR_error.txt"]
    assert [len(quality(out, session).get("SegmentedWith", ())) for session in left] == [len(left) - 1] * len(left)
    assert len(labels(out)) == len(left)


def test_results_of_an_earlier_run_are_not_taken_for_those_of_a_stopped_one(
    dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = dataset(*names((1, 2)), *(name.replace("sub-01", "sub-02") for name in names((1, 2))))
    assert app(root, *TOGETHER) == EXIT_OK
    for scan in root.glob("sub-*/ses-2/anat/*.nii.gz"):
        shutil.copy(raw(root, 1), scan)

    def broken(*_: object) -> str:
        raise UserError("broken")

    monkeypatch.setattr(session_stages, "segment_sessions", broken)
    capsys.readouterr()
    two_at_once = ("--nprocs", "2", "--omp-nthreads", "1", "--stop-on-first-crash")
    assert app(root, *TOGETHER, *two_at_once) == EXIT_SOME_FAILED
    assert list(rows(capsys.readouterr().out).values()) == ["failed"] * 2 + ["not tried"] * 2


def test_sessions_together_are_not_fused(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = dataset(*names((1, 2)))
    assert run([str(root), str(tmp_path / "out"), "participant", "--longitudinal", "--fuse"]) == APP_USAGE
    assert "leave out --longitudinal" in capsys.readouterr().err
