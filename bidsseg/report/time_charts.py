"""Volumes over the sessions as curves, with the error of scanning again behind them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bidsseg.files import NA, read_tsv
from bidsseg.labels import SCHEMES, label_table
from bidsseg.report.charts import UNKNOWN_COLOR
from bidsseg.report.volumes_over_time import BRAIN, WITHIN_ERROR
from bidsseg.segmentation.mosaic import readable_name

WIDTH, HEIGHT, MARGIN = 240, 44, 8
"Of the drawing of one structure."
SHOWN_PERCENT = (6.0, 20.0)
"Least and largest change that the height of a drawing stands for, either way; curves beyond it run along the edge."
BRAIN_COLOR = "#c9a27a"


@dataclass(frozen=True)
class Curve:
    """One side of a structure, or a structure on the midline, over the sessions."""

    values: list[float]
    "mL, or percent of the intracranial volume."
    changes: list[float]
    "Percent since the first session."
    per_year: float
    "Of the last session; nan where times are not known."
    x: list[float]
    "Of each session in the drawing."
    error: float
    "Percent by which half of all second scans differ where nothing has changed; nan if not known."

    @property
    def first_and_last(self) -> str:
        digits = 1 if self.values[0] >= 100 else 2
        return f"{self.values[0]:.{digits}f} → {self.values[-1]:.{digits}f}"

    @property
    def last_change(self) -> str:
        return signed(self.changes[-1])

    @property
    def yearly(self) -> str:
        return signed(self.per_year)

    @property
    def exceeds_error(self) -> bool:
        return abs(self.changes[-1]) > WITHIN_ERROR * self.error


@dataclass
class CurveRow:
    """One structure."""

    name: str
    color: str
    curves: dict[str, Curve] = field(default_factory=dict)
    "By L, R, or n/a on the midline."

    @property
    def first(self) -> Curve | None:
        """Left, or the midline."""
        return self.curves.get("L") or self.curves.get(NA)

    @property
    def right(self) -> Curve | None:
        return self.curves.get("R")


@dataclass(frozen=True)
class TimeChart:
    """The structures of one scheme in one contrast."""

    contrast: str
    scheme: str
    sessions: str
    "In words, with times and doubtful verdicts."
    has_times: bool
    rows: list[CurveRow]

    @property
    def shown_percent(self) -> float:
        """The change at the upper edge of the drawings."""
        changes = [abs(c) for row in self.rows for curve in row.curves.values() for c in curve.changes if c == c]
        least, largest = SHOWN_PERCENT
        return min(max([least, *changes]), largest)

    def y(self, percent: float) -> float:
        """Of a change in the drawing."""
        share = min(max(percent / self.shown_percent, -1), 1)
        return round(HEIGHT / 2 - share * (HEIGHT / 2 - 3), 1)

    def points(self, curve: Curve) -> list[tuple[float, float]]:
        """Of a curve in the drawing, without sessions of which there is no change to tell."""
        return [(x, self.y(change)) for x, change in zip(curve.x, curve.changes, strict=True) if change == change]

    def path(self, curve: Curve) -> str:
        """A curve in the language of SVG."""
        return "M" + "L".join(f"{x} {y}" for x, y in self.points(curve))

    def bands(self, row: CurveRow) -> list[tuple[float, float]]:
        """(upper edge, height) of what scanning again does: 95 % of differences, and half of them."""
        error = max(curve.error for curve in row.curves.values())
        limits = () if math.isnan(error) else (WITHIN_ERROR * error, error)
        return [(self.y(limit), round(self.y(-limit) - self.y(limit), 1)) for limit in limits]


def read_time_charts(path: Path) -> list[TimeChart]:
    """The charts of a table of volumes over time; none where it is not there or cannot be read."""
    try:
        rows = read_tsv(path)
        return [
            chart(contrast, scheme, [row for row in rows if row["contrast"] == contrast])
            for contrast in dict.fromkeys(row["contrast"] for row in rows)
            for scheme in SCHEMES
            if any(row["contrast"] == contrast and row["scheme"] == scheme for row in rows)
        ]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def chart(contrast: str, scheme: str, rows: Sequence[Mapping[str, str]]) -> TimeChart:
    """One scheme of a contrast, whose ``rows`` these are, after the brain as a whole."""
    colors = {label.index: label.color for label in label_table(scheme)} if scheme in SCHEMES else {}
    labels: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        if row["scheme"] in (BRAIN, scheme):
            labels.setdefault((row["scheme"], row["index"], row["name"]), []).append(row)
    found: dict[str, CurveRow] = {}
    for (of, index, label), visits in labels.items():
        name = readable_name(label)
        color = BRAIN_COLOR if of == BRAIN else colors.get(int(index), UNKNOWN_COLOR)
        found.setdefault(name, CurveRow(name, color)).curves[visits[0]["hemisphere"]] = curve(visits, "")
        if of == BRAIN:
            fraction = "Brain parenchymal fraction, %"
            found[fraction] = CurveRow(fraction, color, {NA: curve(visits, "fraction_")})
    visits = next(iter(labels.values()))
    has_times = all(row["years"] != NA for row in visits)
    return TimeChart(contrast, scheme, ", ".join(map(visit_in_words, visits)), has_times, list(found.values()))


def curve(visits: Sequence[Mapping[str, str]], of: str) -> Curve:
    """Of the volume of a label, or with ``fraction_`` of its share of the intracranial volume."""
    column, factor = ("fraction_of_intracranial", 100) if of else ("volume_mm3", 0.001)
    changes = [0.0, *(number(row[f"{of}change_percent"]) for row in visits[1:])]
    yearly = number(visits[-1][f"{of}change_percent_per_year"])
    values = [float(row[column]) * factor for row in visits]
    return Curve(values, changes, yearly, places(visits), number(visits[-1]["rescan_error_percent"]))


def places(visits: Sequence[Mapping[str, str]]) -> list[float]:
    """Where the sessions are in the drawing: by their times, or evenly."""
    years = [number(row["years"]) for row in visits]
    if not all(later > earlier for earlier, later in pairwise(years)):
        years = [float(at) for at in range(len(visits))]
    return [round(MARGIN + (WIDTH - 2 * MARGIN) * year / years[-1], 1) if years[-1] else MARGIN for year in years]


def visit_in_words(row: Mapping[str, str]) -> str:
    """A session with its time, and its verdict where that is not pass."""
    facts: Iterable[str] = (row["acq_time"][:10], row["verdict"] if row["verdict"] != "pass" else NA)
    told = [fact for fact in facts if fact and fact != NA]
    return row["session_id"].removeprefix("ses-") + (f" ({', '.join(told)})" if told else "")


def number(cell: str) -> float:
    return math.nan if cell == NA else float(cell)


def signed(percent: float) -> str:
    return "" if math.isnan(percent) else f"{percent:+.1f}"
