"""Clinical scans: which are found, and what is told of their verdicts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bidsseg.evaluation.clinical import ClinicalScan, about, groups, read_clinical, scan_name, verdicts
from tests.quality.test_assessment import TRUSTING, VIEW, usual

SCANS = [
    ClinicalScan("a", "abc", usual(0.9), VIEW, 0.9, 0.8),
    ClinicalScan("b", "abc", usual(0.75), VIEW, 0.8, None),
    ClinicalScan("c", "abc", usual(0.6), VIEW, 0.7, None),
]


def test_scans_of_a_session_go_together_and_masks_are_none(tmp_path: Path) -> None:
    names = (
        *("ms-clinical-bids/sub-1/ses-1/anat/sub-1_ses-1_T1w", "ms-clinical-bids/sub-1/ses-1/anat/sub-1_ses-1_FLAIR"),
        *(
            "ms-clinical-bids/sub-1/ses-2/anat/sub-1_ses-2_T1w",
            "ms-lesions-mni/patient07_T1",
            "ms-lesions-mni/patient08_T1",
        ),
        *("ms-lesions-mni/patient07_label-lesion_mask", "ms-clinical-lesions/derivatives/manual/sub-1/anat/sub-1_T1w"),
        "miccai2012-train/sub-1/sub-1_T1w",
    )
    for name in names:
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [[scan_name(path, tmp_path) for path in group] for group in groups(tmp_path)]
    assert found == [
        ["ms-clinical-bids/sub-1_ses-1_FLAIR", "ms-clinical-bids/sub-1_ses-1_T1w"],
        ["ms-clinical-bids/sub-1_ses-2_T1w"],
        ["ms-lesions-mni/patient07_T1"],
        ["ms-lesions-mni/patient08_T1"],
    ]


def test_scans_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "clinical.jsonl"
    path.write_text("\n".join([*(json.dumps(asdict(scan)) for scan in SCANS), "{cut short"]))
    assert list(read_clinical(path)) == SCANS


def test_verdicts_are_counted_and_held_against_the_masks() -> None:
    told = about(verdicts(SCANS, TRUSTING))
    assert (told["scans"], told["pass"], told["check"], told["fail"]) == (3, 1, 1, 1)
    assert told["ventricle_dice"] == {"scans": 3, "mean": 0.8, "correlation_with_shortfall": -1.0}
    assert "agreement_of_contrasts" not in told  # one scan is no correlation
