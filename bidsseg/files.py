"""Files that are either whole or not there, and the text of tables and JSON in them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that becomes ``path`` only if the block ends without an error.

    It keeps the file's endings, by which writers choose the format, and starts with a dot, which readers skip.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _cell(value: Any) -> Any:
    missing = value in ("", None) or (isinstance(value, float) and math.isnan(value))
    return "n/a" if missing else value


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
