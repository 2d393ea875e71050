"""The page of all participants: distributions of every region, who stands out, and change over sessions."""

from __future__ import annotations

import base64
import gzip
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg import __version__
from bidsseg.bids.session_order import in_time
from bidsseg.files import Table
from bidsseg.labels import SCHEMES, label_table
from bidsseg.lesions.changes import STATUSES
from bidsseg.lesions.zones import OUTSIDE, ZONES
from bidsseg.quality.verdicts import tally, verdict_of
from bidsseg.report.charts import label_title
from bidsseg.report.frequency_view import FrequencyView
from bidsseg.report.html import write_page

LESIONS = "lesions"
"Kind of the entries that are tables of lesions."
LESION_COLOR = "#d62728"
COUNTED = ("count", "change")
"Schemes that hold numbers of lesions, not volumes: in a session, and by what became of them since the one before."
PERCENTILES = tuple(range(0, 101, 5))
OUTLYING = 3.5
"Robust z-score beyond which a value stands out (Iglewicz & Hoaglin 1993)."
ENOUGH = 8
"Scans below which nothing is said about who stands out."
SHOWN_SCANS = 10_000
"More are not drawn one by one; the percentiles are always those of all."
LISTED = 200
STEPS = 65_534
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Column:
    """Something measured in every scan of a kind."""

    scheme: str
    "Label scheme; for lesions total, zone or lobe, and those of ``COUNTED``."
    key: str
    "Code of the label, or name of the lesions' place."
    name: str
    color: str


@dataclass(frozen=True)
class Entry:
    """A scan, or a table of lesions."""

    participant: str
    session: str
    kind: str
    "Suffix of the scan, or lesions."
    scan: str
    anchor: str
    "Its place on the participant's page."
    quality: Mapping[str, str]

    @property
    def intracranial_ml(self) -> float:
        return as_number(self.quality.get("IntracranialVolumeMm3")) / 1000


@dataclass(frozen=True)
class Cohort:
    """All entries and their volumes."""

    entries: list[Entry] = field(default_factory=list)
    rows: list[Floats] = field(default_factory=list)
    "Values of each entry, (columns,): volumes in mL, counts in ``COUNTED`` columns; nan where not measured."

    @cached_property
    def columns(self) -> list[Column]:
        labels = [
            Column(scheme, str(label.index), label_title(label), label.color)
            for scheme in SCHEMES
            for label in label_table(scheme)
        ]
        places = [("total", "all"), *(("zone", zone) for zone in ZONES)]
        places += [("lobe", label.name) for label in label_table("lobes")] + [("lobe", OUTSIDE)]
        places += [("count", "all"), *(("count", zone) for zone in ZONES)]
        places += [("change", status) for status in STATUSES]
        lesions = [Column(level, name, name.replace("-", " ").capitalize(), LESION_COLOR) for level, name in places]
        return labels + lesions

    @cached_property
    def position(self) -> dict[tuple[str, str], int]:
        return {(column.scheme, column.key): number for number, column in enumerate(self.columns)}

    @property
    def has_lesions(self) -> bool:
        return any(entry.kind == LESIONS for entry in self.entries)

    def add(self, entry: Entry, numbers: Floats) -> None:
        self.entries.append(entry)
        self.rows.append(numbers)

    def numbers_of_volumes(self, volumes: Table) -> Floats:
        """Volumes in mL from a volumes table; raises ``ValueError`` for cells that are no numbers."""
        return self._numbers(volumes.cells("scheme", "index", "volume_mm3"))

    def numbers_of_lesions(self, loads: Table) -> Floats:
        """Volumes in mL, and counts, from a table of lesion loads."""
        numbers = self._numbers(loads.cells("level", "name", "volume_mm3"))
        for level, name, count in loads.cells("level", "name", "count"):
            if level in ("total", "zone") and ("count", name) in self.position:
                numbers[self.position["count", name]] = as_number(count)
        return numbers

    def add_changes(self, participant: str, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Numbers of lesions by status of the participant's later sessions, whose lesions have been added before."""
        last = range(len(self.entries) - 1, -1, -1)
        for number in takewhile(lambda n: self.entries[n].participant == participant, last):
            entry = self.entries[number]
            if entry.kind == LESIONS and entry.session in counts:
                for status, count in counts[entry.session].items():
                    self.rows[number][self.position["change", status]] = count

    def _numbers(self, cells: Iterable[tuple[str, ...]]) -> Floats:
        """From (scheme, key, volume in mm3)."""
        numbers = np.full(len(self.columns), np.nan, np.float32)
        position = self.position
        for scheme, key, volume_mm3 in cells:
            if (scheme, key) in position:
                numbers[position[scheme, key]] = as_number(volume_mm3) / 1000
        return numbers


@dataclass(frozen=True)
class Distribution:
    """Where the values of every column lie; nan for columns without values."""

    percentiles: NDArray[np.float64]
    "(percentiles, columns)"
    spread: NDArray[np.float64]
    "(columns,) the standard deviation of a normal distribution with the same median absolute deviation."

    def z(self, values: NDArray[Any]) -> Floats:
        """Robust z-scores (entries, columns); nan where too few values tell what is usual."""
        median = self.percentiles[PERCENTILES.index(50)]
        enough = np.isfinite(values).sum(0) >= ENOUGH
        spread = np.where(enough & (self.spread > 0), self.spread, np.nan)
        scores: Floats = ((values - median) / spread).astype(np.float32)
        return scores


@dataclass(frozen=True)
class Statistics:
    """How the entries of one kind are distributed."""

    ml: Distribution
    share: Distribution
    "Volume over intracranial volume, in percent."
    z: Floats
    "(entries, columns) of the shares; of the volumes of lesions."


def as_number(cell: str | None) -> float:
    """nan for n/a and for what is missing; raises ``ValueError`` for what is no number."""
    return float(cell) if cell not in (None, "", "n/a") else math.nan


def write_group_page(path: Path, cohort: Cohort, problems: Sequence[str], frequency: FrequencyView | None) -> None:
    """Write the page, whole or not at all."""
    volumes = np.stack(cohort.rows)
    intracranial = np.array([entry.intracranial_ml for entry in cohort.entries])[:, None]
    kinds = sorted({entry.kind for entry in cohort.entries}, key=lambda kind: (kind == LESIONS, kind))
    members = {kind: np.array([e.kind == kind for e in cohort.entries]) for kind in kinds}
    statistics = {kind: statistics_of(volumes[m], intracranial[m], kind == LESIONS) for kind, m in members.items()}
    z = np.full(volumes.shape, np.nan, np.float32)
    for kind, member in members.items():
        z[member] = statistics[kind].z
    z[:, [column.scheme in COUNTED for column in cohort.columns]] = np.nan
    shown = shown_entries([entry.participant for entry in cohort.entries], z, SHOWN_SCANS)
    write_page(
        path,
        "group.html",
        version=__version__,
        participants=len({entry.participant for entry in cohort.entries}),
        counts=Counter(entry.kind for entry in cohort.entries),
        verdicts=tally(verdict_of(entry.quality) for entry in cohort.entries),
        outliers=outliers(cohort, z),
        outlying=OUTLYING,
        left_out=len(cohort.entries) - len(shown),
        problems=problems,
        followed=any(np.isfinite(row[cohort.position["change", STATUSES[0]]]) for row in cohort.rows),
        data=script_data(cohort, kinds, statistics, shown, visit_numbers(path.parent, cohort.entries)),
        matrix=matrix(volumes[shown]),
        frequency=frequency,
    )


def statistics_of(volumes: Floats, intracranial_ml: NDArray[np.float64], is_lesions: bool) -> Statistics:
    """Percentiles and robust z-scores of one kind; (entries, columns) and (entries, 1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = 100 * volumes / intracranial_ml
    ml, share = distribution(volumes), distribution(shares)
    return Statistics(ml, share, ml.z(volumes) if is_lesions else share.z(shares))


def distribution(values: NDArray[Any]) -> Distribution:
    """Of the finite values (entries, columns), column by column."""
    found = np.full((len(PERCENTILES), values.shape[1]), np.nan)
    spread = np.full(values.shape[1], np.nan)
    for column in np.flatnonzero(np.isfinite(values).any(0)):
        finite = values[np.isfinite(values[:, column]), column]
        found[:, column] = np.percentile(finite, PERCENTILES)
        spread[column] = np.median(np.abs(finite - np.median(finite))) / 0.6745
    return Distribution(found, spread)


def worst(z: Floats) -> Floats:
    """The largest |z| of each entry; 0 where there is none."""
    largest: Floats = np.nan_to_num(np.abs(z), nan=0).max(1, initial=0)
    return largest


def shown_entries(participants: Sequence[str], z: Floats, at_most: int) -> NDArray[np.intp]:
    """The entries to draw: all, or those of the participants that stand out most, who keep all their visits."""
    if len(z) <= at_most:
        return np.arange(len(z))
    _, who = np.unique(np.array(participants), return_inverse=True)
    farthest = np.zeros(int(who.max()) + 1)
    np.maximum.at(farthest, who, worst(z))
    order = np.lexsort((who, -farthest[who]))
    return np.sort(order[:at_most])


def outliers(cohort: Cohort, z: Floats) -> list[dict[str, Any]]:
    """The entries that stand out, the worst first."""
    largest = worst(z)
    order = [number for number in np.argsort(-largest, kind="stable")[:LISTED] if largest[number] > OUTLYING]
    rows = []
    for number in order:
        entry, scores = cohort.entries[number], np.nan_to_num(z[number], nan=0)
        column = int(np.abs(scores).argmax())
        rows.append(
            {
                "entry": entry,
                "count": int((np.abs(scores) > OUTLYING).sum()),
                "name": cohort.columns[column].name,
                "scheme": cohort.columns[column].scheme,
                "z": float(scores[column]),
                "volume_ml": float(cohort.rows[number][column]),
            }
        )
    return rows


def matrix(volumes: Floats) -> dict[str, Any]:
    """Volumes as base64 of gzipped 16-bit steps of each column's maximum, columns after one another; 0 is missing."""
    largest = np.nan_to_num(volumes, nan=0).max(0, initial=0)
    scale = np.where(largest > 0, largest, 1) / STEPS
    steps = np.where(np.isfinite(volumes), np.rint(volumes / scale) + 1, 0).astype("<u2")
    packed = gzip.compress(np.ascontiguousarray(steps.T).tobytes(), 6, mtime=0)
    return {"text": base64.b64encode(packed).decode("ascii"), "scale": [float(f"{step:.6g}") for step in scale]}


def script_data(
    cohort: Cohort,
    kinds: Sequence[str],
    statistics: Mapping[str, Statistics],
    shown: NDArray[np.intp],
    visits: Sequence[int],
) -> dict[str, Any]:
    """Tables for the page's script; ``visits`` by entry, the others by kind or by number of the entry."""
    entries = [cohort.entries[number] for number in shown]
    return {
        "columns": [[column.scheme, column.key, column.name, column.color] for column in cohort.columns],
        "kinds": list(kinds),
        "counted": COUNTED,
        "percentiles": PERCENTILES,
        "statistics": {
            kind: {"ml": rounded(found.ml), "share": rounded(found.share)} for kind, found in statistics.items()
        },
        "entries": [
            [e.participant, kinds.index(e.kind), visits[n], finite(e.intracranial_ml), e.scan, e.anchor]
            for n, e in zip(shown, entries, strict=True)
        ],
    }


def finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def rounded(found: Distribution) -> list[list[float] | None]:
    """By column, its percentiles and then its spread; None for a column without values."""
    table = np.vstack([found.percentiles, found.spread]).T
    return [[float(f"{value:.4g}") for value in column] if np.isfinite(column).all() else None for column in table]


def visit_numbers(out_dir: Path, entries: Sequence[Entry]) -> list[int]:
    """Place of each entry's session among its participant's, from 0: see ``bids.names.in_time``."""
    sessions: dict[str, set[str]] = {}
    for entry in entries:
        sessions.setdefault(entry.participant, set()).add(entry.session.removeprefix("ses-"))
    order = {who: in_time(out_dir, who.removeprefix("sub-"), found) for who, found in sessions.items()}
    return [order[entry.participant].index(entry.session.removeprefix("ses-")) for entry in entries]
