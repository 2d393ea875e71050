"""The volumes of a participant's sessions side by side in the order of time: a table, from the derivatives on disk.

Compared are scans whose names differ in nothing but the session: another contrast or protocol has other errors, and a
difference between two of them is no change.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bidsseg.authorship import is_ours
from bidsseg.bids.outputs import ParticipantOutputs, ScanOutputs, finished_scans, sidecar_of
from bidsseg.bids.session_order import in_time, session_times, sessions_table
from bidsseg.files import read_json, read_tsv, table, write_json, write_text
from bidsseg.labels import SCHEMES, is_fluid
from bidsseg.quality.verdicts import judged, verdict_of

BRAIN, BRAIN_INDEX, PARENCHYMA = "brain", "0", "brain-parenchyma"
"Scheme, number and name of the row about the brain without its fluid."
MEASURED = ("volume_mm3", "fraction_of_intracranial")
DAYS_A_YEAR = 365.25
RESCAN_TABLE = "rescan_errors.tsv"
"""How much volumes differ between two scans of one person when nothing has changed, written by benchmarks/rescan.py."""
THIN_MM, THICK_MM = 1.0, 5.0
"Slices that the table was measured on."
WITHIN_ERROR = 1.96 / 0.6745
"Limit of 95 % of normally distributed differences, over the median of their absolute values."

COLUMNS: dict[str, dict[str, Any]] = {
    "contrast": {"Description": "What the names of the compared scans have in common, without participant and session"},
    "scheme": {
        "Description": "Which division of the brain the row belongs to",
        "Levels": {
            **{scheme: f"a label of the {scheme}" for scheme in SCHEMES},
            BRAIN: "brain-parenchyma: the brain without ventricles and other cerebrospinal fluid; its fraction of the "
            "intracranial volume is the brain parenchymal fraction",
        },
    },
    "index": {"Description": "The label's number in the segmentation image; 0 for brain-parenchyma"},
    "name": {"Description": "The label's name"},
    "hemisphere": {"Description": "L or R; n/a on the midline"},
    "session_id": {"Description": "Session; those of one label follow each other in the order of time"},
    "acq_time": {"Description": "When the session was, from the table of sessions"},
    "years": {"Description": "Time since the first session of this contrast", "Units": "year"},
    "verdict": {"Description": "pass, check or fail: how far the labels of this scan can be trusted"},
    "volume_mm3": {"Description": "Volume", "Units": "mm^3"},
    "fraction_of_intracranial": {"Description": "Volume over that of brain and surrounding CSF together"},
    "change_percent": {"Description": "Change of the volume since the first session", "Units": "percent"},
    "change_percent_per_year": {"Description": "The same over the years since then", "Units": "percent/year"},
    "fraction_change_percent": {
        "Description": "Change of fraction_of_intracranial since the first session, as a share of what it was",
        "Units": "percent",
    },
    "fraction_change_percent_per_year": {
        "Description": "The same over the years since then",
        "Units": "percent/year",
    },
    "rescan_error_percent": {
        "Description": "Median difference of this label's volume between two scans of one person when nothing has "
        "changed, at the thickest slices of the compared scans; measured on simulated scans, so that another scanner "
        "or protocol adds to it",
        "Units": "percent",
    },
    "exceeds_error": {
        "Description": f"yes where change_percent is more than {WITHIN_ERROR:.1f} times rescan_error_percent either "
        "way, within which 95 % of differences lie if errors are normally distributed; else no"
    },
}


@dataclass(frozen=True)
class Visit:
    """The volumes of one scan of a series."""

    session: str
    "Without ses-."
    time: str
    "Empty where it is not known of every session of the series."
    verdict: str
    slice_mm: float
    rows: Mapping[tuple[str, str], Mapping[str, str]]
    "By scheme and number, as in the volumes table; and the brain without fluid."


def series_of(out: Path, subject: str) -> dict[str, list[ScanOutputs]]:
    """The scans of each contrast of which there are several, in the order of time, by what their names share."""
    found: dict[str, dict[str, ScanOutputs]] = {}
    for place in finished_scans(out, subject):
        if place.scan.session is not None:
            shared = [f"{key}-{value}" for key, value in place.scan.entities if key not in ("sub", "ses")]
            found.setdefault("_".join([*shared, place.scan.suffix]), {})[place.scan.session] = place
    return {
        contrast: [by_session[session] for session in in_time(out, subject, by_session)]
        for contrast, by_session in sorted(found.items())
        if len(by_session) > 1
    }


def write_volumes_over_time(out: Path, subject: str) -> None:
    """Write the table of a participant, and what describes its columns; remove those of sessions that are gone."""
    path = ParticipantOutputs(out, subject).volumes_over_time
    rows = [row for contrast, places in series_of(out, subject).items() for row in rows_of(contrast, visits_of(places))]
    if rows:
        write_json(sidecar_of(path), COLUMNS)
        write_text(path, table(tuple(COLUMNS), rows))
        return
    for old in (path, sidecar_of(path)):
        if is_ours(old, [tuple(COLUMNS)]):
            old.unlink()


def visits_of(places: Sequence[ScanOutputs]) -> list[Visit]:
    """The scans of a series whose volumes can be read."""
    out, subject = places[0].out, places[0].scan.subject
    times = session_times(sessions_table(out, subject))
    known = all(days_of(times.get(place.scan.session or "", "")) is not None for place in places)
    found = []
    for place in places:
        session = place.scan.session or ""
        try:
            rows = {(row["scheme"], row["index"]): row for row in read_tsv(place.volumes)}
            rows = {(BRAIN, BRAIN_INDEX): parenchyma(rows), **rows}
        except (OSError, ValueError, KeyError, csv.Error):  # the scan's own section of the page tells of it
            continue
        verdict = verdict_of(judged(read_json(place.quality), read_json(place.agreement)))
        found.append(Visit(session, times[session] if known else "", verdict, slice_mm_of(place), rows))
    return found


def slice_mm_of(place: ScanOutputs) -> float:
    """The longest side of a scan's voxels; that of thick slices where its label images cannot be read."""
    from bidsseg.imaging.affines import voxel_spacing_mm  # and nibabel, which a run with nothing to do starts without
    from bidsseg.imaging.image import read_geometry

    labels = next((path for path in map(place.labels, SCHEMES) if path.exists()), None)
    geometry = read_geometry(labels) if labels else None
    return float(voxel_spacing_mm(geometry[1]).max()) if geometry else THICK_MM


def parenchyma(rows: Mapping[tuple[str, str], Mapping[str, str]]) -> dict[str, str]:
    """The brain without fluid as one row, from the labels of any one scheme; raises ``ValueError`` without labels."""
    schemes = [scheme for scheme in SCHEMES if any(scheme == known for known, _ in rows)]
    if not schemes:
        raise ValueError("no volumes")
    solid = [row for (of, index), row in rows.items() if of == schemes[0] and not is_fluid(schemes[0], int(index))]
    sums = {name: sum(float(row[name]) for row in solid) for name in MEASURED}
    numbers = {name: str(round(value, 6)) for name, value in sums.items()}
    return {"scheme": BRAIN, "index": BRAIN_INDEX, "name": PARENCHYMA, "hemisphere": "", **numbers}


def rows_of(contrast: str, visits: Sequence[Visit]) -> Iterator[tuple[Any, ...]]:
    """The rows of one contrast, by label and then by session; none of a single visit."""
    if len(visits) < 2:
        return
    first, slice_mm = visits[0], max(visit.slice_mm for visit in visits)
    for key, before in first.rows.items():
        error = rescan_error(*key, slice_mm)
        for visit in (visit for visit in visits if key in visit.rows):
            now, years = visit.rows[key], years_between(first.time, visit.time)
            label = (now["scheme"], now["index"], now["name"], now["hemisphere"])
            when = (f"ses-{visit.session}", visit.time, round(years, 3), visit.verdict)
            changes = ("",) * 4 if visit is first else changes_of(before, now, years)
            beyond = "" if visit is first else exceeds(float(changes[0]), error)
            yield (contrast, *label, *when, *(now[name] for name in MEASURED), *changes, round(error, 2), beyond)


def changes_of(before: Mapping[str, str], now: Mapping[str, str], years: float) -> tuple[float, ...]:
    """Of the volume, also per year, and of its share of the intracranial volume, also per year; in percent."""
    percents = [change(before, now, column) for column in MEASURED]
    return tuple(round(value, 2) for percent in percents for value in (percent, per_year(percent, years)))


def change(before: Mapping[str, str], now: Mapping[str, str], column: str) -> float:
    """In percent; nan where there was nothing before."""
    return 100 * (float(now[column]) / float(before[column]) - 1) if float(before[column]) else math.nan


def per_year(percent: float, years: float) -> float:
    return percent / years if years > 0 else math.nan


def exceeds(percent: float, error: float) -> str:
    """Whether a change is larger than what scanning again does."""
    return "" if math.isnan(percent - error) else "yes" if abs(percent) > WITHIN_ERROR * error else "no"


def rescan_error(scheme: str, index: str, slice_mm: float) -> float:
    """The median difference of a label, in percent, between those of thin and thick slices; nan if not measured."""
    thin, thick = rescan_errors().get((scheme, index), (math.nan, math.nan))
    share = min(max((slice_mm - THIN_MM) / (THICK_MM - THIN_MM), 0), 1)
    return thin + share * (thick - thin)


@cache
def rescan_errors() -> dict[tuple[str, str], tuple[float, float]]:
    """Medians at thin and thick slices by scheme and index, 0 for the brain without fluid."""
    text = (files("bidsseg") / "tables" / RESCAN_TABLE).read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return {(row["scheme"], row["index"]): (float(row["thin_percent"]), float(row["thick_percent"])) for row in rows}


def years_between(first: str, now: str) -> float:
    """Between two times as BIDS writes them, by their days; nan where one is not known."""
    days = days_of(first), days_of(now)
    return (days[1] - days[0]) / DAYS_A_YEAR if days[0] is not None and days[1] is not None else math.nan


def days_of(time: str) -> int | None:
    try:
        return date.fromisoformat(time[:10]).toordinal()
    except ValueError:
        return None
