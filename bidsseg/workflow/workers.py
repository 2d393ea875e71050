"""A pool of processes for the scans; free of nipype, so that it can start before anything else does.

The workers live as long as the run, so each loads the model once. They are spawned, not forked: a fork of a process in
which torch has started threads can hang.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from bidsseg.workflow.claims import run_folder

MEMORY_GB = 3.0
"Peak of the segmentation of a 1 mm whole head."
LOW_MEMORY_GB = 2.0
"The same with --low-mem."
SECONDS_TO_END = 5.0
"How long a process has to end by itself before it is killed."
WORKER_DIED = "its process was killed, probably because memory ran out; lower --nprocs, or raise the memory limit"


@dataclass(frozen=True)
class Resources:
    """How to run the jobs; nothing here changes their results."""

    work_dir: Path
    "Work folder, which runs of other datasets may share."
    logs: Path
    "Where tracebacks of failed scans go."
    nprocs: int = 1
    "CPUs in all."
    threads: int = 1
    "CPUs of each scan."
    memory_gb: float | None = None
    "Memory for all scans together; 90 % of the machine's if None."
    gpus: int = 0
    "GPUs to use, each for one segmentation at a time; the other steps run on CPUs meanwhile."
    plugin: dict[str, Any] = field(default_factory=dict)
    "A nipype plugin and its arguments, in place of MultiProc: {'plugin': ..., 'plugin_args': {...}}."
    kept: str = ""
    "Names the folder of the work folder in which intermediate files stay; they are removed where it is empty."
    run: str = field(default_factory=lambda: uuid4().hex[:8])
    "In containers, process ids are not unique."
    stop_on_first_crash: bool = False
    verbose: bool = False
    scan_gb: float = MEMORY_GB
    "Memory that a scan counts for."
    write_graph: bool = False
    resource_monitor: bool = False

    @property
    def workers(self) -> int:
        return max(1, self.nprocs // self.threads)

    @property
    def scratch(self) -> Path:
        """What no other run uses, and what goes when this one ends."""
        return run_folder(self.work_dir, self.run)

    @property
    def nodes(self) -> Path:
        """Where intermediate files of scans lie; only runs from the same dataset into the same OUT have one folder."""
        return self.work_dir / self.kept if self.kept else self.scratch


class WorkerPool:
    """Spawned processes that outlive a batch, and are replaced when one of them is killed."""

    def __init__(self, how: Resources) -> None:
        self.how = how
        self._started = multiprocessing.get_context("spawn").Value("i", 0)
        self._executor: ProcessPoolExecutor | None = None

    def start(self) -> ProcessPoolExecutor:
        """Start the first worker, which imports what every scan needs while this process goes on."""
        self._executor = ProcessPoolExecutor(
            max_workers=self.how.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(self.how, self._started),
        )
        self._executor.submit(warm_up)
        return self._executor

    def submit(self, function: Callable[..., dict[str, Any]], *arguments: Any) -> Future[dict[str, Any]]:
        try:
            return (self._executor or self.start()).submit(function, *arguments)
        except BrokenProcessPool:
            return self.start().submit(function, *arguments)

    def close(self) -> None:
        """End the workers, in the middle of a scan if need be: it is done again next time. ``submit`` starts others."""
        executor, self._executor = self._executor, None
        if executor is not None:
            end_processes(executor)


def end_processes(executor: ProcessPoolExecutor) -> None:
    """End a pool and all its processes, whatever they are doing; when it returns, none is left to write a file."""
    processes = list((executor._processes or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(SECONDS_TO_END)
        if process.is_alive():
            process.kill()


def warm_up() -> None:
    """Import what every scan needs."""
    import bidsseg.workflow.scan_stages  # noqa: F401


def start_worker(how: Resources, started: Any) -> None:
    """First thing in every worker; ``started`` counts them, so that each takes the next GPU."""
    end_with_parent()
    with started.get_lock():
        number = started.value
        started.value += 1
    if how.gpus > 1:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_of_worker(number, how.gpus, listed)


def gpu_of_worker(number: int, gpus: int, visible: str) -> str:
    """The one GPU that a worker sees, of those in CUDA's list; the first ones if there is no list."""
    names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
    return names[number % gpus]


def end_with_parent() -> None:
    """Let this process end when its parent does; else it would wait for work for ever when the parent is killed.

    The parent holds one end of a pipe, which the system closes. On Linux the system also ends this process then, though
    it may be deep in a library that lets no other thread run; elsewhere it ends when the thread gets its turn.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if hasattr(fcntl, "F_SETSIG"):
        pipe = parent.sentinel
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_wait_for_end_of, args=(parent,), daemon=True).start()


def _wait_for_end_of(parent: Any) -> None:
    parent.join()
    os._exit(1)
