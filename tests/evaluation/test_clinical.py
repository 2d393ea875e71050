"""Clinical scans: which are found, and what is told of their verdicts."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bidsseg.evaluation import clinical
from bidsseg.evaluation.clinical import ClinicalScan, about, read_clinical, run_clinical, verdicts
from bidsseg.evaluation.damage_study import Means
from tests.quality.test_assessment import TRUSTING, VIEW, usual

SCANS = [
    ClinicalScan("a", "abc", usual(0.9), VIEW, 0.9, 0.8),
    ClinicalScan("b", "abc", usual(0.75), VIEW, 0.8, None),
    ClinicalScan("c", "abc", usual(0.6), VIEW, 0.7, None),
]


def test_scans_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "clinical.jsonl"
    path.write_text("\n".join([*(json.dumps(asdict(scan)) for scan in SCANS), "{cut short"]))
    assert list(read_clinical(path)) == SCANS


def test_a_session_that_was_cut_short_is_measured_again_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (replace(SCANS[0], name=f"ms-clinical-bids/sub-1_{contrast}") for contrast in ("FLAIR", "T1w"))
    for scan in (first, second):
        (tmp_path / "ms-clinical-bids").mkdir(exist_ok=True)
        (tmp_path / f"{scan.name}.nii.gz").touch()
    path = tmp_path / "clinical.jsonl"
    path.write_text(json.dumps(asdict(first)) + "\n")
    monkeypatch.setattr(clinical, "in_parallel", lambda work, groups, workers: [[first, second] for _ in groups])
    for _ in range(2):
        assert run_clinical(Means(tmp_path, "", "cpu", "abc"), path, 1, print) == [first, second]


def test_verdicts_are_counted_and_held_against_the_masks() -> None:
    told = about(verdicts(SCANS, TRUSTING))
    assert (told["scans"], told["pass"], told["check"], told["fail"]) == (3, 1, 1, 1)
    assert told["ventricle_dice"] == {"scans": 3, "mean": 0.8, "correlation_with_shortfall": -1.0}
    assert "agreement_of_contrasts" not in told  # one scan is no correlation
