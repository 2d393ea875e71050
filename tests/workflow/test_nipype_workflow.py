from __future__ import annotations

import errno
import importlib.util
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline.engine import Node, Workflow

from bidsseg.bids.completeness import is_complete
from bidsseg.bids.dataset import ScanSelection, find_scans
from bidsseg.bids.outputs import OutputSettings, ScanOutputs
from bidsseg.errors import Defect, Failure, FileError, Kind, UserError
from bidsseg.files import write_json
from bidsseg.lesions.options import LesionOptions
from bidsseg.workflow.failures import failure_in, record, recorded, recorded_in
from bidsseg.workflow.jobs import Job, LesionJob, job_for
from bidsseg.workflow.nipype_nodes import scan_workflow, workflow_name
from bidsseg.workflow.nipype_plugins import MultiProcInPool, monitor_resources
from bidsseg.workflow.nipype_workflow import (
    Outcome,
    Runner,
    run_jobs,
    run_lesion_jobs,
)
from bidsseg.workflow.workers import WORKER_DIED, Resources, WorkerPool, gpu_of_worker
from tests.conftest import Dataset

LINEAR = {"plugin": "Linear"}


@pytest.fixture
def how(tmp_path: Path) -> Resources:
    (tmp_path / "work").mkdir()
    return Resources(tmp_path / "work", tmp_path / "out" / "logs", plugin=LINEAR)


@pytest.fixture
def jobs(dataset: Dataset, tiny_model: Path, tmp_path: Path) -> Callable[..., list[Job]]:
    def make(*names: str, model: Path = tiny_model) -> list[Job]:
        root = dataset(*names)
        recipe = OutputSettings("1", "tiny", "abc", bias_correction=False, schemes=("lobes",))
        all_outputs = [ScanOutputs(scan, root, tmp_path / "out") for scan in find_scans(root, ScanSelection()).scans]
        return [job_for(outputs, recipe, str(model), device="cpu", threads=1) for outputs in all_outputs]

    return make


def run(jobs: list[Job], how: Resources) -> tuple[list[Outcome], list[tuple[str, bool]]]:
    told: list[tuple[str, bool]] = []
    return list(run_jobs(jobs, WorkerPool(how), lambda name, good: told.append((name, good)))), told


def test_every_scan_gets_an_outcome_and_the_bad_one_a_reason(jobs: Callable[..., list[Job]], how: Resources) -> None:
    three = jobs("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz", "sub-03_run-1_FLAIR.nii")
    bad = Path(three[1].scan)
    bad.write_bytes(bad.read_bytes()[:3000])
    outcomes, told = run(three, how)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].error is not None
    assert outcomes[1].error.startswith(f"{bad}: damaged or truncated")
    assert "\n" not in outcomes[1].error
    assert sorted(told) == [("sub-01_T1w", True), ("sub-02_T1w", False), ("sub-03_run-1_FLAIR", True)]
    assert "Traceback" in (how.logs / "sub-02_T1w_error.txt").read_text()
    assert is_complete(three[0].outputs, three[0].made_with())
    assert not how.work_dir.exists()


def test_the_resource_monitor_says_where_it_cannot_work(how: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = replace(how, resource_monitor=True)
    with pytest.raises(UserError, match="sacct"):
        monitor_resources(watched)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install psutil"):
        monitor_resources(replace(watched, plugin={}))


def test_a_log_goes_when_its_scan_succeeds(jobs: Callable[..., list[Job]], how: Resources) -> None:
    [job] = jobs("sub-01_T1w.nii.gz")
    good = Path(job.scan).read_bytes()
    Path(job.scan).write_bytes(good[:3000])
    assert run([job], how)[0][0].error is not None
    Path(job.scan).write_bytes(good)
    how.work_dir.mkdir()
    assert run([job], how)[0] == [Outcome(job)]
    assert not list(how.logs.iterdir())


def test_a_broken_model_fails_in_one_line(jobs: Callable[..., list[Job]], how: Resources, tmp_path: Path) -> None:
    [outcome], _ = run(jobs("sub-01_T1w.nii.gz", model=tmp_path / "nowhere"), how)
    assert outcome.error is not None
    assert "not a model card" in outcome.error
    assert "sub-01_T1w.nii.gz" in outcome.error


def test_stop_on_first_crash(jobs: Callable[..., list[Job]], how: Resources) -> None:
    first, second = jobs("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    Path(first.scan).write_bytes(b"no image")
    stopping = Resources(how.work_dir, how.logs, plugin=LINEAR, stop_on_first_crash=True)
    outcomes, _ = run([first, second], stopping)
    assert outcomes[0].error is not None
    assert not outcomes[0].stopped
    assert outcomes[1].stopped
    assert not is_complete(second.outputs, second.made_with())


def test_outputs_are_written_again_though_the_work_folder_knows_them(
    jobs: Callable[..., list[Job]], how: Resources
) -> None:
    [job] = jobs("sub-01_T1w.nii.gz")
    keeping = Resources(how.work_dir, how.logs, plugin=LINEAR, kept="kept")
    assert run([job], keeping)[0] == [Outcome(job)]
    job.outputs.quality.unlink()
    assert run([job], keeping)[0] == [Outcome(job)]
    assert job.outputs.quality.exists()
    assert (keeping.nodes / "bidsseg" / workflow_name(job) / "segmentation" / "segmentation.npz").exists()


@pytest.mark.parametrize(
    ("error", "line", "kind"),
    [
        (FileError("/data/a.nii", "bad", "mend it"), "/data/a.nii: bad; mend it", Kind.USER),
        (Defect("/data/a.nii: odd"), "/data/a.nii: odd", Kind.DEFECT),
        (KeyError("k"), "KeyError: 'k'", Kind.DEFECT),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: {folder}", Kind.USER),
    ],
)
def test_a_step_leaves_why_it_failed(error: Exception, line: str, kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(type(error)), recorded(tmp_path):
        raise error
    found = recorded_in(tmp_path)
    assert found is not None
    assert found.error.partition(" (")[0] == line.format(folder=tmp_path)
    assert found.kind is kind
    assert "Traceback" in found.traceback
    with recorded(tmp_path):
        pass
    assert recorded_in(tmp_path) is None


def test_a_failure_of_an_earlier_run_is_not_told_again(jobs: Callable[..., list[Job]], how: Resources) -> None:
    [job] = jobs("sub-01_T1w.nii.gz")
    keeping = Resources(how.work_dir, how.logs, plugin=LINEAR, kept="kept")
    with closing(Runner(WorkerPool(keeping), lambda name, good: None)) as runner:
        left = keeping.nodes / "bidsseg" / workflow_name(job) / "outputs"
        record(left, Failure("of an earlier run", Kind.USER, ""))
        assert runner.run([job]) == [Outcome(job)]


def _die() -> str:
    import os

    os._exit(9)


def _live() -> str:
    return "alive"


def _graph(folder: Path, **functions: Callable[[], str]) -> Workflow:
    workflow = Workflow(name="w", base_dir=str(folder))
    workflow.config = {"execution": {"crashdump_dir": str(folder), "crashfile_format": "txt", "create_report": False}}
    workflow.config["execution"]["poll_sleep_duration"] = 0.1
    nodes = []
    for name, function in functions.items():
        scan = Workflow(name=name)
        scan.add_nodes([Node(Function(function=function, output_names=["out"]), name="n4")])
        nodes.append(scan)
    workflow.add_nodes(nodes)
    return workflow


def test_a_killed_worker_fails_its_scan_and_is_replaced(tmp_path: Path) -> None:
    how = Resources(tmp_path, tmp_path)
    ended: list[tuple[str, str]] = []

    def status(node: Any, event: str) -> None:
        ended.append((node.fullname, event))

    pool = WorkerPool(how)
    try:
        first = MultiProcInPool(pool, tmp_path, status)
        with pytest.raises(RuntimeError, match="killed"):
            _graph(tmp_path, a=_die).run(plugin=first)
        _graph(tmp_path, b=_live).run(plugin=MultiProcInPool(pool, tmp_path, status))
        pool.close()
        assert pool.submit(dict).result(60) == {}  # by a new worker
    finally:
        pool.close()
    assert ("w.a.n4", "exception") in ended
    assert ("w.b.n4", "end") in ended
    assert first.failures == {"w.a.n4": Failure(WORKER_DIED, Kind.KILLED, "")}


def test_scans_whose_worker_died_are_tried_once_more_alone(
    jobs: Callable[..., list[Job]], how: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def run_batch(self: Runner, batch: list[Job]) -> list[Outcome]:
        batches.append(len(batch))
        killed = Failure(WORKER_DIED, Kind.KILLED, "")
        return [Outcome(job, killed if len(batch) > 1 else None) for job in batch]

    monkeypatch.setattr(Runner, "run", run_batch)
    two = jobs("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    outcomes, _ = run(two, replace(how, plugin={}))
    assert batches == [2, 1, 1]
    assert [outcome.failure for outcome in outcomes] == [None, None]
    batches.clear()
    run(two, how)  # not by a worker of ours
    assert batches == [2]


@pytest.fixture
def lesion_jobs(tmp_path: Path) -> list[LesionJob]:
    """Of two participants; their masks are not there."""
    options = asdict(LesionOptions())
    return [
        LesionJob(
            str(tmp_path), str(tmp_path / "out"), "1", (str(scan),), ("mask.nii",), ("bids:masks:mask.nii",), options
        )
        for scan in (tmp_path / "sub-01_T1w.nii.gz", tmp_path / "sub-02_T1w.nii.gz")
    ]


def run_lesions(jobs: list[LesionJob], how: Resources) -> list[str | None]:
    with closing(WorkerPool(how)) as pool:
        return [
            failure.error if failure else None for _, failure in run_lesion_jobs(jobs, pool, lambda name, good: None)
        ]


def test_lesions_whose_worker_died_are_tried_once_more_alone(
    lesion_jobs: list[LesionJob], how: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(self: Runner, workflow: Workflow) -> str:
        names = [node.name for node in workflow._graph]
        for name in names:
            if len(names) > 1:
                self.failures[name] = Failure(WORKER_DIED, Kind.KILLED, "")
        return ""

    monkeypatch.setattr(Runner, "_execute", execute)
    monkeypatch.setattr("bidsseg.workflow.lesion_stages.is_done", lambda job: True)
    assert run_lesions(lesion_jobs, replace(how, plugin={})) == [None, None]
    logs = [job.all_outputs[0].lesion_log for job in lesion_jobs]
    assert [log.read_text() for log in logs] == [f"Error: {WORKER_DIED}\n"] * 2
    assert [failure_in(log).kind for log in logs] == [Kind.KILLED] * 2


def test_lesions_that_were_never_run_are_not_done(
    lesion_jobs: list[LesionJob], how: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in lesion_jobs:
        write_json(job.all_outputs[0].lesions.summary, {"Findings": "of an earlier mask", "Outputs": []})
    monkeypatch.setattr(Runner, "_execute", lambda self, workflow: "sbatch: not found")
    assert run_lesions(lesion_jobs, how) == ["sbatch: not found"] * 2


def test_lesions_that_failed_beside_an_earlier_summary_leave_a_log(
    lesion_jobs: list[LesionJob], how: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in lesion_jobs:
        write_json(job.all_outputs[0].lesions.summary, {"Findings": "of an earlier mask", "Outputs": []})

    def execute(self: Runner, workflow: Workflow) -> str:
        self.failures = {node.name: Failure("no memory", Kind.DEFECT, "") for node in workflow._graph}
        return ""

    monkeypatch.setattr(Runner, "_execute", execute)
    assert run_lesions(lesion_jobs, how) == ["no memory"] * 2
    assert [failure_in(job.all_outputs[0].lesion_log).error for job in lesion_jobs] == ["no memory"] * 2


@pytest.mark.parametrize(
    ("gpus", "visible", "chosen"),
    [
        (2, "", ["0", "1", "0"]),
        (3, "", ["0", "1", "2"]),
        (2, "4,6", ["4", "6", "4"]),
        (2, "GPU-a,GPU-b", ["GPU-a", "GPU-b", "GPU-a"]),
    ],
)
def test_workers_share_the_gpus(gpus: int, visible: str, chosen: list[str]) -> None:
    assert [gpu_of_worker(number, gpus, visible) for number in range(3)] == chosen


@pytest.mark.parametrize("gpus", [0, 2])
def test_only_the_segmentation_waits_for_a_gpu(gpus: int, jobs: Callable[..., list[Job]], tmp_path: Path) -> None:
    how = Resources(tmp_path, tmp_path, threads=4, gpus=gpus)
    [job] = jobs("sub-01_T1w.nii.gz")
    nodes = scan_workflow(job, how)._graph.nodes
    assert [node.name for node in nodes if node.is_gpu_node()] == (["segmentation"] if gpus else [])
    pool = WorkerPool(how)
    try:
        assert MultiProcInPool(pool, tmp_path, lambda node, event: None).n_gpu_procs == gpus * 4
    finally:
        pool.close()
