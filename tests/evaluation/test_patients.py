"""Measures on patients, on labels that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.evaluation.patients import (
    ContrastScore,
    PatientScores,
    against_flair,
    agreement,
    groups,
    measured_as_json,
    scan_name,
    told_apart,
    ventricle_dice,
)
from bidsseg.labels import LEFT, TISSUE
from bidsseg.network.card import patients_table
from bidsseg.segmentation.result import Segmentation

SHAPE = (10, 10, 10)


def labelled(thalamus: int, shape: tuple[int, int, int] = SHAPE, shift_mm: float = 0) -> Segmentation:
    """A left thalamus of so many planes of 100 mm3, and one plane of brainstem."""
    tissue = np.zeros(shape, np.uint8)
    tissue[:thalamus] = TISSUE["thalamus"]
    tissue[9] = TISSUE["brainstem"]
    affine = np.eye(4)
    affine[0, 3] = shift_mm
    nothing = np.zeros(shape, np.uint8)
    return Segmentation(
        tissue, np.full(shape, LEFT, np.uint8), nothing, affine, False, confidence=nothing.astype(np.float16)
    )


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
    folders = ("ms-clinical-lesions", "ms-clinical-bids", "ms-lesions-mni")
    found = [[scan_name(path, tmp_path) for path in group] for group in groups(tmp_path, folders)]
    assert found == [
        ["ms-clinical-bids/sub-1_ses-1_FLAIR", "ms-clinical-bids/sub-1_ses-1_T1w"],
        ["ms-clinical-bids/sub-1_ses-2_T1w"],
        ["ms-lesions-mni/patient07_T1"],
        ["ms-lesions-mni/patient08_T1"],
    ]


@pytest.mark.parametrize(
    ("names", "flairs", "others"),
    [
        (["FLAIR", "T1w", "T2w"], ["FLAIR"], ["T1w", "T2w"]),
        (["acq-3D_FLAIR", "run-1_T1w", "PDw"], ["FLAIR"], ["T1w"]),
        (["FLAIR", "acq-3D_FLAIR", "T1w"], ["FLAIR", "acq-3D_FLAIR"], ["T1w"]),
        (["run-1_T1w", "run-2_T1w"], [], ["run-1_T1w", "run-2_T1w"]),
    ],
)
def test_scans_of_one_contrast_are_told_apart(names: list[str], flairs: list[str], others: list[str]) -> None:
    group = tuple(Path("anat") / f"sub-1_ses-2_{name}.nii.gz" for name in names)
    assert [*told_apart(group, ("FLAIR",))] == flairs
    found = told_apart(group, ("T1w", "T2w"))
    assert [*found] == others
    assert len({*found.values(), *told_apart(group, ("FLAIR",)).values()}) == len(flairs) + len(others)


def test_contrasts_are_held_against_flair() -> None:
    scores = against_flair("sub-1", labelled(3), {"T1w": labelled(5), "T2w": labelled(3, shift_mm=1)})
    # Deep grey 300 and 500 mm3, half of their mean apart; the brainstem is the same.
    assert scores[0] == ContrastScore("sub-1", "T1w", 25.0, 50.0, (0.75 + 1) / 2)
    assert scores[1] == ContrastScore("sub-1", "T2w", 0.0, 0.0, None)
    assert scores[0].line == "sub-1 FLAIR against T1w: median 25.0 %, largest 50.0 %, mean Dice of regions 0.875"


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (labelled(4), 1.0),
        (labelled(2), (2 * 2 / 6 + 1) / 2),
        (labelled(4, shift_mm=0.5), None),
        (labelled(4, (10, 10, 11)), None),
    ],
)
def test_regions_agree_where_both_are_on_one_grid(other: Segmentation, expected: float | None) -> None:
    assert agreement(labelled(4), other) == (None if expected is None else pytest.approx(expected, abs=1e-4))


VENTRICLES = np.zeros(SHAPE, np.uint16)
VENTRICLES[:6] = np.array([4, 5, 14, 15, 43, 44])[:, None, None]
BEYOND = np.where(VENTRICLES == 0, 24, VENTRICLES).astype(np.uint16)


@pytest.mark.parametrize(
    ("codes", "planes", "dice"),
    [(VENTRICLES, 6, 1.0), (BEYOND, 6, 1.0), (VENTRICLES, 2, 0.5), (VENTRICLES[::-1], 4, 0)],
)
def test_all_ventricles_together_are_held_against_the_mask(
    tmp_path: Path, codes: NDArray[np.uint16], planes: int, dice: float
) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:planes] = 1
    folder = tmp_path / "patients" / "derivatives" / "manual" / "sub-1" / "anat"
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(mask, 15 * np.eye(4)), folder / "sub-1_label-ventricle_mask.nii.gz")
    scans = [tmp_path / "patients" / name / "anat" / f"{name}_FLAIR.nii.gz" for name in ("sub-1", "sub-2")]
    assert [ventricle_dice(tmp_path, scan, codes) for scan in scans] == [dice, None]
    assert ventricle_dice(tmp_path, scans[0], codes[1:]) is None  # the mask was drawn on another grid


def test_the_card_keeps_validation_patients_apart() -> None:
    of_contrasts = (
        ContrastScore("a/sub-06", "T1w", 2.04, 9.0, 0.8123),
        ContrastScore("a/sub-06", "T2w", 3.0, 9.0, 0.8),
        ContrastScore("b/sub-01_ses-1", "T2w", 1.0, 9.0, None),
    )
    measured = measured_as_json(PatientScores({"sub-01": 0.9, "sub-02": 0.8, "sub-05": 0.7}, of_contrasts))
    assert measured["ventricles"] == {
        "validation patients": {"sub-02": 0.8, "sub-05": 0.7, "mean": 0.75},
        "training patients": {"sub-01": 0.9, "mean": 0.9},
    }
    assert patients_table(measured).splitlines() == [
        "| patients | Dice of ventricles in FLAIR | mean |",
        "| --- | --- | --- |",
        "| validation patients | sub-02 0.800, sub-05 0.700 | 0.750 |",
        "| training patients | sub-01 0.900 | 0.900 |",
        "",
        "| session | T1w against FLAIR | T2w against FLAIR |",
        "| --- | --- | --- |",
        "| a/sub-06 | 2.0 % (0.812) | 3.0 % (0.800) |",
        "| b/sub-01_ses-1 |  | 1.0 % |",
    ]
