"""How nipype's nodes are run: in a pool of workers of our own, or by Slurm.

The workers live as long as the run, so each loads the model once. They are spawned, not forked: a fork of a process in
which torch has started threads can hang.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nipype import config
from nipype import logging as nipype_logging
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, run_node
from nipype.pipeline.plugins.slurm import SLURMPlugin

from bidsseg.errors import UserError

MEMORY_GB = 3.0
"Peak of the segmentation of a 1 mm whole head."
LOW_MEMORY_GB = 2.0
"The same with --low-mem."
WORKER_DIED = "its process was killed, most likely for want of memory; lower --nprocs, or raise the memory limit"
JOB_DIED = "its cluster job ended without a result, most likely for want of time or memory; ask for more in sbatch_args"
STAGES = ("outputs", "segmentation", "n4", "lesions")
"Last first: a scan begun is finished before another begins, which keeps the work folder small."


@dataclass(frozen=True)
class Execution:
    """How to run the jobs; nothing here changes their results."""

    work_dir: Path
    logs: Path
    "Where tracebacks of failed scans go."
    nprocs: int = 1
    "CPUs in all."
    threads: int = 1
    "CPUs of each scan."
    memory_gb: float | None = None
    "Of all scans together; 90 % of the machine's if None."
    gpus: int = 0
    "GPUs to use, each for one segmentation at a time; the other steps run on CPUs meanwhile."
    plugin: dict[str, Any] = field(default_factory=dict)
    "A nipype plugin and its arguments, in place of MultiProc: {'plugin': ..., 'plugin_args': {...}}."
    keep_work: bool = False
    stop_on_first_crash: bool = False
    verbose: bool = False
    scan_gb: float = MEMORY_GB
    "Memory that a scan counts for."
    write_graph: bool = False
    resource_monitor: bool = False

    @property
    def workers(self) -> int:
        return max(1, self.nprocs // self.threads)


class WorkerPool:
    """Spawned processes that outlive a batch, and are replaced when one of them is killed."""

    def __init__(self, how: Execution, folder: Path) -> None:
        self.how = how
        self.folder = folder
        self._started = multiprocessing.get_context("spawn").Value("i", 0)
        self._executor = self._start()
        self._executor.submit(warm_up)  # starts them all, while this process prepares the first batch

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=self.how.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(self.folder, self.how, self._started),
        )

    def submit(self, node: Any, updatehash: bool, task: int) -> Future[dict[str, Any]]:
        try:
            return self._executor.submit(run_node, node, updatehash, task)
        except BrokenProcessPool:
            self._executor = self._start()
            return self._executor.submit(run_node, node, updatehash, task)

    def close(self) -> None:
        """End the workers, in the middle of a scan if need be: it is done again next time."""
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def warm_up() -> None:
    """Import what every scan needs."""
    import bidsseg.steps  # noqa: F401


def start_worker(folder: Path, how: Execution, started: Any) -> None:
    """First thing in every worker; ``started`` counts them, so that each takes the next GPU.

    ``folder`` becomes the current one, because nipype's resource monitor writes there.
    """
    os.chdir(folder)
    with started.get_lock():
        number = started.value
        started.value += 1
    if how.gpus > 1:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of_worker(number, how.gpus, listed)
    set_up_logging(how.verbose)
    monitor_resources(how)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def gpu_of_worker(number: int, gpus: int, visible: str) -> str:
    """The one GPU that a worker sees, of those in CUDA's list; the first ones if there is no list."""
    names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
    return names[number % gpus]


def _end_with_parent() -> None:
    """Else a worker would wait for ever when its parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def set_up_logging(verbose: bool) -> None:
    """nipype's messages only where asked for: failures are reported at the end, in one line each."""
    for name in nipype_logging.loggers:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL + 1)


class Slurm(SLURMPlugin):  # type: ignore[misc]
    """nipype's SLURM, which fails over jobs that were killed: it adds a list to the text it has about them."""

    def _get_result(self, taskid: int) -> Any:
        result = super()._get_result(taskid)
        if result and isinstance(result["traceback"], str):
            result["traceback"] = [f"bidsseg.errors.UserError: {JOB_DIED}\n"]
        return result


def monitor_resources(how: Execution) -> None:
    """Switch nipype's resource monitor; raises ``UserError`` where it cannot work."""
    if how.resource_monitor and how.plugin:
        raise UserError("--resource-monitor does not work with --use-plugin; ask the cluster, say with sacct")
    if how.resource_monitor and importlib.util.find_spec("psutil") is None:
        raise UserError("--resource-monitor needs psutil; pip install psutil (or bidsseg[monitor])")
    config.resource_monitor = how.resource_monitor


class MultiProcInPool(MultiProcPlugin):  # type: ignore[misc]
    """MultiProc in workers that it does not own, and that survives the death of one; the stock plugin then hangs."""

    def __init__(self, pool: WorkerPool, status: Callable[[Any, str], None]) -> None:
        how = pool.how
        arguments: dict[str, Any] = {"n_procs": max(how.nprocs, how.threads), "status_callback": status}
        arguments["n_gpu_procs"] = how.gpus * how.threads  # nipype counts a node's CPUs on the GPU
        if how.memory_gb is not None:
            arguments["memory_gb"] = how.memory_gb
        super().__init__({**arguments, "raise_insufficient": False})
        self.pool.shutdown()
        self._workers = pool

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        task = self._taskid
        future = self._workers.submit(node, updatehash, task)
        self._task_obj[task] = future
        future.add_done_callback(lambda done: self._take(done, task))
        return int(task)

    def _sort_jobs(self, jobids: Sequence[int], scheduler: str | None = None) -> list[int]:
        return sorted(jobids, key=lambda job: STAGES.index(self.procs[job].name))

    def _take(self, done: Future[dict[str, Any]], task: int) -> None:
        try:
            self._taskresult[task] = done.result()
        except BaseException as error:
            reason = WORKER_DIED if isinstance(error, BrokenProcessPool) else f"{type(error).__name__}: {error}"
            self._taskresult[task] = {
                "result": None,
                "traceback": [f"bidsseg.errors.UserError: {reason}\n"],
                "taskid": task,
            }

    def _postrun_check(self) -> None:
        """The workers go on to the next batch."""
