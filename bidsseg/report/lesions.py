"""The lesions on a participant's page, read from the files on disk: findings, zones, tables and changes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidsseg.bids.completeness import listed
from bidsseg.bids.names import entities_in
from bidsseg.bids.outputs import LesionOutputs, ParticipantOutputs
from bidsseg.bids.session_order import in_time
from bidsseg.files import read_json, read_tsv
from bidsseg.lesions.changes import STATUSES
from bidsseg.lesions.records import FOUND, load_in_words
from bidsseg.lesions.zones import MCDONALD_SITES, ZONES
from bidsseg.report.lesion_mosaic import ZONE_COLORS

LESION_ROWS = 100
COLUMNS = {
    "part": "Part",
    "lesion": "Lesion",
    "level": "Level",
    "name": "Name",
    "session_before": "From",
    "session_after": "To",
    "status": "Change",
    "count": "Count",
    "volume_mm3": "Volume, mm³",
    "volume_before_mm3": "Before, mm³",
    "volume_after_mm3": "After, mm³",
    "fraction_of_region": "Share of region",
    "long_axis_mm": "Long axis, mm",
    "zone": "Zone",
    "contacts": "Touches",
    "main_region": "Main region",
    "dist_ventricle_mm": "To ventricle, mm",
    "dist_cortex_mm": "To cortex, mm",
    "relative_intensity": "Grey value",
    "parts": "Parts",
}
"Columns of lesion tables that the page shows."
TITLES = {
    "lesions": "each lesion",
    "lesionparts": "parts of lesions",
    "lesionload": "load by zone and lobe",
    "lesionchanges": "changes",
}


@dataclass(frozen=True)
class LesionRow:
    """A row of a table of lesions, and where in the viewer its lesion lies."""

    cells: list[str]
    lesion: str = ""
    "Number of the lesion; empty in rows that have no place."
    centre_mm: str = ""
    "RAS, three numbers with spaces between."


@dataclass(frozen=True)
class LesionTable:
    """A table of lesions, cut to what a page can hold."""

    title: str
    path: str
    header: list[str]
    rows: list[LesionRow]
    left_out: int
    is_list: bool
    "Whether it holds each lesion of a session."


@dataclass(frozen=True)
class ZoneRow:
    """The lesions and parts of lesions of one zone."""

    name: str
    color: str
    count: str
    touching: str
    "Lesions that touch the zone."
    parts: str
    "Empty in results of versions that knew no parts; the volumes are then those of whole lesions."
    volume_ml: str
    percent: str
    largest_mm3: str


@dataclass(frozen=True)
class SessionLesions:
    """One session's lesions."""

    title: str
    base: str
    "Beginning of the names of its files."
    mask: str
    how: str
    "What kind of mask it is, and how lesions were separated."
    findings: str
    warnings: list[str]
    zones: list[ZoneRow]
    tables: list[LesionTable]
    figure: str
    "Path of the picture from the page; empty where there is none."


@dataclass(frozen=True)
class Changes:
    """What became of lesions from session to session."""

    header: list[str]
    rows: list[list[str]]
    table: LesionTable | None


@dataclass(frozen=True)
class Lesions:
    """Everything that the page shows of lesions."""

    sessions: list[SessionLesions]
    changes: Changes | None
    others: list[LesionTable]
    "Tables that nothing here accounts for."
    unmasked: list[str]
    "Titles of sessions no mask was used for."

    @property
    def any(self) -> bool:
        return bool(self.sessions or self.others)


def read_lesions(out_dir: Path, subject: str, sessions: Iterable[str]) -> Lesions:
    """Everything of a participant; ``sessions`` are the labels of all that were segmented, empty for none."""
    participant = ParticipantOutputs(out_dir, subject)
    described = participant.lesions()
    order = in_time(out_dir, subject, map(session_of, described))
    described.sort(key=lambda lesions: (order.index(session_of(lesions)), lesions.base))
    found = [session_lesions(out_dir, lesions) for lesions in described]
    changes = read_changes(participant)
    shown = {table.path for session in found for table in session.tables}
    shown |= {changes.table.path} if changes and changes.table else set()
    tables = (lesion_table(out_dir, path) for path in participant.lesion_tables())
    others = [table for table in tables if table is not None and table.path not in shown]
    masked = {session_of(lesions) for lesions in described}
    unmasked = [f"session {name}" if name else "the only session" for name in sessions if name not in masked]
    return Lesions(found, changes, others, unmasked)


def session_of(lesions: LesionOutputs) -> str:
    """The label of the session; empty without one."""
    return entities_in(lesions.base.name).get("ses", "")


def session_lesions(out_dir: Path, lesions: LesionOutputs) -> SessionLesions:
    """One session, from its summary and tables."""
    content = read_json(lesions.summary)
    paths = [lesions.load_table, lesions.table, lesions.parts_table]
    scan = str(content.get("Scan", ""))
    entities = [part for part in scan.split("_") if "-" in part and not part.startswith(("sub-", "ses-"))]
    session = session_of(lesions)
    title = [f"Session {session}"] * bool(session) + [scan.rpartition("_")[2], *entities]
    figures = (
        path.relative_to(out_dir).as_posix() for path in listed(out_dir, lesions.summary) if path.suffix == ".png"
    )
    return SessionLesions(
        title=" · ".join(filter(None, title)),
        base=lesions.base.name,
        mask=str(content.get("Mask", "unknown")),
        how=_how(content),
        findings=str(content.get("Findings", "")),
        warnings=[str(line) for line in content.get("Warnings", [])],
        zones=zone_rows(lesions.load_table),
        tables=[table for path in paths if (table := lesion_table(out_dir, path)) is not None],
        figure=next((name for name in figures if (out_dir / name).exists()), ""),
    )


def _how(content: Mapping[str, Any]) -> str:
    if content.get("LesionsFrom") == FOUND:
        return f"{_found(content)}; {_counted(content)}"
    kind = {"binary": "binary", "labels": "labelled lesions"}.get(str(content.get("MaskKind")), "")
    if not kind:
        kind = f"probabilities, lesion from {content.get('Threshold', '?')}"
    return f"{kind}; {_counted(content)}"


def _found(content: Mapping[str, Any]) -> str:
    """How the network found the lesions, and how much its load depends on the threshold."""
    told = f"found by the network, threshold {content.get('LesionThreshold', '?')}"
    try:
        least, most = map(float, content["LesionLoadRangeMl"])
        error = content.get("LesionLoadExpectedErrorMl")
        load = load_in_words(float(content["LesionLoadMl"]), None if error is None else float(error))
        return f"{told}; load {load}, {least:.2f} to {most:.2f} at other thresholds"
    except (KeyError, TypeError, ValueError):
        return told


def _counted(content: Mapping[str, Any]) -> str:
    least = (content.get(key, "?") for key in ("MinimumVolumeMm3", "MinimumLongAxisMm", "ContactToleranceMm"))
    volume, axis, gap = least
    return f"components from {volume} mm³; findings from {axis} mm; contact up to {gap} mm"


def zone_rows(loads: Path) -> list[ZoneRow]:
    """McDonald sites, and other zones that hold lesions."""
    try:
        rows = {(row["level"], row["name"]): row for row in read_tsv(loads)}
    except (OSError, ValueError, KeyError, csv.Error):
        return []
    found = []
    for name in (name for level, name in rows if level == "zone"):
        whole, part = rows["zone", name], rows.get(("part", name))
        row = _zone_row(name, whole, part)
        if name in MCDONALD_SITES or any(load["volume_mm3"] not in ("0", "n/a") for load in (whole, part or whole)):
            found.append(row)
    return found


def _zone_row(name: str, whole: Mapping[str, str], part: Mapping[str, str] | None) -> ZoneRow:
    """A row from the loads of lesions and, where there are such, of their parts."""
    volumes = part or whole
    return ZoneRow(
        name.replace("-", " "),
        dict(zip(ZONES, ZONE_COLORS, strict=True)).get(name, "#d0d0d0"),
        whole["count"],
        whole["count_touching"],
        part["count"] if part else "",
        f"{as_number(volumes['volume_mm3']) / 1000:.2f}",
        f"{100 * as_number(volumes['fraction_of_lesions']):.1f}",
        rounded(volumes["largest_mm3"]),
    )


def as_number(cell: str) -> float:
    return 0.0 if cell == "n/a" else float(cell)


def read_changes(participant: ParticipantOutputs) -> Changes | None:
    """Counts from session to session and the table of lesions; None for a single session."""
    intervals = read_json(participant.changes).get("Intervals", [])
    if not intervals:
        return None
    rows = [
        [f"{row.get('Before')} to {row.get('After')}", *(str(row.get(status, "")) for status in STATUSES)]
        for row in intervals
    ]
    table = lesion_table(participant.out, participant.changes_table)
    return Changes(["Sessions", *(status.replace("-", " ") for status in STATUSES)], rows, table)


def lesion_table(out_dir: Path, path: Path) -> LesionTable | None:
    """The first rows and the main columns of a table; None where it is empty or unreadable."""
    try:
        rows = read_tsv(path)
    except (OSError, ValueError, csv.Error):
        return None
    if not rows:
        return None
    worth = [row for row in rows if row.get("level") != "region" and row.get("volume_mm3") != "0"]
    columns = [name for name in COLUMNS if name in rows[0]]
    shown = [lesion_row(row, columns) for row in worth[:LESION_ROWS]]
    title = " · ".join(TITLES.get(part.partition("-")[2], part) for part in path.name.split("_")[1:-1])
    where = path.relative_to(out_dir).as_posix()
    return LesionTable(
        title, where, [COLUMNS[name] for name in columns], shown, len(rows) - len(shown), TITLES["lesions"] in title
    )


def lesion_row(row: Mapping[str, str], columns: Sequence[str]) -> LesionRow:
    """Cells for reading; rows about one lesion or part, in a session's own table, have a place."""
    cells = [rounded(row.get(name)) for name in columns]
    centre = [rounded(row.get(f"centroid_{axis}_mm")) for axis in "xyz"]
    number = row.get("lesion", "")
    return LesionRow(cells, number, " ".join(centre)) if number.isdigit() and all(centre) else LesionRow(cells)


def rounded(cell: str | None) -> str:
    """A table's cell for reading."""
    try:
        number = float(cell or "")
    except ValueError:
        return "" if cell in (None, "n/a") else str(cell).replace(",", ", ")
    return "" if math.isnan(number) else f"{number:.4g}"
