"""Verdicts in words, the same on the terminal, in tables, pages and files. No numpy: it is read when a run starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

TITLES = {"pass": "Pass", "check": "Check", "fail": "Fail"}
"By verdict, best first."
KEYS = ("Verdict", "Reasons")
"Of a quality file."


def verdict_of(quality: Mapping[str, Any]) -> str:
    """A key of ``TITLES``, or empty where a quality file's content has none."""
    found = str(quality.get(KEYS[0], "")).lower()
    return found if found in TITLES else ""


def reasons_of(quality: Mapping[str, Any]) -> list[str]:
    """The reasons of the verdict, none for a pass or in a malformed file."""
    reasons = quality.get(KEYS[1])
    return [str(reason) for reason in reasons] if isinstance(reasons, list) else []


def in_words(quality: Mapping[str, Any]) -> str:
    """One line, for instance "check: only 5 slices; slices 9 mm apart"."""
    reasons = "; ".join(reasons_of(quality))
    return f"{verdict_of(quality)}: {reasons}" if reasons else verdict_of(quality)


def tally(verdicts: Iterable[str]) -> str:
    """How many of each, for instance "20 pass, 5 check, 2 fail"; empty without any."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in TITLES if counts[verdict])
