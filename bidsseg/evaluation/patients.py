"""Measures on clinical scans of patients: their ventricles against manual masks, and T1w and T2w against FLAIR.

Nobody outlined the regions of these patients. But one brain on one day should get the same labels in every contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.evaluation.scores import dice_by_label
from bidsseg.imaging.image import load
from bidsseg.labels import Codes
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.segmentation.pipeline import segment
from bidsseg.segmentation.result import Segmentation
from bidsseg.train.data import VALIDATION_PATIENTS

MASKED = "ms-clinical-lesions"
"The patients with manual masks; those of them in ``VALIDATION_PATIENTS`` never train."
FOLDERS = (MASKED, "ms-clinical-bids")
VENTRICLES = (4, 5, 14, 15, 43, 44)
FLAIR, OTHERS = "FLAIR", ("T1w", "T2w")
Group = tuple[Path, ...]
"Scans of one session, which may lie on one grid."


@dataclass(frozen=True)
class ContrastScore:
    """How far another contrast's labels are from those of the FLAIR of the same session."""

    session: str
    contrast: str
    median_percent: float
    "Difference of volumes in % of their mean: median over all labels of the scheme *lobes*."
    largest_percent: float
    regions_dice: float | None
    "Mean over the regions of the FLAIR; none where the two are not on one grid."

    @property
    def line(self) -> str:
        """For the terminal."""
        dice = "" if self.regions_dice is None else f", mean Dice of regions {self.regions_dice:.3f}"
        apart = f"median {self.median_percent:.1f} %, largest {self.largest_percent:.1f} %"
        return f"{self.session} FLAIR against {self.contrast}: {apart}{dice}"


@dataclass(frozen=True)
class PatientScores:
    """All that the card says of patients."""

    ventricles: dict[str, float]
    "Dice with the manual mask of all ventricles, by patient."
    contrasts: tuple[ContrastScore, ...]


def groups(data: Path, folders: Sequence[str]) -> list[Group]:
    """The scans in these folders of DATA by session; masks and label maps are none."""
    found: dict[tuple[str, str], list[Path]] = {}
    for folder in folders:
        for path in sorted((data / folder).rglob("*.nii.gz")):
            if "derivatives" not in path.parts and not path.name.endswith("_mask.nii.gz"):
                found.setdefault((str(path.parent), path.name.split("_")[0]), []).append(path)
    return [tuple(paths) for paths in found.values()]


def scan_name(path: Path, data: Path) -> str:
    """For instance ``ms-clinical-bids/sub-01_ses-1_FLAIR``."""
    return f"{path.relative_to(data).parts[0]}/{path.name.split('.')[0]}"


def measure(data: Path, model: Model, options: PredictOptions, told: Callable[[str], None]) -> PatientScores:
    """Label the patients' scans in ``FOLDERS`` of DATA as ``predict`` does; ``told`` is called for each session."""
    ventricles: dict[str, float] = {}
    contrasts: list[ContrastScore] = []
    for folder in FOLDERS:
        if not (data / folder).is_dir():
            told(f"{data / folder}: no such folder; its patients are left out")
    for group in groups(data, FOLDERS):
        session = scan_name(group[0], data).rpartition("_")[0]
        scans = {path.name.split(".")[0].rpartition("_")[2]: path for path in group}
        found = {
            contrast: segment(load(path), model, options, bias_correction=True)
            for contrast, path in scans.items()
            if contrast in (FLAIR, *OTHERS)
        }
        if FLAIR not in found:
            told(f"{session}: has no FLAIR; left out")
            continue
        told(f"{session}: {', '.join(found)}")
        dice = ventricle_dice(data, scans[FLAIR], found[FLAIR].labels("regions"))
        if dice is not None:
            ventricles[scans[FLAIR].name.split("_")[0]] = dice
        contrasts += against_flair(session, found)
    return PatientScores(ventricles, tuple(contrasts))


def against_flair(session: str, found: Mapping[str, Segmentation]) -> list[ContrastScore]:
    """Every other contrast of a session against its FLAIR."""
    return [
        ContrastScore(
            session,
            contrast,
            *_apart(volumes_of_lobes(found[FLAIR]), volumes_of_lobes(found[contrast])),
            agreement(found[FLAIR], found[contrast]),
        )
        for contrast in OTHERS
        if contrast in found
    ]


def volumes_of_lobes(found: Segmentation) -> list[float]:
    """In mm3, of each label of the scheme."""
    return [row.volume_mm3 for row in found.volumes("lobes")]


def _apart(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Median and largest difference in % of the mean, over the labels that either has."""
    apart = [200 * abs(a - b) / (a + b) for a, b in zip(one, other, strict=True) if a + b > 0]
    return (float(np.median(apart)), max(apart)) if apart else (np.nan, np.nan)


def ventricle_dice(data: Path, path: Path, codes: Codes) -> float | None:
    """Dice of all ventricles together, of the regions (I, J, K) of a scan of DATA; none without a manual mask."""
    subject = path.name.split("_")[0]
    folder = data / path.relative_to(data).parts[0] / "derivatives" / "manual" / subject / "anat"
    mask = folder / f"{subject}_label-ventricle_mask.nii.gz"
    if not mask.exists():
        return None
    manual, ours = load(mask).data > 0.5, np.isin(codes, VENTRICLES)
    return round(2 * float((manual & ours).sum()) / float(manual.sum() + ours.sum()), 4)


def agreement(reference: Segmentation, found: Segmentation) -> float | None:
    """Mean Dice of the reference's regions, 0-1; none where the two are not on one grid or there are no regions."""
    codes, others = reference.labels("regions"), found.labels("regions")
    if codes.shape != others.shape or not np.allclose(reference.affine, found.affine, atol=1e-3):
        return None
    dice = dice_by_label(codes, others)
    return float(np.mean([*dice.values()])) if dice else None


def measured_as_json(measured: PatientScores) -> dict[str, Any]:
    """For the card."""
    kept = {name: dice for name, dice in measured.ventricles.items() if name in VALIDATION_PATIENTS}
    shown = {name: dice for name, dice in measured.ventricles.items() if name not in VALIDATION_PATIENTS}
    sessions: dict[str, dict[str, Any]] = {}
    for score in measured.contrasts:
        sessions.setdefault(score.session, {})[score.contrast] = {
            "median_percent": round(score.median_percent, 1),
            "largest_percent": round(score.largest_percent, 1),
            "regions_dice": None if score.regions_dice is None else round(score.regions_dice, 3),
        }
    return {
        "ventricles": {
            kind: {
                **{name: round(dice, 3) for name, dice in of.items()},
                "mean": round(float(np.mean([*of.values()])), 3),
            }
            for kind, of in (("validation patients", kept), ("training patients", shown))
            if of
        },
        "contrasts": sessions,
    }
