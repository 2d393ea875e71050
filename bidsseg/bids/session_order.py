"""The chronological order of a participant's sessions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

LARGEST_TABLE_BYTES = 4_000_000
TIME = re.compile(r"\d{4}-\d\d-\d\d([T ][\d:.]+)?Z?")


def sessions_table(dataset: Path, subject: str) -> Path:
    """Where BIDS has the times of a participant's sessions."""
    return dataset / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"


def in_time(dataset: Path, subject: str, sessions: Iterable[str]) -> list[str]:
    """Session labels, without ses-, from the earliest on.

    By ``acq_time`` in the dataset's table of the participant's sessions where it has all of them, else by the numbers
    and letters of the labels.
    """
    labels = sorted(set(sessions), key=natural)
    times = session_times(sessions_table(dataset, subject))
    if not set(labels) <= set(times):
        return labels
    return sorted(labels, key=lambda label: times[label])  # as BIDS writes times, they sort as text


def session_times(table: Path) -> dict[str, str]:
    """When each session was, by its label without ses-; nothing of a table but labels and times as BIDS has them.

    Whatever else the file holds is passed over: it may be a link to anything.
    """
    try:
        if not table.is_file() or table.stat().st_size > LARGEST_TABLE_BYTES:
            return {}
        lines = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        return {}
    rows = [[cell.strip().strip('"') for cell in line.split("\t")] for line in lines]
    if not rows or not {"session_id", "acq_time"} <= set(rows[0]):
        return {}
    columns = rows[0].index("session_id"), rows[0].index("acq_time")
    found = (tuple(row[column] for column in columns) for row in rows[1:] if len(row) > max(columns))
    named = {label.removeprefix("ses-"): time for label, time in found if TIME.fullmatch(time)}
    return {label: time for label, time in named.items() if label.isalnum() and label.isascii()}


def natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers in a text by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
