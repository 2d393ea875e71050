"""Errors a user can act on: one line that names the file, what was found and what to do."""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple


def plain(text: str) -> str:
    """Text that a terminal shows as it is: control characters, line breaks, marks that turn the direction of writing,
    and bytes of names that are no text, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UserError(Exception):
    """Shown as one line, without a traceback."""

    def __init__(self, line: object) -> None:
        super().__init__(plain(str(line)))


class Defect(UserError):
    """A defect of bidsseg, not a mistake of the user; the line says where the traceback is."""


class FileError(UserError):
    """Something is wrong with one file; other files go on."""

    def __init__(self, path: Path | str, found: str, advice: str) -> None:
        super().__init__(f"{path}: {found}; {advice}")


class Advice(NamedTuple):
    """What to do about errors that have nothing to do with a file."""

    on_memory: str
    on_defect: str
    on_full_disk: str


AMID_OTHERS = Advice(
    "run fewer scans at once: lower --nprocs or --mem-gb",
    "see the traceback in the log",
    "free space there, or give another output folder or --work-dir",
)
ALONE = Advice(
    "close other programs, or use a machine with more memory",
    "this is a defect, please report it",
    "free space there, or choose another output",
)


FULL = (errno.ENOSPC, errno.EDQUOT)


def some_of(names: Sequence[str], at_most: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def full_disk(path: Path | str, advice: Advice = AMID_OTHERS) -> str:
    """The line for a file system that is full: which one, how full, and what to do."""
    there = next(folder for folder in (Path(path), *Path(path).parents) if folder.exists())
    mount = next(folder for folder in (there.resolve(), *there.resolve().parents) if os.path.ismount(folder))
    free_mb = shutil.disk_usage(there).free / 1e6
    return f"No space left on device: {path} ({free_mb:.1f} MB free in the file system {mount}); {advice.on_full_disk}"


def named(error: Exception) -> str:
    """An error in one line; of a full disk, what to do."""
    if isinstance(error, OSError) and error.errno in FULL and error.filename:
        return full_disk(error.filename)
    return " ".join(f"{type(error).__name__}: {error}".split())


class Kind(str, Enum):
    """Whose turn it is after a failure."""

    USER = "user"
    "The user's: the line says what to do."
    DEFECT = "defect"
    "Ours: nobody expected it."
    KILLED = "killed"
    "The process was killed, probably because memory ran out; by itself the scan may succeed."


@dataclass(frozen=True)
class Failure:
    """What went wrong, as data that travels between processes."""

    error: str
    "One line."
    kind: Kind
    traceback: str
    "Empty where nobody saw one."

    def as_json(self) -> dict[str, str]:
        return {"error": self.error, "kind": self.kind.value, "traceback": self.traceback}


def failure_of(error: BaseException, folder: Path | None = None) -> Failure:
    """An error as data; ``folder`` is where files were written that an error of a full disk does not name."""
    text = "".join(traceback.format_exception(error))
    where = (error.filename or folder) if isinstance(error, OSError) and error.errno in FULL else None
    if where:
        return Failure(full_disk(where), Kind.USER, text)
    if isinstance(error, UserError):
        return Failure(str(error), Kind.DEFECT if isinstance(error, Defect) else Kind.USER, text)
    line = named(error) if isinstance(error, Exception) else f"{type(error).__name__}: {error}"
    return Failure(line, Kind.DEFECT, text)


def failure_from(content: Mapping[str, Any]) -> Failure | None:
    """What ``Failure.as_json`` made; None for anything else."""
    try:
        return Failure(str(content["error"]), Kind(content["kind"]), str(content["traceback"]))
    except (KeyError, ValueError):
        return None


def root_of(error: BaseException) -> BaseException:
    """The error during whose handling the others arose."""
    while error.__context__ is not None:
        error = error.__context__
    return error


@contextmanager
def one_line_errors(path: str, advice: Advice = AMID_OTHERS) -> Iterator[None]:
    """Turn whatever goes wrong with a scan into one line that names it."""
    try:
        yield
    except Exception as error:
        path, line = plain(path), plain(" ".join(str(error).split()))
        if isinstance(error, MemoryError) or "allocate memory" in line:  # torch says so in a RuntimeError
            raise FileError(path, "not enough memory", advice.on_memory) from error
        if isinstance(error, UserError) and path in line:
            raise UserError(line) from error
        if isinstance(error, UserError):
            raise UserError(f"{path}: {line}") from error
        if isinstance(error, OSError) and error.errno in FULL and error.filename:
            raise UserError(f"{path}: {full_disk(error.filename, advice)}") from error
        if isinstance(error, OSError) and error.strerror:
            reason = ": ".join(str(part) for part in (error.strerror, error.filename) if part)
            raise FileError(path, reason, "check free space and permissions") from error
        found = f"{type(error).__name__}: {line}"[:300]
        raise Defect(f"{path}: {found}; {advice.on_defect}") from error
