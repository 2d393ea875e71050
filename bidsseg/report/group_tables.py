"""All participants together: tidy tables, and a page that shows who stands out.

Scans are read one after the other and written on at once, so that the tables cost no memory; only the numbers that the
page shows are kept.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bidsseg.bids.dataset import NothingSelected
from bidsseg.errors import plain
from bidsseg.files import harmless, json_content, whole, write_json
from bidsseg.lesions.changes import CHANGE_COLUMNS, STATUSES
from bidsseg.lesions.tables import LOAD_COLUMNS
from bidsseg.report.group import LESIONS, Cohort, Entry, write_group_page
from bidsseg.segmentation.volumes import VOLUME_COLUMNS

NA = "n/a"
QC_ENDING, VOLUMES_ENDING, LOADS_ENDING = "_qc.json", "_volumes.tsv", "_desc-lesionload_lesions.tsv"
CHANGES_ENDING = "_desc-lesionchangesummary_lesions.json"
ID_COLUMNS = {
    "participant_id": {"Description": "Participant, as in participants.tsv."},
    "session_id": {"Description": "Session; n/a where the dataset has none."},
    "suffix": {"Description": "Kind of image, for instance T1w or FLAIR; n/a for tables of lesions."},
    "scan": {"Description": "Name of the source image, without its extension; for lesions that of their table."},
}
NOT_COLUMNS = ("Outputs", "SourceBytes", "SourceStartSHA256", "Sources", "LabelSchemes", "OutputSpaces")
"Keys of quality files that say nothing about quality."
QC_DESCRIPTIONS = {
    "IntracranialVolumeMm3": {"Description": "Volume of brain and surrounding fluid.", "Units": "mm^3"},
    "CerebralAsymmetry": {"Description": "Left less right cerebrum, over both."},
    "MeanConfidence": {"Description": "Mean probability of the chosen labels over the brain."},
    "EdgeFraction": {"Description": "Largest share of brain on a face of the field of view."},
    "ExpectedDice": {"Description": "Dice with a manual outline to be expected, mean over the regions."},
    "ReachableDice": {"Description": "Dice that scans of this kind (slices, contrast, field of view) reach."},
    "LayoutDistanceMm": {
        "Description": "Distance of regions from their usual places relative to each other.",
        "Units": "mm",
    },
    "WhiteMatterUnevenness": {
        "Description": "Variation of white matter over a few mm, of the brain's grey values 0-1."
    },
    "ContrastAgreement": {"Description": "Mean Dice with the session's answers from other contrasts."},
    "Verdict": {"Description": "pass, check or fail."},
    "Reasons": {"Description": "Reasons of the verdict, separated by semicolons."},
    "Warnings": {"Description": "What was noticed, separated by semicolons."},
    "SoftwareVersion": {"Description": "Version of bidsseg."},
    "Model": {"Description": "Name of the network's weights."},
    "WeightsSHA256": {"Description": "Checksum of the network's weights."},
    "BiasFieldCorrection": {"Description": "Whether N4 was applied."},
}


@dataclass(frozen=True)
class Source:
    """A file with results, and whose they are."""

    path: Path
    participant: str
    session: str
    suffix: str
    scan: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        return self.participant, self.session, self.suffix, self.scan


@dataclass(frozen=True)
class Gathered:
    """What has been read so far."""

    cohort: Cohort
    quality: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    "Participants whose lesions were followed."


def run(out_dir: Path) -> None:
    """Write group_volumes.tsv, group_qc.tsv, group_lesions.tsv, group_lesionchanges.tsv (each with its data dictionary)
    and group.html.

    Raises ``NothingSelected`` where no scan has been segmented. What cannot be read is left out, and told.
    """
    gathered = Gathered(Cohort())
    with ExitStack() as files:
        volumes = _open_table(files, out_dir / "group_volumes.tsv", VOLUME_COLUMNS)
        lesions = _open_table(files, out_dir / "group_lesions.tsv", LOAD_COLUMNS)
        changes = _open_table(files, out_dir / "group_lesionchanges.tsv", CHANGE_COLUMNS)
        for source in sources(out_dir):
            with _told(gathered, source):
                if source.path.name.endswith(QC_ENDING):
                    _add_scan(gathered, source, volumes)
                elif source.path.name.endswith(CHANGES_ENDING):
                    _add_changes(gathered, source, changes)
                else:
                    _add_lesions(gathered, source, lesions)
        if not gathered.quality:
            raise NothingSelected(f"{out_dir}: no segmented scan; run the participant level first")
    if not gathered.cohort.has_lesions:
        (out_dir / "group_lesions.tsv").unlink()
    if not gathered.changes:
        (out_dir / "group_lesionchanges.tsv").unlink()
    _write_quality(out_dir / "group_qc.tsv", gathered.quality)
    _write_dictionaries(out_dir, gathered)
    write_group_page(out_dir / "group.html", gathered.cohort, gathered.problems)
    for problem in gathered.problems:
        print(f"warning: {plain(problem)}", file=sys.stderr)


def sources(out_dir: Path) -> Iterator[Source]:
    """All quality files and tables of lesion loads, by participant, session and name; then changes of lesions."""
    for participant in sorted(path for path in out_dir.glob("sub-*") if path.is_dir()):
        for folder in sorted([participant / "anat", *participant.glob("ses-*/anat")]):
            names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            for name in names:
                if name.endswith((QC_ENDING, LOADS_ENDING)) and not name.startswith("."):
                    yield source_of(folder / name)
        for path in sorted(participant.glob(f"sub-*{CHANGES_ENDING}")):
            yield Source(path, participant.name, NA, NA, path.name.removesuffix(CHANGES_ENDING))


def source_of(path: Path) -> Source:
    """Whose results a file holds, from its name."""
    is_scan = path.name.endswith(QC_ENDING)
    stem, _, suffix = path.name.removesuffix(QC_ENDING).rpartition("_desc-") if is_scan else ("", "", NA)
    scan = f"{stem}_{suffix}" if is_scan else path.name.removesuffix(LOADS_ENDING)
    entities = dict(part.split("-", 1) for part in scan.split("_") if "-" in part)
    session = f"ses-{entities['ses']}" if "ses" in entities else NA
    return Source(path, f"sub-{entities.get('sub', NA)}", session, suffix, scan)


@contextmanager
def _told(gathered: Gathered, source: Source) -> Iterator[None]:
    """Turns a file that cannot be read into a line among the problems."""
    try:
        yield
    except Exception as error:  # whatever one participant's files hold, the others are gathered
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        gathered.problems.append(f"{source.scan}: left out ({why})")


def _open_table(files: ExitStack, path: Path, columns: Iterable[str]) -> TextIO:
    temporary = files.enter_context(whole(path))
    handle = files.enter_context(temporary.open("w", encoding="utf-8", newline=""))
    handle.write("\t".join([*ID_COLUMNS, *columns]) + "\n")
    return handle


def _add_scan(gathered: Gathered, source: Source, table: TextIO) -> None:
    """One scan: its volumes go to the table and the page, its quality waits until all columns are known."""
    quality = json_content(source.path)
    if not isinstance(quality, dict):
        raise ValueError("the quality file is not a JSON object")
    volumes = source.path.with_name(source.path.name.removesuffix(QC_ENDING) + VOLUMES_ENDING)
    rows = rows_of(volumes, list(VOLUME_COLUMNS))
    entry = Entry(*source.cells, anchor=source.path.name.removesuffix(QC_ENDING), quality=told(quality))
    numbers = gathered.cohort.numbers_of_volumes(rows)
    _write_rows(table, source, rows)
    gathered.cohort.add(entry, numbers)
    gathered.quality.append({**dict(zip(ID_COLUMNS, source.cells, strict=True)), **entry.quality})


def _add_lesions(gathered: Gathered, source: Source, table: TextIO) -> None:
    rows = rows_of(source.path, list(LOAD_COLUMNS))
    numbers = gathered.cohort.numbers_of_lesions(rows)
    _write_rows(table, source, rows)
    participant, session, _, scan = source.cells
    gathered.cohort.add(Entry(participant, session, LESIONS, scan, anchor="lesions", quality={}), numbers)


def _add_changes(gathered: Gathered, source: Source, table: TextIO) -> None:
    """Changes of a participant's lesions from session to session."""
    content = json_content(source.path)
    path = source.path.with_name(source.scan + "_desc-lesionchanges_lesions.tsv")
    rows = rows_of(path, list(CHANGE_COLUMNS))
    counts = {
        f"ses-{interval['After']}": {status: int(interval[status]) for status in STATUSES}
        for interval in content["Intervals"]
    }
    _write_rows(table, source, rows)
    gathered.cohort.add_changes(source.participant, counts)
    gathered.changes.append(source.participant)


def _write_rows(table: TextIO, source: Source, rows: list[list[str]]) -> None:
    prefix = "\t".join(source.cells)
    table.writelines(f"{prefix}\t" + "\t".join(map(harmless, row)) + "\n" for row in rows)


def rows_of(path: Path, columns: list[str]) -> list[list[str]]:
    """The cells of a table in the order of ``columns``, n/a for a column it lacks."""
    text = path.read_text(encoding="utf-8")
    header, _, body = text.partition("\n")
    if header.split("\t") != columns:
        found = csv.DictReader(io.StringIO(text), delimiter="\t")
        return [[row.get(column) or NA for column in columns] for row in found]
    rows = [line.split("\t") for line in body.replace("\r", "").split("\n") if line]
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"{path.name} has rows of another length than its header")
    return rows


def told(quality: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a quality file: numbers and words as they are, lists as one line."""
    cells = {}
    for key, value in quality.items():
        if key in NOT_COLUMNS or isinstance(value, dict):
            continue
        text = "; ".join(map(str, value)) if isinstance(value, list) else str(value)
        cells[harmless(key)] = harmless(text) or NA
    return cells


def _write_quality(path: Path, rows: list[dict[str, str]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        handle.write("\t".join(columns) + "\n")
        handle.writelines("\t".join(row.get(column, NA) for column in columns) + "\n" for row in rows)


def _write_dictionaries(out_dir: Path, gathered: Gathered) -> None:
    """A JSON data dictionary beside each table."""
    volumes = {name: {"Description": text} for name, text in VOLUME_COLUMNS.items()}
    write_json(out_dir / "group_volumes.json", {**ID_COLUMNS, **volumes})
    keys = dict.fromkeys(key for row in gathered.quality for key in row if key not in ID_COLUMNS)
    described = {key: QC_DESCRIPTIONS.get(key, {"Description": f"{key} of the scan's quality file."}) for key in keys}
    write_json(out_dir / "group_qc.json", {**ID_COLUMNS, **described})
    if gathered.cohort.has_lesions:
        write_json(out_dir / "group_lesions.json", {**ID_COLUMNS, **LOAD_COLUMNS})
    else:
        (out_dir / "group_lesions.json").unlink(missing_ok=True)
    if gathered.changes:
        write_json(out_dir / "group_lesionchanges.json", {**ID_COLUMNS, **CHANGE_COLUMNS})
    else:
        (out_dir / "group_lesionchanges.json").unlink(missing_ok=True)
