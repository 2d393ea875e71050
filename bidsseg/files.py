"""Files that are either whole or not there, and the text of tables and JSON in them."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

TEMPORARY = re.compile(r"\.[0-9a-f]{8}\..+")
"Names of files that are being written."
NA = "n/a"
"A cell without a value."
LEFTOVER_SECONDS = 600
"Longer than it takes to write a file."


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that becomes ``path`` only if the block ends without an error.

    It keeps the file's endings, by which writers choose the format, and starts with a dot, which readers skip. An
    ``OSError`` without a file name, such as that of a full disk, or with the temporary one gets ``path`` as its own.
    """
    with all_whole([path]) as (temporary,):
        yield temporary


@contextmanager
def all_whole(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary names for several files that appear together, in their order, or not at all; see ``whole``.

    All begin alike, so that files that differ in their endings still do only in these.
    """
    start = f".{uuid4().hex[:8]}."
    temporaries = [path.with_name(start + path.name) for path in paths]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    except OSError as error:
        finals = dict(zip(map(str, temporaries), map(str, paths), strict=True))
        found = error.filename
        error.filename = str(paths[0]) if found is None else finals.get(str(found), found)
        raise
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def reserve(handle: BinaryIO, size: int, name: Path) -> None:
    """Have the disk keep room for a file that is written through memory, where a full disk would kill the process.

    Raises ``OSError``, with ``name``, where there is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of file systems that cannot
            raise OSError(error.errno, error.strerror, str(name)) from error


def leftovers_of(paths: Iterable[Path]) -> list[Path]:
    """What killed processes left of these files: temporary files that nobody has written to for a while."""
    names = {path.name for path in paths}
    folders = {path.parent for path in paths if path.parent.is_dir()}
    found = [path for folder in folders for path in folder.glob(".????????.*") if path.name[10:] in names]
    return [path for path in found if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS]


def remove_temporaries(paths: Iterable[Path]) -> None:
    """Remove those of the files that a killed process was writing."""
    for path in paths:
        if TEMPORARY.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


IMAGE_ENDINGS = re.compile(r"(\.(nii|img|hdr|mgh|mgz|nrrd|nhdr|mha|mhd))?(\.gz)?$", re.IGNORECASE)


def stem_of(path: Path) -> str:
    """The name of an image without its ending, as .nii.gz or .mgz, in lower or upper case; that of a folder whole."""
    return IMAGE_ENDINGS.sub("", path.name)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text under its final name only when whole."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Tab-separated text; NaN and the empty string become n/a."""
    handle = io.StringIO()
    writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return handle.getvalue()


@dataclass(frozen=True)
class Table:
    """Cells as text, by row and column."""

    columns: tuple[str, ...]
    rows: list[list[str]]

    def cells(self, *names: str) -> Iterator[tuple[str, ...]]:
        """The cells of some columns, row by row; raises ``ValueError`` for a column that is not there."""
        places = [self.columns.index(name) for name in names]
        return (tuple(row[place] for place in places) for row in self.rows)


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """The cells of a table in the order of ``columns``, n/a for a column it lacks.

    Raises ``ValueError`` where a row is longer or shorter than the header.
    """
    text = path.read_text(encoding="utf-8")
    header, _, body = text.partition("\n")
    if header.split("\t") != list(columns):
        found = csv.DictReader(io.StringIO(text), delimiter="\t")
        return Table(tuple(columns), [[row.get(column) or NA for column in columns] for row in found])
    rows = [line.split("\t") for line in body.replace("\r", "").split("\n") if line]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"{path.name} has rows of another length than its header")
    return Table(tuple(columns), rows)


def sha256_of(path: Path) -> str:
    """The checksum of a file, which may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns; raises ``OSError``, ``ValueError`` or ``csv.Error``."""
    with path.open(encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def _cell(value: Any) -> Any:
    missing = value in ("", None) or (isinstance(value, float) and math.isnan(value))
    return NA if missing else harmless(value) if isinstance(value, str) else value


def harmless(cell: str) -> str:
    """A cell as one line of text that no spreadsheet takes for a formula."""
    text = " ".join(cell.split())
    if text.startswith(("=", "+", "-", "@")) and not _is_number(text):
        return f"'{text}"
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def json_content(path: Path) -> Any:
    """What a JSON file holds, with or without a byte order mark.

    Raises ``OSError`` where it cannot be read, ``ValueError`` where it is no JSON or nested too deep.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_json(path: Path) -> dict[str, Any]:
    """Fields of a JSON file; none where it is not there or holds something else."""
    try:
        content = json_content(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
