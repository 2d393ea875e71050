"""How a run went: a table of its scans, and a line for each error."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bidsseg.errors import plain

STYLES = {
    "done": "green",
    "complete": "dim",
    "to do": "cyan",
    "failed": "red",
    "not tried": "yellow",
    "no scans": "dim",
    "no mask": "dim",
    "lesions failed": "red",
}
NEVER_HIDDEN = ("failed", "not tried", "to do", "lesions failed")
Result = Literal["ok", "failed", "lesions failed"]
"How a run went; only scans fail it, or else only lesion masks."
ROWS_AT_MOST = 60
"Of scans that need no attention; beyond this they are only counted."


@dataclass(frozen=True)
class Row:
    """One line of the final table."""

    name: str
    result: str
    "A key of ``STYLES``."
    why: str = ""


def finish(rows: Sequence[Row], warnings: Sequence[str]) -> Result:
    """Print errors, warnings and the table; returns how it went."""
    counts = Counter(row.result for row in rows)
    if rows:
        Console(soft_wrap=False).print(_table(rows, counts))
    for warning in warnings:
        print(f"warning: {plain(warning)}", file=sys.stderr)
    for row in rows:
        if row.result in ("failed", "lesions failed"):
            print(f"error: {plain(row.why)}", file=sys.stderr)
    if counts["failed"] or counts["not tried"]:
        return "failed"
    return "lesions failed" if counts["lesions failed"] else "ok"


def _table(rows: Sequence[Row], counts: Counter[str]) -> Table:
    caption = ", ".join(f"{count} {result}" for result, count in counts.items())
    table = Table("scan", "result", "why", caption=caption, caption_justify="left")
    quiet = len(rows) > ROWS_AT_MOST
    for row in sorted(rows, key=lambda row: row.name):
        if quiet and row.result not in NEVER_HIDDEN and not (row.result == "done" and row.why):
            continue
        path, colon, rest = row.why.partition(": ")
        why = rest if colon and path.startswith("/") else row.why
        table.add_row(Text(plain(row.name)), Text(row.result, STYLES[row.result]), Text(plain(why)))
    return table
