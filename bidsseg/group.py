"""The group level: every participant's tables gathered into tidy ones, a row per scan and label."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bidsseg.errors import UserError
from bidsseg.files import whole, write_text
from bidsseg.segmentation import VOLUME_COLUMNS

Row = dict[str, Any]
SCAN_COLUMNS = {
    "participant_id": "The participant, with sub-.",
    "session_id": "The session, with ses-; n/a without sessions.",
    "scan": "Entities and suffix that name the scan within the dataset.",
}
QC_COLUMNS = {
    "intracranial_volume_mm3": "Volume of brain and surrounding CSF.",
    "cerebral_asymmetry": "(left - right) / (left + right) of cerebral grey and white matter.",
    "mean_confidence": "Mean probability of the chosen tissue over the brain, 0-1.",
    "edge_fraction": "Share of the first or last slice that is brain: large where the scan cuts it.",
    "warnings": "What was found and repaired in the scan, separated by '; '.",
    "software_version": "Version of bidsseg.",
}
QC_KEYS = (
    "IntracranialVolumeMm3",
    "CerebralAsymmetry",
    "MeanConfidence",
    "EdgeFraction",
    "Warnings",
    "SoftwareVersion",
)


def run(out_dir: Path) -> None:
    """Write group_volumes.tsv, group_qc.tsv and, where there are lesions, group_lesions.tsv, each with a dictionary.

    Rows are streamed, so memory does not grow with the dataset. Raises ``UserError`` where no scan is complete.
    """
    volumes = _files(out_dir, "_volumes.tsv")
    if not volumes:
        raise UserError(f"{out_dir}: no volumes of any participant; run the participant level first")
    _write(out_dir / "group_volumes.tsv", SCAN_COLUMNS | VOLUME_COLUMNS, _tables(volumes, "_volumes.tsv"))
    _write(out_dir / "group_qc.tsv", SCAN_COLUMNS | QC_COLUMNS, _qualities(_files(out_dir, "_qc.json")))
    if lesions := _files(out_dir, "_desc-lesions_lesions.tsv"):
        described = json.loads(lesions[0].with_suffix(".json").read_text(encoding="utf-8"))
        columns = {name: entry["Description"] for name, entry in described.items() if "Description" in entry}
        _write(out_dir / "group_lesions.tsv", SCAN_COLUMNS | columns, _tables(lesions, "_desc-lesions_lesions.tsv"))


def _files(out_dir: Path, ending: str) -> list[Path]:
    """Participants' files by that ending, sorted; temporary files start with a dot and do not count."""
    found = (path for anat in ("sub-*/anat", "sub-*/ses-*/anat") for path in out_dir.glob(f"{anat}/sub-*{ending}"))
    return sorted(found)


def _scan(path: Path, ending: str) -> Row:
    stem = path.name.removesuffix(ending)
    entities = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
    session = f"ses-{entities['ses']}" if "ses" in entities else "n/a"
    return {"participant_id": f"sub-{entities['sub']}", "session_id": session, "scan": stem.replace("desc-", "")}


def _tables(paths: Iterable[Path], ending: str) -> Iterator[Row]:
    for path in paths:
        scan = _scan(path, ending)
        with path.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                yield scan | row


def _qualities(paths: Iterable[Path]) -> Iterator[Row]:
    for path in paths:
        measured = json.loads(path.read_text(encoding="utf-8"))
        values = [measured.get(key, "n/a") for key in QC_KEYS]
        cells = ["; ".join(value) if isinstance(value, list) else value for value in values]
        yield _scan(path, "_qc.json") | dict(zip(QC_COLUMNS, cells, strict=True))


def _write(path: Path, columns: dict[str, str], rows: Iterable[Row]) -> None:
    with whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(
            handle, columns, restval="n/a", extrasaction="ignore", delimiter="\t", lineterminator="\n"
        )
        writer.writeheader()
        for row in rows:
            writer.writerow({name: value if value != "" else "n/a" for name, value in row.items()})
    dictionary = {name: {"Description": text} for name, text in columns.items()}
    write_text(path.with_suffix(".json"), json.dumps(dictionary, indent=2) + "\n")
