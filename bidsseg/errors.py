"""Errors a user can act on: one line that names the file, what was found and what to do."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Shown as one line, without a traceback."""


class FileError(UserError):
    """Something is wrong with one file; other files go on."""

    def __init__(self, path: Path | str, found: str, advice: str) -> None:
        super().__init__(f"{path}: {found}; {advice}")
