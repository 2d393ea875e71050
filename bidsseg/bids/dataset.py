"""Which scans a BIDS dataset holds. The only user of pybids."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from bidsseg.bids.bidsignore import Ignored, read_bidsignore
from bidsseg.bids.left_out import OTHER_DATATYPES, fits_folder, no_anatomy, overlooked, what_is_wrong
from bidsseg.bids.names import IMAGE_EXTENSIONS, Scan, derivative_name, parse_scan
from bidsseg.errors import UserError, some_of
from bidsseg.files import json_content

DEFAULT_MODALITIES = ("T1w", "FLAIR")
NOT_INDEXED = (
    re.compile(r"^/(code|derivatives|models|sourcedata|stimuli)(/|$)"),
    re.compile(rf"/({'|'.join(OTHER_DATATYPES)})(/|$)"),
    re.compile(r"\.(bval|bvec|json|md|tsv|tsv\.gz|txt)$"),
)
INDEX = "layout_index.sqlite"
"As pybids calls it."
LISTED_AT_MOST = 8
Filters = Mapping[str, Mapping[str, Any]]


class InvalidDataset(UserError):
    """The input folder is not a BIDS dataset."""


class NothingSelected(UserError):
    """The dataset holds no scan of those asked for."""


@dataclass(frozen=True)
class ScanSelection:
    """What to look for in a dataset."""

    participants: tuple[str, ...] = ()
    "Without sub-; all if empty."
    sessions: tuple[str, ...] = ()
    "Without ses-; all if empty."
    modalities: tuple[str, ...] = DEFAULT_MODALITIES
    "File name suffixes."
    filters: Filters = field(default_factory=dict)
    "By lower-case modality, pybids entities that an image must have."
    validate: bool = True
    "Look only at files whose names are valid BIDS, in a dataset with a description."
    database: Path | None = None
    "Folder that keeps the index for the next run."
    not_in: Path | None = None
    "A folder to leave out, where the outputs go."

    @property
    def advice_on_index(self) -> str:
        """What else to do where a scan is not found; an index kept from an earlier run knows no newer files."""
        return f"; if scans are newer than the index, remove {self.database / INDEX}" if self.database else ""


@dataclass(frozen=True)
class Found:
    """The scans of a selection, and what is left out and why."""

    scans: tuple[Scan, ...]
    unusable: tuple[tuple[Path, str], ...] = ()
    "(path, what is wrong with it and what to do)."
    empty_participants: tuple[str, ...] = ()
    "Participants of the selection without any scan of its modalities."
    left_out: tuple[tuple[Path, str], ...] = ()
    "(path, why and what to do) of images that are no scans by their names."


def find_scans(dataset: Path, selection: ScanSelection) -> Found:
    """Every scan of the selection, none averaged, none picked.

    Raises ``InvalidDataset`` for a folder that is not BIDS, ``NothingSelected`` where nothing matches, ``UserError``
    for filters that pybids does not understand.
    """
    check_dataset(dataset, selection)
    closed = [folder for label in _wanted(dataset, selection) for folder in _closed_folders(dataset / f"sub-{label}")]
    try:
        layout = _layout(dataset, selection, closed)
    except RecursionError:  # pybids reads it whether or not names are validated
        path = dataset / "dataset_description.json"
        raise InvalidDataset(f"{path}: nested too deeply; repair it or remove it") from None
    paths = sorted({Path(path) for modality in selection.modalities for path in _query(layout, selection, modality)})
    if not all(path.is_relative_to(dataset) and ".." not in path.parts for path in paths):
        raise UserError(f"{selection.database}: holds the index of another dataset; give another --bids-database-dir")
    ignored = read_bidsignore(dataset)
    there = len(paths)
    paths = [path for path in paths if path.relative_to(dataset).as_posix() not in ignored]
    hidden = f"; .bidsignore excludes {there - len(paths)}" if there > len(paths) else ""
    if selection.not_in is not None:
        paths = [path for path in paths if not path.is_relative_to(selection.not_in)]
    scans, unusable = _parse(paths, dataset)
    scans, no_scans = _anatomies(scans, selection)
    no_scans += _overlooked(dataset, selection, layout, ignored)
    scans, duplicates = _without_duplicates(scans)
    unusable += duplicates + [(folder, "no permission to read this folder; ask for access") for folder in closed]
    if not scans and not unusable:
        where = f" in {some_of([f'sub-{label}' for label in selection.participants])}" if selection.participants else ""
        sessions = f", {some_of([f'ses-{label}' for label in selection.sessions])}" if selection.sessions else ""
        raise NothingSelected(
            f"{dataset}: no {' or '.join(selection.modalities)} image{where}{sessions}; "
            f"check the labels, --modality and --bids-filter-file{selection.advice_on_index}{hidden}"
            + "".join(f"; left out: {path.relative_to(dataset)}: {why}" for path, why in no_scans[:LISTED_AT_MOST])
        )
    seen = {scan.subject for scan in scans} | {_subject_of(path) for path, _ in unusable}
    wanted = [label for label in _wanted(dataset, selection) if f"sub-{label}/" not in ignored]
    empty = tuple(label for label in wanted if label not in seen)
    return Found(tuple(scans), tuple(unusable), empty, tuple(no_scans))


def participants_of(dataset: Path) -> list[str]:
    """Labels of the sub-* folders, sorted, without sub-."""
    return sorted(folder.name[4:] for folder in dataset.glob("sub-*") if folder.is_dir())


def check_dataset(dataset: Path, selection: ScanSelection) -> None:
    """Raise ``InvalidDataset`` or ``NothingSelected`` for what can be told without an index."""
    if not dataset.is_dir():
        raise InvalidDataset(f"{dataset}: not a folder; give the root of a BIDS dataset")
    if selection.validate:
        _check_description(dataset / "dataset_description.json")
    present = participants_of(dataset)
    if not present:
        raise InvalidDataset(f"{dataset}: no sub-* folder; give the root of a BIDS dataset")
    missing = [label for label in selection.participants if label not in present]
    if missing:
        raise NothingSelected(
            f"{dataset}: no participant {some_of(missing)}; there are {len(present)}: {some_of(present)}"
        )


def _check_description(path: Path) -> None:
    advice = "correct it, or give --skip-bids-validation"
    if not path.exists():
        raise InvalidDataset(f"{path}: no such file, so the folder is not a BIDS dataset; {advice}")
    try:
        description = json_content(path)
    except (OSError, ValueError) as error:
        raise InvalidDataset(f"{path}: not readable as JSON ({error}); {advice}") from error
    missing = [key for key in ("Name", "BIDSVersion") if not isinstance(description, dict) or key not in description]
    if missing:
        raise InvalidDataset(f"{path}: {' and '.join(missing)} missing; {advice}")


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """A filter file in fMRIPrep's form, ``{"t1w": {"session": "1", "acquisition": null}}``; null means absent,
    ``"*"`` any value. Raises ``UserError`` where it is something else."""
    try:
        filters = json_content(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); check --bids-filter-file") from error
    if not isinstance(filters, dict) or not all(isinstance(value, dict) for value in filters.values()):
        raise UserError(f'{path}: not of the form {{"t1w": {{"session": "1"}}}}; check --bids-filter-file')
    for name, value in ((name, value) for wanted in filters.values() for name, value in wanted.items()):
        if not all(map(_is_plain_value, value if isinstance(value, list) else [value])):
            raise UserError(f"{path}: {name} is not text, a whole number or a list of these; check --bids-filter-file")
    return {name.lower(): value for name, value in filters.items()}


def _query(layout: Any, selection: ScanSelection, modality: str) -> list[str]:
    """Paths of one modality."""
    entities: dict[str, Any] = {"datatype": "anat", "suffix": modality, "extension": list(IMAGE_EXTENSIONS)}
    if selection.participants:
        entities["subject"] = list(selection.participants)
    if selection.sessions:
        entities["session"] = list(selection.sessions)
    wanted = selection.filters.get(modality.lower(), {})
    entities |= {key: _filter_value(value) for key, value in wanted.items()}
    try:
        paths: list[str] = layout.get(return_type="file", **entities)
    except (ValueError, TypeError) as error:
        raise UserError(f"the filter for {modality} fails: {' '.join(str(error).split())}") from error
    return paths


def _filter_value(value: Any) -> Any:
    from bids.layout import Query

    if isinstance(value, list):
        return [_filter_value(item) for item in value]
    names = {None: Query.NONE, "*": Query.ANY, "Query.NONE": Query.NONE, "Query.ANY": Query.ANY}
    return names.get(value, value) if value is None or isinstance(value, str) else value


def _closed_folders(subject: Path) -> list[Path]:
    """Folders that hold a participant's scans but can't be looked into; one of them would end the whole index."""
    folders = [subject, subject / "anat", *subject.glob("ses-*"), *subject.glob("ses-*/anat")]
    return [folder for folder in folders if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK)]


def _layout(dataset: Path, selection: ScanSelection, closed: Sequence[Path]) -> Any:
    """pybids' index of the anatomical images, without their metadata, which would take minutes."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    ignore = list(NOT_INDEXED)
    ignore += [re.compile(rf"^/{re.escape(folder.relative_to(dataset).as_posix())}(/|$)") for folder in closed]
    if selection.participants and selection.database is None:
        labels = "|".join(re.escape(label) for label in selection.participants)
        ignore.append(re.compile(rf"^/sub-(?!({labels})(/|$))"))
    indexer = BIDSLayoutIndexer(validate=selection.validate, index_metadata=False, ignore=ignore)
    if selection.database is None:
        return BIDSLayout(dataset, validate=False, indexer=indexer)
    if not (selection.database / INDEX).exists():
        # Under another name until it is whole: pybids takes a half-made one for all there is.
        building = selection.database / f".{uuid4().hex[:8]}"
        try:
            BIDSLayout(dataset, validate=False, database_path=building, indexer=indexer)
            (building / INDEX).replace(selection.database / INDEX)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return BIDSLayout(dataset, validate=False, database_path=selection.database)


def _parse(paths: list[Path], dataset: Path) -> tuple[list[Scan], list[tuple[Path, str]]]:
    scans, unusable = [], []
    for path in paths:
        try:
            scan = parse_scan(path)
            if not fits_folder(path, dict(scan.entities), dataset):
                raise ValueError(f"its name does not fit the folder {path.parent.relative_to(dataset)}")
            scans.append(scan)
        except ValueError as error:
            unusable.append((path, f"{error}; rename it"))
    return scans, unusable


def _anatomies(scans: list[Scan], selection: ScanSelection) -> tuple[list[Scan], list[tuple[Path, str]]]:
    """Scans that hold anatomy, or that the filters name by their part, and those that do not."""
    held = {
        scan: no_anatomy(dict(scan.entities))
        for scan in scans
        if "part" not in selection.filters.get(scan.suffix.lower(), {})
    }
    advice = 'not anatomy; to segment it anyway, give its "part" in a --bids-filter-file'
    no_anatomies = [(scan.path, f"it contains {what}, {advice}") for scan, what in held.items() if what]
    return [scan for scan in scans if not held.get(scan)], no_anatomies


def _overlooked(dataset: Path, selection: ScanSelection, layout: Any, ignored: Ignored) -> list[tuple[Path, str]]:
    """Images of the participants and sessions that are not in the index for their names, and are not to be ignored."""
    everything = replace(selection, sessions=(), filters={})
    known = {Path(path) for modality in selection.modalities for path in _query(layout, everything, modality)}
    found = []
    for label in _wanted(dataset, selection):
        for path in overlooked(dataset / f"sub-{label}", selection.modalities):
            below = path.relative_to(dataset)
            session = below.parts[1].removeprefix("ses-") if below.parts[1].startswith("ses-") else None
            selected = not selection.sessions or session in selection.sessions
            outside = selection.not_in is None or not path.is_relative_to(selection.not_in)
            if selected and outside and path not in known and below.as_posix() not in ignored:
                wrong = what_is_wrong(path, dataset, selection.modalities)
                found.append((path, wrong + selection.advice_on_index))
    return found


def _without_duplicates(scans: list[Scan]) -> tuple[list[Scan], list[tuple[Path, str]]]:
    """Scans whose derivatives have names of their own, and those that would overwrite each other's."""
    names = [derivative_name(scan, scan.suffix) for scan in scans]
    count = Counter(names)
    advice = "there is a .nii and a .nii.gz of this scan; remove one of them"
    single = [scan for scan, name in zip(scans, names, strict=True) if count[name] == 1]
    return single, [(scan.path, advice) for scan, name in zip(scans, names, strict=True) if count[name] > 1]


def _wanted(dataset: Path, selection: ScanSelection) -> list[str]:
    return list(selection.participants) or participants_of(dataset)


def _subject_of(path: Path) -> str:
    """Of a participant's file or folder."""
    part = next(part for part in reversed(path.parts) if part.startswith("sub-"))
    return part.partition("_")[0].removeprefix("sub-")


def _is_plain_value(value: Any) -> bool:
    """Whether pybids can look it up; its index holds whole numbers of 64 bits."""
    return value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 63)
