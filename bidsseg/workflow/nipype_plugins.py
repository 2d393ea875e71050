"""How nipype's nodes are run: in a pool of workers of our own, or by Slurm."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from nipype import config
from nipype import logging as nipype_logging
from nipype.pipeline.engine.nodes import NodeExecutionError
from nipype.pipeline.plugins.multiproc import MultiProcPlugin
from nipype.pipeline.plugins.slurm import SLURMPlugin

from bidsseg.errors import Failure, Kind, UserError, failure_from, failure_of, root_of
from bidsseg.workflow.failures import record, recorded_in, unrecorded
from bidsseg.workflow.jobs import Stage
from bidsseg.workflow.workers import WORKER_DIED, Resources, WorkerPool

JOB_DIED = "its cluster job ended without a result, probably out of time or memory; request more in sbatch_args"


def set_up_logging(verbose: bool) -> None:
    """nipype's messages only where asked for: failures are reported at the end, in one line each."""
    for name in nipype_logging.loggers:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL + 1)


class Slurm(SLURMPlugin):  # type: ignore[misc]
    """nipype's SLURM, which fails over jobs that were killed: it adds a list to the text it has about them."""

    def _get_result(self, taskid: int) -> Any:
        result = super()._get_result(taskid)
        if result and isinstance(result["traceback"], str):
            record(Path(self._pending[taskid]), Failure(JOB_DIED, Kind.KILLED, result["traceback"]))
            result["traceback"] = [result["traceback"]]
        return result


def monitor_resources(how: Resources) -> None:
    """Switch nipype's resource monitor; raises ``UserError`` where it cannot work."""
    if how.resource_monitor and how.plugin:
        raise UserError(
            "--resource-monitor does not work with --use-plugin; use the cluster's accounting, for instance sacct"
        )
    if how.resource_monitor and importlib.util.find_spec("psutil") is None:
        raise UserError("--resource-monitor needs psutil; pip install psutil (or bidsseg[monitor])")
    config.resource_monitor = how.resource_monitor


def run_in_worker(how: Resources, folder: Path, node: Any, updatehash: bool, task: int) -> dict[str, Any]:
    """Run a node; ``folder`` becomes the current one, because nipype's resource monitor writes there."""
    os.chdir(folder)
    set_up_logging(how.verbose)
    monitor_resources(how)
    try:
        return {"result": node.run(updatehash=updatehash), "traceback": None, "taskid": task}
    except Exception as error:
        failure = _failure_of_node(Path(node.output_dir()), error)
        return {"result": None, "traceback": [failure.traceback], "taskid": task, "failure": failure.as_json()}


def _failure_of_node(folder: Path, error: Exception) -> Failure:
    """What a step left in its folder, or else what nipype failed with; of a step's error it keeps the text alone."""
    known, cause = recorded_in(folder), root_of(error)
    if known is not None:
        return known
    return unrecorded(folder, str(cause)) if isinstance(cause, NodeExecutionError) else failure_of(cause, folder)


class MultiProcInPool(MultiProcPlugin):  # type: ignore[misc]
    """MultiProc in workers that it does not own, and that survives the death of one; the stock plugin then hangs."""

    def __init__(self, pool: WorkerPool, folder: Path, status: Callable[[Any, str], None]) -> None:
        how = pool.how
        arguments: dict[str, Any] = {"n_procs": max(how.nprocs, how.threads), "status_callback": status}
        arguments["n_gpu_procs"] = how.gpus * how.threads  # nipype counts a node's CPUs on the GPU
        if how.memory_gb is not None:
            arguments["memory_gb"] = how.memory_gb
        super().__init__({**arguments, "raise_insufficient": False})
        self.pool.shutdown()
        self._workers = pool
        self._folder = folder
        self.failures: dict[str, Failure] = {}
        "By the node's full name, also those that the disk had no room for."

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        task = self._taskid
        future = self._workers.submit(run_in_worker, self._workers.how, self._folder, node, updatehash, task)
        self._task_obj[task] = future
        future.add_done_callback(lambda done: self._take(done, task, node.fullname))
        return int(task)

    def _sort_jobs(self, jobids: Sequence[int], scheduler: str | None = None) -> list[int]:
        return sorted(jobids, key=lambda job: list(Stage).index(Stage(self.procs[job].name)))

    def _take(self, done: Future[dict[str, Any]], task: int, name: str) -> None:
        try:
            result = done.result()
            failure = failure_from(result.get("failure", {}))
        except BaseException as error:
            died = isinstance(error, BrokenProcessPool)
            failure = Failure(WORKER_DIED, Kind.KILLED, "") if died else failure_of(error)
            result = {"result": None, "traceback": [failure.error], "taskid": task}
        if failure is not None:
            self.failures[name] = failure
        self._taskresult[task] = result

    def _report_crash(self, node: Any, result: dict[str, Any] | None = None) -> Any:
        with suppress(OSError):  # on a full disk; the failure is known without it
            return super()._report_crash(node, result=result)
        return None

    def _postrun_check(self) -> None:
        """The workers go on to the next batch."""
