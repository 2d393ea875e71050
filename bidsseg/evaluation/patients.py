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
    "Dice with the manual mask of all ventricles, by patient, and session if there is one."
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
    compared: list[ContrastScore] = []
    for folder in FOLDERS:
        if not (data / folder).is_dir():
            told(f"{data / folder}: no such folder; its patients are left out")
    for group in groups(data, FOLDERS):
        flairs, others = (told_apart(group, contrasts) for contrasts in ((FLAIR,), OTHERS))
        if not flairs:
            told(f"{scan_name(group[0], data).rpartition('_')[0]}: has no FLAIR; left out")
            continue
        found = {
            name: segment(load(path), model, options, bias_correction=True) for name, path in (flairs | others).items()
        }
        for name, path in flairs.items():
            session = scan_name(path, data).rpartition("_")[0]
            told(f"{session}: {', '.join((FLAIR, *others))}")
            dice = ventricle_dice(data, path, found[name].labels("regions"))
            if dice is not None:
                ventricles[session.partition("/")[2]] = dice
            compared += against_flair(session, found[name], {other: found[other] for other in others})
    return PatientScores(ventricles, tuple(compared))


def told_apart(group: Group, contrasts: Sequence[str]) -> dict[str, Path]:
    """The scans of a session in these contrasts, by contrast; by what else their names say where one has several."""
    scans: dict[str, Path] = {}
    for contrast in contrasts:
        of_contrast = [path for path in group if path.name.split(".")[0].rpartition("_")[2] == contrast]
        for path in of_contrast:
            said = [part for part in path.name.split(".")[0].split("_") if not part.startswith(("sub-", "ses-"))]
            scans["_".join(said) if len(of_contrast) > 1 else contrast] = path
    return scans


def against_flair(session: str, flair: Segmentation, others: Mapping[str, Segmentation]) -> list[ContrastScore]:
    """Other scans of a session against a FLAIR of it."""
    return [
        ContrastScore(session, name, *_apart(volumes_of_lobes(flair), volumes_of_lobes(other)), agreement(flair, other))
        for name, other in others.items()
    ]


def volumes_of_lobes(found: Segmentation) -> list[float]:
    """In mm3, of each label of the scheme."""
    return [row.volume_mm3 for row in found.volumes("lobes")]


def _apart(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Median and largest difference in % of the mean, over the labels that either has."""
    apart = [200 * abs(a - b) / (a + b) for a, b in zip(one, other, strict=True) if a + b > 0]
    return (float(np.median(apart)), max(apart)) if apart else (np.nan, np.nan)


def ventricle_dice(data: Path, path: Path, codes: Codes) -> float | None:
    """Dice of all ventricles together, of the regions (I, J, K) of a scan of DATA.

    None without a manual mask of the patient, or where it was drawn on another grid.
    """
    subject = path.name.split("_")[0]
    folder = data / path.relative_to(data).parts[0] / "derivatives" / "manual" / subject / "anat"
    mask = folder / f"{subject}_label-ventricle_mask.nii.gz"
    if not mask.exists():
        return None
    manual, ours = load(mask).data > 0.5, np.isin(codes, VENTRICLES)
    if manual.shape != ours.shape:  # drawn on another scan of the patient
        return None
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
    kept = {name: dice for name, dice in measured.ventricles.items() if name.split("_")[0] in VALIDATION_PATIENTS}
    shown = {name: dice for name, dice in measured.ventricles.items() if name not in kept}
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
