"""Tidy tables of all participants, and the page that shows who stands out.

Scans are read one after the other and written on at once, so that the tables cost no memory; only the numbers that the
page shows are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bidsseg.bids.dataset import NothingSelected
from bidsseg.bids.names import entities_in
from bidsseg.bids.outputs import (
    TOGETHER,
    LesionOutputs,
    ParticipantOutputs,
    ScanOutputs,
    finished_scans,
    participants,
)
from bidsseg.bids.participant_groups import Groups
from bidsseg.errors import FileError, UserError, named, plain, some_of
from bidsseg.files import NA, Table, harmless, json_content, read_json, read_table, whole, write_json
from bidsseg.lesions.changes import CHANGE_COLUMNS, STATUSES
from bidsseg.lesions.tables import LOAD_COLUMNS
from bidsseg.quality.verdicts import judged
from bidsseg.report.frequency_view import frequency_view
from bidsseg.report.group import LESIONS, Cohort, Entry, write_group_page
from bidsseg.report.lesion_frequency import refuse_changed_maps, write_frequency_maps
from bidsseg.segmentation.volumes import VOLUME_COLUMNS

ID_COLUMNS = {
    "participant_id": {"Description": "Participant, as in participants.tsv."},
    "session_id": {"Description": "Session; n/a where the dataset has none."},
    "suffix": {"Description": "Kind of image, for instance T1w or FLAIR; n/a for tables of lesions."},
    "scan": {"Description": "Name of the source image, without its extension; for lesions that of their table."},
}
NO_GROUPS = Groups()
NOT_COLUMNS = ("Outputs", "SourceBytes", "SourceStartSHA256", "Sources", TOGETHER, "LabelSchemes", "OutputSpaces")
"Keys of quality files that say nothing about quality."
QC_DESCRIPTIONS = {
    "IntracranialVolumeMm3": {"Description": "Volume of brain and surrounding fluid.", "Units": "mm^3"},
    "BrainParenchymalFraction": {"Description": "Brain without fluid over the intracranial volume."},
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
    """Results, and whose they are."""

    found: ScanOutputs | LesionOutputs | ParticipantOutputs
    "Outputs of a scan, of its lesions, or of changes of lesions."
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


def run(out_dir: Path, groups: Groups = NO_GROUPS, overwrite: bool = False) -> None:
    """Write group_volumes.tsv, group_qc.tsv, group_lesions.tsv, group_lesionchanges.tsv (each with its data
    dictionary), maps of lesion frequency where lesions lie in the template's space, and group.html.

    Raises ``NothingSelected`` where no scan has been segmented, ``UserError`` where a map was changed since it was
    written, unless ``overwrite``. What cannot be read is left out with a warning.
    """
    if not overwrite:
        refuse_changed_maps(out_dir, groups)
    gathered = Gathered(Cohort())
    with ExitStack() as files:
        volumes = _open_table(files, out_dir / "group_volumes.tsv", VOLUME_COLUMNS)
        lesions = _open_table(files, out_dir / "group_lesions.tsv", LOAD_COLUMNS)
        changes = _open_table(files, out_dir / "group_lesionchanges.tsv", CHANGE_COLUMNS)
        for source in sources(out_dir):
            with _told(gathered, source):
                if isinstance(source.found, ScanOutputs):
                    _add_scan(gathered, source, source.found, volumes)
                elif isinstance(source.found, LesionOutputs):
                    _add_lesions(gathered, source, source.found, lesions)
                else:
                    _add_changes(gathered, source, source.found, changes)
        if not gathered.quality:
            raise _nothing_in(out_dir, gathered.problems)
    if not gathered.cohort.has_lesions:
        (out_dir / "group_lesions.tsv").unlink()
    if not gathered.changes:
        (out_dir / "group_lesionchanges.tsv").unlink()
    _write_quality(out_dir / "group_qc.tsv", gathered.quality)
    _write_dictionaries(out_dir, gathered)
    maps = write_frequency_maps(out_dir, groups, gathered.problems)
    if groups.column and not maps:
        gathered.problems.append(f"no lesions in the template's space, so there are no maps by {groups.column}")
    write_group_page(out_dir / "group.html", gathered.cohort, gathered.problems, frequency_view(maps))
    for problem in gathered.problems:
        print(f"warning: {plain(problem)}", file=sys.stderr)


def _nothing_in(out_dir: Path, problems: Sequence[str]) -> NothingSelected:
    if problems:
        return NothingSelected(f"{out_dir}: no segmented scan can be read: {some_of(problems, 1)}")
    return NothingSelected(f"{out_dir}: no segmented scan; run the participant level first")


def sources(out_dir: Path) -> Iterator[Source]:
    """Of each participant the scans and their lesions, by session and name; then changes of lesions."""
    for participant in participants(out_dir):
        files: dict[Path, Source] = {}
        for scan in finished_scans(out_dir, participant.subject):
            files[scan.quality] = source_of(scan, scan.scan.stem, scan.scan.suffix)
        for lesions in participant.lesions():
            files[lesions.load_table] = source_of(lesions, lesions.base.name)
        yield from (files[path] for path in sorted(files))
        if participant.changes.exists():
            yield source_of(participant, participant.folder.name)


def source_of(found: ScanOutputs | LesionOutputs | ParticipantOutputs, name: str, suffix: str = NA) -> Source:
    """Whose results they are, from the entities in a name."""
    entities = entities_in(name)
    session = f"ses-{entities['ses']}" if "ses" in entities else NA
    return Source(found, f"sub-{entities.get('sub', NA)}", session, suffix, name)


@contextmanager
def _told(gathered: Gathered, source: Source) -> Iterator[None]:
    """Turns a file that cannot be read into a line among the problems."""
    try:
        yield
    except UserError as error:
        gathered.problems.append(f"{source.scan}: left out: {error}")
    except Exception as error:  # whatever one participant's files hold, the others are gathered
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        gathered.problems.append(f"{source.scan}: left out ({why})")


@contextmanager
def _reading(path: Path, source: Source) -> Iterator[None]:
    """Names the file in which something cannot be read, and how to have it made again."""
    try:
        yield
    except Exception as error:  # nothing but the content of the file is at work here
        again = f"--participant-label {source.participant.removeprefix('sub-')} --overwrite"
        found = f"not readable as {'JSON' if path.suffix == '.json' else 'a table'} ({named(error)[:200]})"
        raise FileError(path, found, f"run the participant level again with {again}") from error


def _open_table(files: ExitStack, path: Path, columns: Iterable[str]) -> TextIO:
    temporary = files.enter_context(whole(path))
    handle = files.enter_context(temporary.open("w", encoding="utf-8", newline=""))
    handle.write("\t".join([*ID_COLUMNS, *columns]) + "\n")
    return handle


def _add_scan(gathered: Gathered, source: Source, found: ScanOutputs, table: TextIO) -> None:
    """One scan: its volumes go to the table and the page, its quality waits until all columns are known."""
    with _reading(found.quality, source):
        quality = json_content(found.quality)
        if not isinstance(quality, dict):
            raise ValueError("not a JSON object")
    with _reading(found.volumes, source):
        volumes = read_table(found.volumes, list(VOLUME_COLUMNS))
        numbers = gathered.cohort.numbers_of_volumes(volumes)
    entry = Entry(
        *source.cells, anchor=found.anchor, quality=quality_cells(judged(quality, read_json(found.agreement)))
    )
    _write_rows(table, source, volumes)
    gathered.cohort.add(entry, numbers)
    gathered.quality.append({**dict(zip(ID_COLUMNS, source.cells, strict=True)), **entry.quality})


def _add_lesions(gathered: Gathered, source: Source, found: LesionOutputs, table: TextIO) -> None:
    with _reading(found.load_table, source):
        loads = read_table(found.load_table, list(LOAD_COLUMNS))
        numbers = gathered.cohort.numbers_of_lesions(loads)
    _write_rows(table, source, loads)
    participant, session, _, scan = source.cells
    gathered.cohort.add(Entry(participant, session, LESIONS, scan, anchor="lesions", quality={}), numbers)


def _add_changes(gathered: Gathered, source: Source, found: ParticipantOutputs, table: TextIO) -> None:
    """Changes of a participant's lesions from session to session."""
    with _reading(found.changes, source):
        counts = {
            f"ses-{interval['After']}": {status: int(interval[status]) for status in STATUSES}
            for interval in json_content(found.changes)["Intervals"]
        }
    with _reading(found.changes_table, source):
        changes = read_table(found.changes_table, list(CHANGE_COLUMNS))
    _write_rows(table, source, changes)
    gathered.cohort.add_changes(source.participant, counts)
    gathered.changes.append(source.participant)


def _write_rows(table: TextIO, source: Source, found: Table) -> None:
    prefix = "\t".join(source.cells)
    table.writelines(f"{prefix}\t" + "\t".join(map(harmless, row)) + "\n" for row in found.rows)


def quality_cells(quality: Mapping[str, Any]) -> dict[str, str]:
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
