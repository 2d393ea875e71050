import csv
import json
from pathlib import Path

import pytest

from bidsseg.errors import UserError
from bidsseg.group import run

VOLUMES = "scheme\tindex\tname\themisphere\tvoxels\tvolume_mm3\tfraction_of_intracranial\tconfidence\n"


def scan(out: Path, folder: str, stem: str, volume: float) -> None:
    anat = out / folder / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    rows = [f"regions\t12\tLeft-Putamen\tL\t5\t{volume}\t0.1\t0.9", "regions\t16\tBrain-Stem\tn/a\t0\t0\t0\tn/a"]
    (anat / f"{stem}_volumes.tsv").write_text(VOLUMES + "\n".join(rows) + "\n")
    measured = {"IntracranialVolumeMm3": 10 * volume, "MeanConfidence": 0.8, "Warnings": ["a", "b"]}
    (anat / f"{stem}_qc.json").write_text(json.dumps(measured))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_every_scan_and_label_is_a_row(tmp_path: Path) -> None:
    scan(tmp_path, "sub-02/ses-1", "sub-02_ses-1_run-2_desc-FLAIR", 20)
    scan(tmp_path, "sub-01", "sub-01_desc-T1w", 10)
    (tmp_path / "sub-01" / "anat" / ".0123.sub-01_desc-FLAIR_volumes.tsv").write_text("half a file")
    run(tmp_path)
    rows = table(tmp_path / "group_volumes.tsv")
    assert [(r["participant_id"], r["session_id"], r["scan"], r["volume_mm3"]) for r in rows[::2]] == [
        ("sub-01", "n/a", "sub-01_T1w", "10"),
        ("sub-02", "ses-1", "sub-02_ses-1_run-2_FLAIR", "20"),
    ]
    assert len(rows) == 4
    described = json.loads((tmp_path / "group_volumes.json").read_text())
    assert list(described) == list(rows[0])
    assert not (tmp_path / "group_lesions.tsv").exists()


def test_quality_has_one_row_per_scan_and_says_what_is_missing(tmp_path: Path) -> None:
    scan(tmp_path, "sub-01", "sub-01_desc-T1w", 10)
    run(tmp_path)
    (row,) = table(tmp_path / "group_qc.tsv")
    assert (row["intracranial_volume_mm3"], row["warnings"], row["edge_fraction"]) == ("100", "a; b", "n/a")


def test_lesions_are_gathered_where_there_are_any(tmp_path: Path) -> None:
    scan(tmp_path, "sub-01", "sub-01_desc-FLAIR", 10)
    lesions = tmp_path / "sub-01" / "anat" / "sub-01_FLAIR_desc-lesions_lesions.tsv"
    lesions.write_text("lesion\tzone\n1\tperiventricular\n2\tjuxtacortical\n")
    lesions.with_suffix(".json").write_text(json.dumps({n: {"Description": n} for n in ("lesion", "zone")}))
    run(tmp_path)
    rows = table(tmp_path / "group_lesions.tsv")
    assert [(row["participant_id"], row["zone"]) for row in rows] == [
        ("sub-01", "periventricular"),
        ("sub-01", "juxtacortical"),
    ]


def test_nothing_to_gather_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="participant level first"):
        run(tmp_path)
