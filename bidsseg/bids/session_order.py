"""Sessions of a participant in the order of time."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path


def sessions_table(dataset: Path, subject: str) -> Path:
    """Where BIDS has the times of a participant's sessions."""
    return dataset / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"


def in_time(dataset: Path, subject: str, sessions: Iterable[str]) -> list[str]:
    """Session labels, without ses-, from the earliest on.

    By ``acq_time`` in the dataset's table of the participant's sessions where it has all of them, else by the numbers
    and letters of the labels.
    """
    labels = sorted(set(sessions), key=natural)
    try:
        text = sessions_table(dataset, subject).read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        return labels
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    times = {str(row.get("session_id")).removeprefix("ses-"): row.get("acq_time") or "n/a" for row in rows}
    if any(times.get(label, "n/a") == "n/a" for label in labels):
        return labels
    return sorted(labels, key=lambda label: times[label])  # as BIDS writes times, they sort as text


def natural(text: str) -> list[tuple[int, str]]:
    """Sorts numbers in a text by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
