"""The closing table of a run, with the result of each scan, and one line for each error."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bidsseg.errors import plain
from bidsseg.quality.verdicts import tally

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
VERDICT_STYLES = {"pass": "green", "check": "yellow", "fail": "red"}
NEVER_HIDDEN = ("failed", "not tried", "to do", "lesions failed")
RunStatus = Literal["ok", "failed", "lesions failed"]
"How a run went; only scans fail it, or else only lesion masks."
ROWS_AT_MOST = 60
"Rows for scans that need no attention; beyond this they are only counted."


@dataclass(frozen=True)
class Row:
    """One line of the final table."""

    name: str
    result: str
    "A key of ``STYLES``."
    why: str = ""
    verdict: str = ""
    "Verdict on a segmented scan: a key of ``bidsseg.quality.verdicts.TITLES``."
    about: Literal["scans", "lesions", "reports"] = "scans"


def summary(rows: Sequence[Row]) -> str:
    """How many scans have each result, and each verdict, and then how many lesions and reports have each result.

    For instance "27 done: 20 pass, 5 check, 2 fail; 1 failed; lesions: 12 done, 1 failed; reports: 3 failed".
    """
    parts = []
    for result, count in Counter(row.result for row in rows if row.about == "scans").items():
        verdicts = tally(row.verdict for row in rows if row.result == result)
        parts.append(f"{count} {result}" + (f": {verdicts}" if verdicts else ""))
    for about in ("lesions", "reports"):
        counts = Counter(row.result.removeprefix("lesions ") for row in rows if row.about == about)
        if counts:
            parts.append(f"{about}: " + ", ".join(f"{count} {result}" for result, count in counts.items()))
    return "; ".join(parts)


def finish(rows: Sequence[Row], warnings: Sequence[str]) -> RunStatus:
    """Print errors, warnings and the table; returns how it went."""
    counts = Counter(row.result for row in rows)
    if rows:
        Console(soft_wrap=False).print(_table(rows))
    for warning in warnings:
        print(f"warning: {plain(warning)}", file=sys.stderr)
    for row in rows:
        if row.result in ("failed", "lesions failed"):
            print(f"error: {plain(row.why)}", file=sys.stderr)
    if counts["failed"] or counts["not tried"]:
        return "failed"
    return "lesions failed" if counts["lesions failed"] else "ok"


def _table(rows: Sequence[Row]) -> Table:
    table = Table("scan", "result", "verdict", "why", caption=summary(rows), caption_justify="left")
    quiet = len(rows) > ROWS_AT_MOST
    for row in sorted(rows, key=lambda row: row.name):
        if quiet and not _needs_attention(row):
            continue
        path, colon, rest = row.why.partition(": ")
        why = rest if colon and path.startswith("/") else row.why
        verdict = Text(row.verdict, VERDICT_STYLES.get(row.verdict, ""))
        table.add_row(Text(plain(row.name)), Text(row.result, STYLES[row.result]), verdict, Text(plain(why)))
    return table


def _needs_attention(row: Row) -> bool:
    return row.result in NEVER_HIDDEN or row.verdict in ("check", "fail") or (row.result == "done" and bool(row.why))


@contextmanager
def progress(total: int) -> Iterator[Any]:
    """Tells the user of every scan that ends: a bar in a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("Segmenting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=total)
            yield lambda name, good: bar.advance(task)
        return
    count = Counter[bool]()

    def line(name: str, good: bool) -> None:
        count[good] += 1
        print(f"[{count.total()}/{total}] {plain(name)} {'done' if good else 'failed'}", file=sys.stderr, flush=True)

    yield line
