"""Claims on participants of an output folder, so that no two runs work on the same one at the same time.

Every run has a record in OUT/logs/running and holds a lock beside it. The system lets go of the lock when the run ends,
however it ends, so a record whose lock is free is what a killed run left: the next run removes it, and that run's
temporary files. On file systems without locks (flock) every run goes on as if there were no other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bidsseg.bids.outputs import logs_of
from bidsseg.files import read_json, remove_temporaries, write_json

POLL_SECONDS = 1.0
NAMED_AT_MOST = 3
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
"What a file system answers that has none."
RUN_FOLDER = re.compile(r"run-([0-9a-f]{8})")


@dataclass(frozen=True)
class Record:
    """A run that is going on."""

    host: str
    process: int
    started: str
    "Local time of its host."
    participants: tuple[str, ...] = ()
    "Labels, without sub-, of those it works on now."

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.started}"


def run_folder(work: Path, run: str) -> Path:
    """Where a run keeps what it needs only while it lasts; ``run`` is its name, eight hexadecimal digits."""
    return work / f"run-{run}"


class Claims:
    """The record of one run, and what it sees of the others. Raises ``OSError`` where OUT cannot be written."""

    def __init__(self, out: Path, work: Path, run: str) -> None:
        self.out = out
        self._works = {out / "work", work}
        self._run = run
        self._folder = logs_of(out) / "running"
        self._record = Record(socket.gethostname(), os.getpid(), datetime.now().isoformat(" ", "seconds"))
        self._lock: int | None = None
        self._announced: set[str] = set()
        self._made = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]

    def __enter__(self) -> Claims:
        with self._alone():
            self._lock = _lock(self._folder / f"{self._run}.lock")
            if self._lock is not None:
                self._write(())
                alone = not self._others()
                self._remove_run_folders()
                if alone:
                    remove_temporaries([*self.out.glob(".*"), *logs_of(self.out).glob(".*")])
        return self

    def __exit__(self, *_: object) -> None:
        with self._alone() as mutex:
            self._forget(self._run)
            if self._lock is not None:
                os.close(self._lock)
            if not list(self._folder.glob("[!.]*")):
                mutex.unlink(missing_ok=True)
        for folder in (self._folder, *self._made):
            with suppress(OSError):  # not empty
                folder.rmdir()

    def in_turns(self, participants: Sequence[str], before_waiting: Callable[[str], None]) -> Iterator[list[str]]:
        """Yield participants that are this run's until the next are asked for; others' come when these have ended.

        ``before_waiting`` gets a line that says who works on them, once for every other run.
        """
        left = list(participants)
        while left:
            mine, holders = self._take(left)
            for run, held in holders.items():
                if run not in self._announced:
                    self._announced.add(run)
                    before_waiting(f"{named(held.participants)}: another run is at work ({held}); waiting for it")
            if not mine:
                time.sleep(POLL_SECONDS)
                continue
            left = [label for label in left if label not in mine]
            try:
                yield mine
            finally:
                self._sweep(mine)
                self._write(())

    def _take(self, wanted: Sequence[str]) -> tuple[list[str], dict[str, Record]]:
        """Make those of the participants this run's that no other works on; returns them, and who has the rest."""
        if self._lock is None:
            return list(wanted), {}
        with self._alone():
            others = self._others()
            taken = {label for record in others.values() for label in record.participants}
            mine = [label for label in wanted if label not in taken]
            self._write(mine)
        self._sweep(mine)
        holders = {}
        for run, record in others.items():
            both = tuple(label for label in record.participants if label in wanted)
            if both:
                holders[run] = Record(record.host, record.process, record.started, both)
        return mine, holders

    def _sweep(self, participants: Sequence[str]) -> None:
        """Remove temporary files of killed processes; nobody else works in these folders."""
        if self._lock is not None:
            folders = [self.out / f"sub-{label}" for label in participants]
            for folder in folders:
                remove_temporaries(() if folder.is_symlink() else folder.glob("**/.*"))

    def _write(self, participants: Sequence[str]) -> None:
        if self._lock is not None:
            write_json(self._folder / f"{self._run}.json", {**asdict(self._record), "participants": list(participants)})

    def _others(self) -> dict[str, Record]:
        """Runs that go on; what is left of dead ones is removed."""
        found = {}
        for path in sorted(self._folder.glob("[!.]*.json")):
            if path.stem == self._run:
                continue
            if _is_locked(path.with_suffix(".lock")):
                found[path.stem] = _record(read_json(path))
            else:
                self._forget(path.stem)
        return found

    def _forget(self, run: str) -> None:
        for work in self._works if RUN_FOLDER.fullmatch(f"run-{run}") else ():
            shutil.rmtree(run_folder(work, run), ignore_errors=True)
        for ending in (".json", ".lock"):
            with suppress(OSError):
                (self._folder / f"{run}{ending}").unlink()

    def _remove_run_folders(self) -> None:
        """Those below OUT of which no record is left; a folder elsewhere may be that of another OUT's run."""
        for folder in (self.out / "work").glob("run-*"):
            name = RUN_FOLDER.fullmatch(folder.name)
            if name and not (self._folder / f"{name[1]}.json").exists():
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[Path]:
        """Keep other runs from the records meanwhile; yields the file that does, which the last run removes."""
        path = self._folder / ".lock"
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the folder went with a run that ended
                handle = _lock(path, wait=True)
                if handle is None or _is_file_of(handle, path):
                    break
                os.close(handle)
        try:
            yield path
        finally:
            if handle is not None:
                os.close(handle)


def named(labels: Sequence[str]) -> str:
    """Participants in a line of text."""
    more = len(labels) - NAMED_AT_MOST
    return ", ".join(f"sub-{label}" for label in labels[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _lock(path: Path, wait: bool = False) -> int | None:
    """The descriptor that holds a file's lock; None where the file system has none. Raises ``BlockingIOError``."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        handle = os.open(path, os.O_RDONLY)  # another user's
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in WITHOUT_LOCKS:
            return None
        raise
    return handle


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        handle = _lock(path)
    except OSError:  # held, or not ours to look at
        return True
    if handle is not None:
        os.close(handle)
    return handle is None


def _is_file_of(handle: int, path: Path) -> bool:
    """Whether the open file still has its name; raises ``FileNotFoundError`` where the name is gone."""
    return os.path.samestat(os.fstat(handle), path.stat())


def _record(content: dict[str, Any]) -> Record:
    """What a record says; it is read from a folder that anyone may have written in."""
    host, started = ("".join(filter(str.isprintable, str(content.get(key)))) for key in ("host", "started"))
    process, participants = content.get("process"), content.get("participants")
    labels = participants if isinstance(participants, list) else []
    number = process if isinstance(process, int) else 0
    return Record(host, number, started, tuple(label for label in labels if isinstance(label, str)))
