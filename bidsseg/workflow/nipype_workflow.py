"""Many scans at once: a nipype workflow per scan, in batches, so that memory stays flat."""

from __future__ import annotations

import gc
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from nipype.pipeline.engine import Workflow

from bidsseg.bids.completeness import is_complete
from bidsseg.bids.contrasts import session_key
from bidsseg.errors import Failure, Kind, named
from bidsseg.workflow.failures import failure_in, forget, recorded_in, remove_log, unrecorded, write_log
from bidsseg.workflow.jobs import LAST_STAGES, Job, LesionJob, SessionsJob, Stage
from bidsseg.workflow.nipype_nodes import (
    ROOT,
    build_workflow,
    lesion_workflow,
    lesions_name,
    parts_of,
    sessions_name,
    sessions_workflow,
    stems_of,
    together,
    workflow_name,
)
from bidsseg.workflow.nipype_plugins import MultiProcInPool, Slurm, monitor_resources, set_up_logging
from bidsseg.workflow.workers import Resources, WorkerPool

SCANS_PER_WORKER = 16
"In one batch: enough that waiting for a batch's last scan costs little."
POLL_SECONDS = 0.05
"How long a step that has ended waits for the next one, at most."
STOPPED = "not processed, because another scan failed"
AnyJob = TypeVar("AnyJob", Job, SessionsJob, LesionJob)
Result = TypeVar("Result")
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
    kept: bool = False
    "An earlier run's answer stands."

    @property
    def error(self) -> str | None:
        """One line; None if all is well."""
        return self.failure.error if self.failure else None


def run_jobs(jobs: Sequence[Job], pool: WorkerPool, on_scan: OnScan) -> Iterator[Outcome]:
    """Segment scans and yield an outcome for each, batch by batch; ``on_scan`` is called as soon as each ends."""
    how = pool.how
    set_up_logging(how.verbose)
    monitor_resources(how)
    if how.write_graph and jobs:
        write_graph(jobs[0], how)
    some = batches(jobs, SCANS_PER_WORKER * how.workers)
    with closing(Runner(pool, on_scan)) as runner:
        for _, outcome in _batch_by_batch(
            some, lambda batch: [(o.job, o) for o in runner.run(batch)], lambda o: is_worth_another_try(o.failure, how)
        ):
            yield outcome


def run_lesion_jobs(
    jobs: Sequence[LesionJob], pool: WorkerPool, on_scan: OnScan
) -> Iterator[tuple[LesionJob, Failure | None]]:
    """Describe the lesions of participants, batch by batch; yields each with what ended it, None if nothing did."""
    how = pool.how
    set_up_logging(how.verbose)
    some = in_turn(jobs, SCANS_PER_WORKER * how.workers)
    with closing(Runner(pool, on_scan)) as runner:
        yield from _batch_by_batch(some, runner.run_lesions, lambda failure: is_worth_another_try(failure, how))


def run_session_jobs(jobs: Sequence[SessionsJob], pool: WorkerPool, on_scan: OnScan) -> Iterator[Outcome]:
    """Segment sessions of participants together, batch by batch; yields an outcome for each scan."""
    how = pool.how
    set_up_logging(how.verbose)
    monitor_resources(how)
    with closing(Runner(pool, on_scan)) as runner:
        for _, outcomes in _batch_by_batch(
            in_turn(jobs, how.workers),
            runner.run_sessions,
            lambda found: any(is_worth_another_try(outcome.failure, how) for outcome in found),
        ):
            yield from outcomes


def _batch_by_batch(
    some: Iterable[Sequence[AnyJob]],
    run: Callable[[Sequence[AnyJob]], Sequence[tuple[AnyJob, Result]]],
    is_worth_another: Callable[[Result], bool],
) -> Iterator[tuple[AnyJob, Result]]:
    """Jobs with what came of them, which are run some at a time; those whose worker died are run once more."""
    died: list[AnyJob] = []
    for batch in some:
        for job, result in run(batch):
            if is_worth_another(result):
                died.append(job)
            else:
                yield job, result
    for job in died:  # one at a time, so that the scan that kills its worker takes no other with it
        yield from run([job])


def is_worth_another_try(failure: Failure | None, how: Resources) -> bool:
    """Whether a worker of ours was killed, which may have been for what others did; clusters give each its own."""
    return failure is not None and failure.kind is Kind.KILLED and not (how.plugin or how.stop_on_first_crash)


def not_done(line: str) -> Failure:
    return Failure(line, Kind.USER, "")


def not_tried(job: Job) -> Outcome:
    return Outcome(job, kept=True) if job.stands else Outcome(job, not_done(STOPPED), stopped=True)


def failed_by(job: Job, failure: Failure) -> Outcome:
    """Of a scan, whose log then says what failed, with the scan's name."""
    named = failure if job.scan in failure.error else replace(failure, error=f"{job.scan}: {failure.error}")
    write_log(job.outputs.log, named)
    return Outcome(job, named)


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
        self.stopped = False
        "A scan failed, and the user wants no other batch of scans."
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
        if self.stopped:
            return [not_tried(job) for job in jobs]
        self._expect({workflow_name(job): parts_of(job) for job in jobs})
        self.stems = {name: stem for job in jobs for name, stem in stems_of(job).items()}
        error = self._execute(build_workflow(jobs, self.how))
        return self._noted([self._outcome(job, error) for job in jobs])

    def _noted(self, outcomes: list[Outcome]) -> list[Outcome]:
        self.stopped |= self.how.stop_on_first_crash and any(outcome.failure for outcome in outcomes)
        return outcomes

    def _expect(self, parts: dict[str, tuple[str, ...]]) -> None:
        self.parts, self.ended, self.failed, self.failures = parts, set(), set(), {}
        for name in {part for needed in parts.values() for part in needed}:
            for stage in Stage:
                forget(self.how.nodes / ROOT / name / stage.value)

    def run_lesions(self, jobs: Sequence[LesionJob]) -> list[tuple[LesionJob, Failure | None]]:
        """Describe the lesions of participants; returns each with what ended it, None if nothing did."""
        self.stems = {lesions_name(job): f"sub-{job.subject} lesions" for job in jobs}
        self._expect({name: (name,) for name in self.stems})
        error = self._execute(together([lesion_workflow(job, self.how) for job in jobs], self.how))
        return [(job, self._lesion_failure(job, error)) for job in jobs]

    def run_sessions(self, jobs: Sequence[SessionsJob]) -> list[tuple[SessionsJob, list[Outcome]]]:
        """Segment sessions together; every scan gets an outcome, since one that fails leaves the others."""
        if self.stopped:
            return [(job, [not_tried(one) for one in job.each]) for job in jobs]
        self.stems = {sessions_name(job): job.name for job in jobs}
        for job in jobs:
            for one in job.each:
                remove_log(one.outputs.log)
        self.written = {one.scan: written_at(one.outputs.quality) for job in jobs for one in job.each}
        self._expect({name: (name,) for name in self.stems})
        error = self._execute(together([sessions_workflow(job, self.how) for job in jobs], self.how))
        return [(job, self._noted([self._session_outcome(job, one, error) for one in job.each])) for job in jobs]

    def _session_outcome(self, group: SessionsJob, job: Job, error: str) -> Outcome:
        """Of one scan: what ended it alone is in its log."""
        failure = self._failure_of(sessions_name(group))
        written = written_at(job.outputs.quality)
        if failure is None and job.outputs.log.exists():
            return Outcome(job, failure_in(job.outputs.log))
        if failure is None and written not in (None, self.written[job.scan]):
            return Outcome(job)
        if job.stands and written == self.written[job.scan]:
            return Outcome(job, kept=True)
        return self._not_ended(job, error) if failure is None else failed_by(job, failure)

    def _not_ended(self, job: Job, error: str) -> Outcome:
        """Of a scan that is not complete though nothing is known to have failed."""
        return Outcome(job, not_done(f"{job.scan}: {error}"), stopped=self.how.stop_on_first_crash)

    def _lesion_failure(self, job: LesionJob, error: str) -> Failure | None:
        """Why a participant's lesions failed; the logs of the masks say so, too."""
        from bidsseg.workflow.lesion_stages import is_done, not_described

        failure = self._failure_of(lesions_name(job))
        if failure is None:
            known = is_done(job) or any(outputs.lesion_log.exists() for outputs in job.all_outputs)
            return None if known else not_done(error)
        for outputs in not_described(job):
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
            return failed_by(job, failure)
        if is_complete(job.outputs, job.made_with()):
            remove_log(job.outputs.log)
            return Outcome(job)
        return self._not_ended(job, error)

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


def written_at(path: Path) -> int | None:
    """The time of a file in ns; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def in_turn(jobs: Sequence[AnyJob], size: int) -> Iterator[Sequence[AnyJob]]:
    """The jobs, so many at a time."""
    return (jobs[first : first + size] for first in range(0, len(jobs), size))


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
