"""Failures of scans as data: a step leaves one in its folder, and the runner reads it there and writes logs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bidsseg.bids.outputs import failure_beside
from bidsseg.errors import Failure, Kind, failure_from, failure_of, full_disk
from bidsseg.files import read_json, write_json, write_text

RECORD = "failure.json"
ROOM_FOR_A_RECORD = 1_000_000
"Bytes: with less left on the disk, it is full."


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Leave what goes wrong in a folder, and raise it on."""
    forget(folder)
    try:
        yield
    except Exception as error:
        record(folder, failure_of(error, folder))
        raise


def record(folder: Path, failure: Failure) -> None:
    """Leave a failure in a folder; one that the disk has no room for is done without, see ``unrecorded``."""
    with suppress(OSError):
        write_json(folder / RECORD, failure.as_json())


def forget(folder: Path) -> None:
    """Remove what an earlier run left."""
    with suppress(OSError):
        (folder / RECORD).unlink(missing_ok=True)


def recorded_in(folder: Path) -> Failure | None:
    """What a step left in its folder."""
    return failure_from(read_json(folder / RECORD))


def unrecorded(folder: Path, traceback: str = "") -> Failure:
    """Of a step that failed and could not write why."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    full = shutil.disk_usage(there).free < ROOM_FOR_A_RECORD
    line = (
        full_disk(folder) if full else f"failed, and the reason could not be written to {folder}; --verbose may show it"
    )
    return Failure(line, Kind.USER if full else Kind.DEFECT, traceback)


def write_log(log: Path, failure: Failure) -> None:
    """A log for people, and the same as data; what the disk has no room for is done without, as the run says it."""
    with suppress(OSError):
        write_text(log, f"{failure.traceback.rstrip()}\nError: {failure.error}\n".lstrip())
        write_json(failure_beside(log), failure.as_json())


def remove_log(log: Path) -> bool:
    """Whether there was one."""
    there = log.exists()
    for path in (log, failure_beside(log)):
        path.unlink(missing_ok=True)
    return there


def failure_in(log: Path) -> Failure:
    """The failure that a log describes."""
    return failure_from(read_json(failure_beside(log))) or Failure(f"see {log}", Kind.DEFECT, "")
