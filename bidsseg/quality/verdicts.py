"""The verdict on a scan and its wording, which is the same on the terminal, in tables, on pages and in files.

No numpy: it is read when a run starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

TITLES = {"pass": "Pass", "check": "Check", "fail": "Fail"}
"Titles of the verdicts, best first."
KEYS = ("Verdict", "Reasons")
"Keys of the verdict in a quality file."
AGREEMENT, WITH = "ContrastAgreement", "ContrastAgreementWith"
"Keys of the file that says how far the contrasts of a session agree."
LOW_AGREEMENT = 0.5
"Mean Dice over regions of two contrasts below which a scan needs a look."


def verdict(assessed: tuple[str, Sequence[str]], agreement: float | None) -> tuple[str, list[str]]:
    """The verdict on a scan and its reasons, from those of the scan by itself and how far other contrasts agree.

    ``agreement`` is the mean Dice with the answers to the session's other contrasts; None where there are none.
    """
    word, reasons = assessed
    if agreement is None or not agreement < LOW_AGREEMENT:
        return word, list(reasons)
    reason = f"the contrasts of this session give inconsistent labels: mean Dice {agreement:.2f}"
    return ("check" if word == "pass" else word), [*reasons, reason]


def judged(quality: Mapping[str, Any], agreement: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a quality file, with that of the agreement file beside it, and the verdict on both.

    Either may be empty or malformed.
    """
    mean = agreement.get(AGREEMENT)
    if not isinstance(mean, int | float):
        return dict(quality)
    found = {**quality, AGREEMENT: mean, WITH: agreement.get(WITH)}
    if verdict_of(quality):
        word, reasons = verdict((verdict_of(quality), reasons_of(quality)), mean)
        found |= dict(zip(KEYS, (word, reasons), strict=True))
    return found


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
