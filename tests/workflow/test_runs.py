"""Whole runs as processes: two at once, killed, on a full disk; nothing is lost, mixed, or left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from functools import partial
from glob import glob
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest

from bidsseg.cli.exit_codes import EXIT_OK, EXIT_SOME_FAILED
from bidsseg.cli.main import main
from bidsseg.files import TEMPORARY, read_json
from bidsseg.imaging.image import load, save
from tests.conftest import write_scan

Start = Callable[..., "subprocess.Popen[str]"]
QUICK = ("--no-bias-correction", "--seg", "regions", "--lesions", "none", "--omp-nthreads", "1")
SCANS = 3
SECONDS = 60.0
"More than any of this takes on a busy machine."


def participant_level(dataset: Path, out: Path, model: Path, *options: str) -> list[str]:
    """The command of a run."""
    program = [sys.executable, "-m", "bidsseg.cli.bids_app", str(dataset), str(out), "participant"]
    return [*program, *QUICK, *options, "--model", str(model)]


@pytest.fixture
def start(tiny_model: Path) -> Iterator[Start]:
    """Starts the participant level in a process: ``start(dataset, out, *options)``."""
    started: list[subprocess.Popen[str]] = []

    def begin(dataset: Path, out: Path, *options: str) -> subprocess.Popen[str]:
        command = participant_level(dataset, out, tiny_model, *options)
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def make_dataset(root: Path, first_seed: int) -> Path:
    """Scans of the same names in every dataset, of other images."""
    root.mkdir()
    (root / "dataset_description.json").write_text(json.dumps({"Name": root.name, "BIDSVersion": "1.10.0"}))
    for number in range(SCANS):
        write_scan(root / f"sub-0{number}" / "anat" / f"sub-0{number}_FLAIR.nii.gz", seed=first_seed + number)
    return root


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and messages."""
    _, errors = process.communicate(timeout=SECONDS)
    return process.returncode, errors


def results(out: Path) -> dict[str, str]:
    """Checksums of all results that do not name folders."""
    kinds = ("*.nii.gz", "*_volumes.tsv", "*.png")
    paths = sorted(path for kind in kinds for path in out.glob(f"sub-*/**/{kind}"))
    return {path.relative_to(out).as_posix(): sha256(path.read_bytes()).hexdigest() for path in paths}


def leftovers(out: Path) -> list[Path]:
    """What belongs to a run alone."""
    found = [path for path in out.rglob("*") if TEMPORARY.fullmatch(path.name)]
    return [*found, *(path for path in (out / "work", out / "logs" / "running") if path.exists())]


def wait_for(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("runs") / "data", 0)


@pytest.fixture(scope="module")
def expected(data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run by itself yields."""
    out = tmp_path_factory.mktemp("reference") / "out"
    subprocess.run(participant_level(data, out, tiny_model, "--nprocs", "1"), check=True, capture_output=True)
    found = results(out)
    assert len(found) == SCANS * 5
    return found


def test_two_datasets_share_a_work_folder_at_once(
    data: Path, start: Start, expected: dict[str, str], tmp_path: Path
) -> None:
    other = make_dataset(tmp_path / "other", 100)
    shared = ("-w", str(tmp_path / "shared"), "--nprocs", "1")
    runs = [start(data, tmp_path / "one", *shared), start(other, tmp_path / "two", *shared)]
    assert [finish(process)[0] for process in runs] == [EXIT_OK, EXIT_OK]
    assert results(tmp_path / "one") == expected
    found = results(tmp_path / "two")
    scans = [name for name in expected if "desc-preproc" in name]
    assert not any(found[name] == expected[name] for name in scans)
    assert len({path.name for path in (tmp_path / "shared").iterdir()}) == 2


def test_the_same_run_twice_at_once_waits(data: Path, start: Start, expected: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = [start(data, out, "--nprocs", "1") for _ in range(2)]
    ended = [finish(process) for process in runs]
    assert [code for code, _ in ended] == [EXIT_OK, EXIT_OK]
    lines = [line for _, errors in ended for line in errors.splitlines() if "another run is at work" in line]
    assert [line for line in lines if f"process {runs[0].pid} on" in line or f"process {runs[1].pid} on" in line]
    assert results(out) == expected
    assert leftovers(out) == []


def name_of(process: subprocess.Popen[str], out: Path) -> str:
    """That of a run in its record; empty before it has one."""
    records = {path.stem: read_json(path) for path in (out / "logs" / "running").glob("[!.]*.json")}
    return next((name for name, record in records.items() if record.get("process") == process.pid), "")


MOMENTS = {
    "": signal.SIGKILL,  # finding scans
    "../sub-*/anat/*_dseg.nii.gz": signal.SIGKILL,  # writing
    "run-{name}/bidsseg/*/*": signal.SIGTERM,  # computing
}
"When runs are killed: as soon as these are in the work folder."


def test_killed_runs_leave_no_process_and_the_next_goes_on(
    data: Path, start: Start, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for moment, number in MOMENTS.items():
        leading = start(data, out, "--nprocs", "2")
        wait_for(partial(name_of, leading, out))
        (out / "work").mkdir(exist_ok=True)
        wait_for(partial(glob, str(out / "work" / moment.format(name=name_of(leading, out)))))
        children = psutil.Process(leading.pid).children(recursive=True)
        leading.send_signal(number)
        _, told = leading.communicate(timeout=SECONDS)
        killed = number == signal.SIGKILL
        assert leading.returncode == (-number if killed else 128 + number)
        assert ("terminated; run the same command again to continue" in told) is not killed
        _, alive = psutil.wait_procs(children, timeout=10)
        assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert leftovers(out) == []  # the last one cleaned up, also after the others
    assert finish(start(data, out, "--nprocs", "2"))[0] == EXIT_OK
    assert results(out) == expected
    assert leftovers(out) == []


def test_temporary_files_of_dead_runs_go_and_those_of_a_run_that_goes_on_stay(tmp_path: Path) -> None:
    from bidsseg.workflow.claims import Claims

    out = tmp_path / "out"
    dead = [
        out / "sub-01" / "figures" / ".0123abcd.x.png",
        out / ".0123abcd.README",
        out / "work" / "run-00000001" / "x",
    ]
    others = [out / "sub-02" / "anat" / ".0123abcd.x.nii.gz", out / "sub-01" / "anat" / ".mine.txt"]
    for path in (*dead, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with Claims(out, out / "work", "11111111") as one:
        assert [list(mine) for mine in one.in_turns(["01"], print)] == [["01"]]
        assert [path.exists() for path in (*dead, *others)] == [False] * 3 + [True] * 2
    assert sorted(path.name for path in (out / "logs").glob("*")) == []


def test_runs_take_turns(tmp_path: Path) -> None:
    from bidsseg.workflow.claims import Claims

    told: list[str] = []
    with Claims(tmp_path, tmp_path, "11111111") as one, Claims(tmp_path, tmp_path, "22222222") as two:
        first = one.in_turns(["01", "02"], told.append)
        assert next(first) == ["01", "02"]
        second = two.in_turns(["02", "03"], told.append)
        assert next(second) == ["03"]
        assert [f"process {os.getpid()}" in line and line.startswith("sub-02: ") for line in told] == [True]
        assert list(first) == []
        assert next(second) == ["02"]
        assert list(second) == []


def _hold_the_interpreter(pid: Path) -> str | None:
    """Like a library in whose calls no other Python thread runs."""
    import ctypes

    pid.write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(120)
    return None


def lead_scans(pids: list[Path]) -> None:
    from bidsseg.workflow.workers import Resources, WorkerPool

    pool = WorkerPool(Resources(pids[0].parent, pids[0].parent, nprocs=2))
    for future in [pool.submit(_hold_the_interpreter, pid) for pid in pids]:  # type: ignore[arg-type]
        future.result()


def lead_reports(pids: list[Path]) -> None:
    from bidsseg.workflow.finishing import in_processes

    in_processes(_hold_the_interpreter, pids, 2, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a worker ends after its call")
@pytest.mark.parametrize("lead", [lead_scans, lead_reports])
def test_workers_deep_in_a_library_end_with_the_leading_process(
    lead: Callable[[list[Path]], None], tmp_path: Path
) -> None:
    pids = [tmp_path / "1", tmp_path / "2"]
    code = f"from pathlib import Path; from tests.workflow.test_runs import {lead.__name__} as lead; "
    code += f"lead([Path(path) for path in {list(map(str, pids))}])"
    leading = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        wait_for(lambda: all(pid.exists() and pid.read_text() for pid in pids))
        time.sleep(0.3)  # until they are in the call
        workers = [psutil.Process(int(pid.read_text())) for pid in pids]
    finally:
        leading.kill()
        leading.wait()
    assert psutil.wait_procs(workers, timeout=10)[1] == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many kB, where that is allowed."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(kilobytes: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("no mount")
        if done.returncode:
            pytest.skip("may not mount a file system")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_full_disk_is_said(data: Path, start: Start, small_disk: Callable[[int], Path]) -> None:
    out = small_disk(300) / "out"
    code, errors = finish(start(data, out, "--nprocs", "1"))
    assert code == EXIT_SOME_FAILED
    lines = [line for line in errors.splitlines() if line.startswith("error: ") and "sub-00_FLAIR.nii.gz" in line]
    assert len(lines) == 1
    for part in ("No space left on device", f"in the file system {out.parent}", "free space there", "--work-dir"):
        assert part in lines[0]
    assert "Traceback" not in errors
    assert leftovers(out) == []
    assert not list(out.rglob("*_dseg.nii.gz"))
    log = out / "logs" / "sub-00_FLAIR_error.txt"
    assert not log.exists() or "No space left on device" in log.read_text().splitlines()[-1]


@pytest.mark.parametrize(("kilobytes", "options"), [(60, ()), (700, ("--low-mem", "--probseg"))])
def test_a_full_work_folder_is_told_from_a_full_output(
    kilobytes: int,
    options: tuple[str, ...],
    data: Path,
    start: Start,
    tmp_path: Path,
    small_disk: Callable[[int], Path],
) -> None:
    work = small_disk(kilobytes)
    code, errors = finish(start(data, tmp_path / "out", "--nprocs", "1", "-w", str(work / "w"), *options))
    assert code == EXIT_SOME_FAILED
    assert errors.count(f"in the file system {work}") == SCANS
    last = (tmp_path / "out" / "logs" / "sub-00_FLAIR_error.txt").read_text().splitlines()[-1]
    assert "No space left on device" in last


@pytest.mark.parametrize("command", ["predict", "lesions"])
@pytest.mark.parametrize("kilobytes", [4, 8, 40])
def test_a_command_on_a_full_disk_leaves_nothing(
    command: str, kilobytes: int, tiny_model: Path, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    folder = small_disk(kilobytes)
    scan = write_scan(tmp_path / "a.nii.gz")
    mask = write_scan(tmp_path / "mask.nii.gz")
    save(mask, (load(mask).data > 95).astype(np.uint8), load(mask).affine)
    arguments = [command, str(scan), *(["--mask", str(mask)] if command == "lesions" else []), "-o", str(folder)]
    with pytest.raises(SystemExit) as ended, redirect_stderr(io.StringIO()) as errors:
        main([*arguments, "--model", str(tiny_model), "--threads", "1"])
    assert ended.value.code == EXIT_SOME_FAILED
    [line] = [line for line in errors.getvalue().splitlines() if not line.startswith("warning: ")]
    assert f"No space left on device: {folder / 'a_'}" in line
    assert "; free space there, or choose another output" in line
    assert "--work-dir" not in line
    assert list(folder.iterdir()) == []
