"""Many scans at once: a nipype workflow per scan, in batches, so that memory stays flat."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import Function
from nipype.pipeline.engine import Node, Workflow

from bidsseg.bids.completeness import is_complete
from bidsseg.bids.contrasts import session_key
from bidsseg.errors import Failure, Kind, named
from bidsseg.workflow.failures import failure_in, forget, recorded_in, remove_log, unrecorded, write_log
from bidsseg.workflow.jobs import LAST_STAGES, Job, LesionJob, SessionsJob, Stage
from bidsseg.workflow.nipype_plugins import MultiProcInPool, Slurm, monitor_resources, set_up_logging
from bidsseg.workflow.workers import MEMORY_GB, Resources, WorkerPool

ROOT = "bidsseg"
SCANS_PER_WORKER = 16
"In one batch: enough that waiting for a batch's last scan costs little."
POLL_SECONDS = 0.05
"How long a step that has ended waits for the next one, at most."
FUSION_GB = 2.0
"More, for a scan whose probabilities are averaged with others'."
STOPPED = "not processed, because another scan failed"
OnScan = Callable[[str, bool], None]
"Called with the name of a scan that has ended, and whether it succeeded."


@dataclass(frozen=True)
class Outcome:
    """How a scan went."""

    job: Job
    failure: Failure | None = None
    "None if all is well."
    stopped: bool = False
    "It was not tried, or not finished, because another failed."

    @property
    def error(self) -> str | None:
        """One line; None if all is well."""
        return self.failure.error if self.failure else None


def run_jobs(jobs: Sequence[Job], pool: WorkerPool, on_scan: OnScan) -> Iterator[Outcome]:
    """Segment scans and yield an outcome for each, batch by batch; ``on_scan`` is called as soon as each ends."""
    how = pool.how
    set_up_logging(how.verbose)
    monitor_resources(how)
    size = SCANS_PER_WORKER * how.workers
    died: list[Job] = []
    failed = False
    if how.write_graph and jobs:
        write_graph(jobs[0], how)
    with closing(Runner(pool, on_scan)) as runner:
        for batch in batches(jobs, size):
            if failed and how.stop_on_first_crash:
                yield from (Outcome(job, not_done(STOPPED), stopped=True) for job in batch)
                continue
            for outcome in runner.run(batch):
                if is_worth_another_try(outcome.failure, how):
                    died.append(outcome.job)
                    continue
                failed |= outcome.failure is not None
                yield outcome
        for job in died:  # one at a time, so that the scan that kills its worker takes no other with it
            yield from runner.run([job])


def run_lesion_jobs(
    jobs: Sequence[LesionJob], pool: WorkerPool, on_scan: OnScan
) -> Iterator[tuple[LesionJob, Failure | None]]:
    """Describe the lesions of participants, batch by batch; yields each with what ended it, None if nothing did."""
    how = pool.how
    set_up_logging(how.verbose)
    size = SCANS_PER_WORKER * how.workers
    died: list[LesionJob] = []
    with closing(Runner(pool, on_scan)) as runner:
        for first in range(0, len(jobs), size):
            for job, failure in runner.run_lesions(jobs[first : first + size]):
                if is_worth_another_try(failure, how):
                    died.append(job)
                else:
                    yield job, failure
        for job in died:  # one at a time, as with scans
            yield from runner.run_lesions([job])


def run_session_jobs(jobs: Sequence[SessionsJob], pool: WorkerPool, on_scan: OnScan) -> Iterator[Outcome]:
    """Segment sessions of participants together, batch by batch; yields an outcome for each scan."""
    how = pool.how
    set_up_logging(how.verbose)
    monitor_resources(how)
    died: list[SessionsJob] = []
    failed = False
    with closing(Runner(pool, on_scan)) as runner:
        for first in range(0, len(jobs), how.workers):
            for job in jobs[first : first + how.workers] if failed and how.stop_on_first_crash else ():
                yield from (Outcome(one, not_done(STOPPED), stopped=True) for one in job.each)
            if failed and how.stop_on_first_crash:
                continue
            for job, outcomes in runner.run_sessions(jobs[first : first + how.workers]):
                if any(is_worth_another_try(outcome.failure, how) for outcome in outcomes):
                    died.append(job)
                    continue
                failed |= any(outcome.failure for outcome in outcomes)
                yield from outcomes
        for job in died:  # one at a time, as with scans
            for _, outcomes in runner.run_sessions([job]):
                yield from outcomes


def is_worth_another_try(failure: Failure | None, how: Resources) -> bool:
    """Whether a worker of ours was killed, which may have been for what others did; clusters give each its own."""
    return failure is not None and failure.kind is Kind.KILLED and not (how.plugin or how.stop_on_first_crash)


def not_done(line: str) -> Failure:
    return Failure(line, Kind.USER, "")


def write_graph(job: Job, how: Resources) -> None:
    """A scan's workflow as logs/graph.dot, and as graph.svg where Graphviz is installed."""
    path = how.logs / "graph.dot"
    path.parent.mkdir(parents=True, exist_ok=True)
    build_workflow([job], how).write_hierarchical_dotfile(dotfilename=str(path), colored=True, simple_form=True)
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg", "-o", str(path.with_suffix(".svg")), str(path)], check=False)


class Runner:
    """Runs batches of jobs, in one pool of workers."""

    def __init__(self, pool: WorkerPool, on_scan: OnScan) -> None:
        self.pool = pool
        self.how = how = pool.how
        self.on_scan = on_scan
        self.stems: dict[str, str] = {}
        self.parts: dict[str, tuple[str, ...]] = {}
        "The workflows that the results of a job come from, by the name of its own workflow."
        self.ended: set[str] = set()
        self.failed: set[str] = set()
        self.failures: dict[str, Failure] = {}
        "Failures by the name of a workflow."
        self.written: dict[str, int | None] = {}
        "When an earlier run completed scans of several sessions; complete now are those written since."
        self.in_memory: Mapping[str, Failure] = {}
        "Failures that workers reported, by the full name of the node."
        self.at_work = False
        "Whether workers may be in the middle of something."
        self.scratch = how.scratch
        self.scratch.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Remove what is only of use during the run.

        Workers that are still busy end first. Idle ones stay, since lesions follow scans and importing takes seconds.
        """
        if self.at_work:
            self.pool.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not self.how.kept:
            with suppress(OSError):  # another run's files are in it
                self.how.work_dir.rmdir()

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run one batch; every job gets an outcome."""
        self._expect({workflow_name(job): parts_of(job) for job in jobs})
        self.stems = {name: stem for job in jobs for name, stem in stems_of(job).items()}
        error = self._execute(build_workflow(jobs, self.how))
        return [self._outcome(job, error) for job in jobs]

    def _expect(self, parts: dict[str, tuple[str, ...]]) -> None:
        self.parts, self.ended, self.failed, self.failures = parts, set(), set(), {}
        for name in {part for needed in parts.values() for part in needed}:
            for stage in Stage:
                forget(self.how.nodes / ROOT / name / stage.value)

    def run_lesions(self, jobs: Sequence[LesionJob]) -> list[tuple[LesionJob, Failure | None]]:
        """Describe the lesions of participants; returns each with what ended it, None if nothing did."""
        self.stems = {f"lesions_{job.subject}": f"sub-{job.subject} lesions" for job in jobs}
        self._expect({name: (name,) for name in self.stems})
        workflow = Workflow(name=ROOT, base_dir=str(self.how.nodes))
        workflow.add_nodes([lesion_workflow(job, self.how) for job in jobs])
        error = self._execute(workflow)
        return [(job, self._lesion_failure(job, error)) for job in jobs]

    def run_sessions(self, jobs: Sequence[SessionsJob]) -> list[tuple[SessionsJob, list[Outcome]]]:
        """Segment sessions together; every scan gets an outcome, since one that fails leaves the others."""
        self.stems = {sessions_name(job): job.name for job in jobs}
        for job in jobs:
            for one in job.each:
                remove_log(one.outputs.log)
        self.written = {one.scan: written_at(one.outputs.quality) for job in jobs for one in job.each}
        self._expect({name: (name,) for name in self.stems})
        workflow = Workflow(name=ROOT, base_dir=str(self.how.nodes))
        workflow.add_nodes([sessions_workflow(job, self.how) for job in jobs])
        error = self._execute(workflow)
        return [(job, [self._session_outcome(job, one, error) for one in job.each]) for job in jobs]

    def _session_outcome(self, group: SessionsJob, job: Job, error: str) -> Outcome:
        """Of one scan: what ended it alone is in its log."""
        failure = self._failure_of(sessions_name(group))
        if failure is None and job.outputs.log.exists():
            return Outcome(job, failure_in(job.outputs.log))
        if failure is None and written_at(job.outputs.quality) not in (None, self.written[job.scan]):
            return Outcome(job)
        if failure is None:
            return Outcome(job, not_done(f"{job.scan}: {error}"), stopped=self.how.stop_on_first_crash)
        named = failure if job.scan in failure.error else replace(failure, error=f"{job.scan}: {failure.error}")
        write_log(job.outputs.log, named)
        return Outcome(job, named)

    def _lesion_failure(self, job: LesionJob, error: str) -> Failure | None:
        """Why a participant's lesions failed; the logs of the masks say so, too."""
        from bidsseg.workflow.lesion_stages import is_done

        failure = self._failure_of(f"lesions_{job.subject}")
        if failure is None:
            known = is_done(job) or any(outputs.lesion_log.exists() for outputs in job.all_outputs)
            return None if known else not_done(error)
        for outputs in job.all_outputs:
            if not outputs.lesions.summary.exists():
                write_log(outputs.lesion_log, failure)
        return failure

    def _execute(self, workflow: Workflow) -> str:
        """Run a workflow; returns what to say of nodes that did not end and did not fail."""
        workflow.config = self._config()
        self.at_work = True
        gc.collect()
        gc.freeze()  # nipype collects garbage before every step; it need not look at all modules each time
        try:
            if not self.how.plugin:
                plugin = MultiProcInPool(self.pool, self.scratch, self._status)
                self.in_memory = plugin.failures
                workflow.run(plugin=plugin)
            else:
                arguments = {**self.how.plugin.get("plugin_args", {}), "status_callback": self._status}
                name = self.how.plugin["plugin"]
                plugin = Slurm(plugin_args=arguments) if name == "SLURM" else name
                workflow.run(plugin=plugin, plugin_args=arguments)
        except OSError as unexpected:
            return named(unexpected)
        except Exception as unexpected:  # nipype's summary of the nodes that failed; each has told why
            return " ".join(str(unexpected).split())[:200]
        finally:
            gc.unfreeze()
        self.at_work = False
        return "not finished, because another scan failed"

    def _config(self) -> dict[str, Any]:
        return {
            "execution": {
                "crashdump_dir": str(self.scratch),
                "crashfile_format": "txt",
                "create_report": False,
                "poll_sleep_duration": POLL_SECONDS,
                "remove_unnecessary_outputs": False,  # steps leave more than the one file that nipype knows
                "stop_on_first_crash": self.how.stop_on_first_crash,
            }
        }

    def _status(self, node: Any, status: str) -> None:
        name = node._hierarchy.rpartition(".")[2]
        ended = status == "end" and Stage(node.name) in LAST_STAGES
        good = ended and name not in self.failed  # Linear "ends" what it skips
        if status == "end" and self.how.resource_monitor:
            note_resources(self.how.logs / "resources.tsv", self.stems[name], node)
        if status == "exception":
            self.failures[name] = self._failure_of(name, node.name) or unrecorded(self.how.nodes)
            self._end([job for job, parts in self.parts.items() if name in parts], good=False)
        elif good:
            self._end([name], good=True)

    def _end(self, jobs: Sequence[str], good: bool) -> None:
        """Tell of jobs that have ended, and remove the folders that no other job needs."""
        for job in jobs:
            if job not in self.ended:
                self.ended.add(job)
                self.failed |= set() if good else {job}
                self.on_scan(self.stems[job], good)
        needed = {part for job, parts in self.parts.items() if job not in self.ended for part in parts}
        for part in {part for job in jobs for part in self.parts[job]} - needed:
            self._clean(part)

    def _failure_of(self, name: str, node: str = "") -> Failure | None:
        """Why a workflow failed; None if it did not. ``node`` is the one that has just failed, if known."""
        folder = self.how.nodes / ROOT / name
        known = (self.in_memory.get(f"{ROOT}.{name}.{node}"), *(recorded_in(folder / stage.value) for stage in Stage))
        return self.failures.get(name) or next(filter(None, known), None)

    def _outcome(self, job: Job, error: str) -> Outcome:
        failure = next(filter(None, map(self._failure_of, parts_of(job))), None)
        if failure is not None:
            named = failure if job.scan in failure.error else replace(failure, error=f"{job.scan}: {failure.error}")
            write_log(job.outputs.log, named)
            return Outcome(job, named)
        if is_complete(job.outputs, job.made_with()):
            remove_log(job.outputs.log)
            return Outcome(job)
        return Outcome(job, not_done(f"{job.scan}: {error}"), stopped=self.how.stop_on_first_crash)

    def _clean(self, name: str) -> None:
        if not self.how.kept:
            shutil.rmtree(self.how.nodes / ROOT / name, ignore_errors=True)


RESOURCES = {"seconds": "duration", "peak_memory_gb": "mem_peak_gb", "cpu_percent": "cpu_percent"}
"Columns of the resource table, and nipype's names for them."


def note_resources(path: Path, scan: str, node: Any) -> None:
    """Append what nipype's monitor saw of a step to a table; the step's own files go when the scan is done."""
    runtime = node.result.runtime
    cells = [getattr(runtime, name, None) for name in RESOURCES.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as handle:
        if handle.tell() == 0:
            handle.write("\t".join(["scan", "step", *RESOURCES]) + "\n")
        numbers = ["n/a" if cell is None else f"{cell:.3g}" for cell in cells]
        handle.write("\t".join([scan, node.name, *numbers]) + "\n")


def batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """The jobs, some at a time, those of one session together: at least ``size`` but for the last."""
    sessions: dict[tuple[Path, str, str | None], list[Job]] = {}
    for job in jobs:
        sessions.setdefault(session_key(job.outputs), []).append(job)
    batch: list[Job] = []
    for session in sessions.values():
        batch += session
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def build_workflow(jobs: Sequence[Job], how: Resources) -> Workflow:
    """One workflow that holds one of three nodes for each scan, and one for the contrasts of each session to fuse."""
    workflow = Workflow(name=ROOT, base_dir=str(how.nodes))
    sessions: dict[str, list[Job]] = {}
    for job in jobs:
        if job.partners:
            sessions.setdefault(fusion_name(job), []).append(job)
    asked = {scan: job.alone(scan) for session in sessions.values() for job in session for scan in job.sources}
    scans = {job.scan: scan_workflow(asked.get(job.scan, job), how) for job in jobs if not job.partners}
    scans |= {scan: scan_workflow(job, how, outputs=False) for scan, job in asked.items() if scan not in scans}
    workflow.add_nodes(list(scans.values()))
    for name, session in sessions.items():
        _add_session(workflow, name, session, scans, how)
    return workflow


def _add_session(
    workflow: Workflow, name: str, session: Sequence[Job], scans: Mapping[str, Workflow], how: Resources
) -> None:
    """Fuse the contrasts of a session: a node that has the answers to all of them, and one that writes for each job."""
    sources = list(dict.fromkeys(scan for job in session for scan in job.sources))
    answers = [f"answer{number}" for number in range(len(sources))]
    function = Function(input_names=["jobs", "scans", *answers], output_names=["out"], function=_fusion)
    fusion = Node(function, name=Stage.FUSION.value, **_share(how, FUSION_GB))
    fusion.inputs.jobs = [asdict(job) for job in session]
    fusion.inputs.scans = sources
    together = Workflow(name=name)
    together.add_nodes([fusion])
    for scan, answer in zip(sources, answers, strict=True):
        workflow.connect(scans[scan], "segmentation.out", together, f"fusion.{answer}")
    for job in session:
        outputs = _outputs_node(job, _fused_outputs, how)
        fused = Workflow(name=workflow_name(job))
        fused.add_nodes([outputs])
        workflow.connect(scans[job.scan], "n4.out", fused, "outputs.corrected")
        workflow.connect(together, "fusion.out", fused, "outputs.fused")


def workflow_name(job: Job) -> str:
    return re.sub(r"\W", "_", job.outputs.scan.stem)


def fusion_name(job: Job) -> str:
    """The name of what fuses the contrasts of a job's session."""
    scan = job.outputs.scan
    return re.sub(r"\W", "_", f"fusion_{scan.subject}_{scan.session}")


def stems_of(job: Job) -> dict[str, str]:
    """The workflows that a job's results come from, its own first, and the scan that each is about."""
    own = {workflow_name(job): job.outputs.scan.stem}
    if not job.partners:
        return own
    sources = [job.alone(scan) for scan in job.sources]
    alone = {workflow_name(source): source.outputs.scan.stem for source in sources}
    return {**own, fusion_name(job): job.outputs.scan.stem, **alone}


def parts_of(job: Job) -> tuple[str, ...]:
    """The names of the workflows that a job's results come from, its own first."""
    return tuple(stems_of(job))


def scan_workflow(job: Job, how: Resources, outputs: bool = True) -> Workflow:
    """Bias field correction, segmentation, and outputs; these are written whatever nipype finds in its cache."""
    n4, segmentation = (
        Node(Function(function=function, output_names=["out"]), name=stage.value, **_share(how))
        for stage, function in ((Stage.BIAS, _n4), (Stage.SEGMENTATION, _segmentation))
    )
    for node in (n4, segmentation):
        node.inputs.job = asdict(job)
    stat = Path(job.scan).stat() if Path(job.scan).exists() else None
    n4.inputs.stamp = [stat.st_size, stat.st_mtime_ns] if stat else []
    segmentation.inputs.use_gpu = how.gpus > 0  # nipype knows nodes for the GPU by the name of this input
    workflow = Workflow(name=workflow_name(job))
    workflow.connect(n4, "out", segmentation, "corrected")
    if outputs:
        written = _outputs_node(job, _outputs, how)
        workflow.connect(n4, "out", written, "corrected")
        workflow.connect(segmentation, "out", written, "segmentation")
    return workflow


def _outputs_node(job: Job, function: Callable[..., str], how: Resources) -> Node:
    node = Node(Function(function=function, output_names=["out"]), name=Stage.OUTPUTS.value, **_share(how))
    node.inputs.job = asdict(job)
    node.overwrite = True
    return node


def _share(how: Resources, more_gb: float = 0.0) -> dict[str, float]:
    """CPUs and memory of a node."""
    memory_gb = how.scan_gb + more_gb
    return {"n_procs": how.threads, "mem_gb": min(memory_gb, how.memory_gb or memory_gb)}


def written_at(path: Path) -> int | None:
    """The time of a file in ns; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def sessions_name(job: SessionsJob) -> str:
    return re.sub(r"\W", "_", f"sessions_{job.name}")


def sessions_workflow(job: SessionsJob, how: Resources) -> Workflow:
    """The sessions of one participant in one contrast, in one node: each needs the answers to all others."""
    function = Function(input_names=["job", "use_gpu"], output_names=["out"], function=_sessions)
    node = Node(function, name=Stage.SESSIONS.value, **_share(how, FUSION_GB))
    node.inputs.job = asdict(job)
    node.inputs.use_gpu = how.gpus > 0
    node.overwrite = True
    workflow = Workflow(name=sessions_name(job))
    workflow.add_nodes([node])
    return workflow


def lesion_workflow(job: LesionJob, how: Resources) -> Workflow:
    """The lesions of one participant, in one node: its sessions are compared."""
    share = {"n_procs": how.threads, "mem_gb": min(MEMORY_GB, how.memory_gb or MEMORY_GB)}
    node = Node(Function(function=_lesions, output_names=["out"]), name=Stage.LESIONS.value, **share)
    node.inputs.job = asdict(job)
    node.overwrite = True
    workflow = Workflow(name=f"lesions_{job.subject}")
    workflow.add_nodes([node])
    return workflow


# nipype runs the source of these functions elsewhere, so each imports what it needs.


def _lesions(job: dict) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.lesion_stages import describe_participant

        return describe_participant(job)


def _sessions(job: dict, use_gpu: bool) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.session_stages import segment_sessions

        return segment_sessions(job, Path.cwd())


def _n4(job: dict, stamp: list) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import bias_stage

        return bias_stage(job, Path.cwd())


def _segmentation(job: dict, corrected: str, use_gpu: bool) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import segmentation_stage

        return segmentation_stage(job, corrected, Path.cwd())


def _outputs(job: dict, corrected: str, segmentation: str) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import output_stage

        return output_stage(job, corrected, segmentation)


def _fusion(jobs: list, scans: list, **answers: str) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import fuse_session

        by_scan = {scan: answers[f"answer{number}"] for number, scan in enumerate(scans)}
        return fuse_session(jobs, by_scan, Path.cwd())


def _fused_outputs(job: dict, corrected: str, fused: str) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import SEGMENTATION, fused_folder, output_stage

        return output_stage(job, corrected, str(fused_folder(Path(fused), job) / SEGMENTATION))
