"""Errors a user can act on: one line that names the file, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Shown as one line, without a traceback."""


class FileError(UserError):
    """Something is wrong with one file; other files go on."""

    def __init__(self, path: Path | str, found: str, advice: str) -> None:
        super().__init__(f"{path}: {found}; {advice}")


@contextmanager
def one_line_errors(path: str) -> Iterator[None]:
    """Turn whatever goes wrong with a scan into one line that names it."""
    try:
        yield
    except MemoryError as error:
        raise FileError(path, "not enough memory", "run fewer scans at once: lower --nprocs or --mem-gb") from error
    except Exception as error:
        line = " ".join(str(error).split())
        if isinstance(error, UserError) and path in line:
            raise UserError(line) from error
        if isinstance(error, UserError):
            raise UserError(f"{path}: {line}") from error
        raise FileError(path, f"{type(error).__name__}: {line}"[:300], "see the traceback in the log") from error
