"""How well a mask of found lesions agrees with a manual one, of patients who never trained.

Beside the network stands a rule of one line, so that anyone can see what the network adds: brighter than the median of
cortex plus two robust standard deviations, inside white matter, three voxels or more together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.image import Image, load
from bidsseg.imaging.pieces import large_pieces
from bidsseg.imaging.preparation import prepare
from bidsseg.labels import TISSUE
from bidsseg.lesions.finding import LEAST_MM3, LEAST_VOXELS, lesion_mask
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_config import THICK_MM, Thresholds
from bidsseg.network.lesion_model import LesionModel
from bidsseg.network.weights import Model
from bidsseg.segmentation.lesion_probability import LesionAnswer, lesion_answer
from bidsseg.segmentation.pipeline import answer, native
from bidsseg.segmentation.result import Segmentation
from bidsseg.train.data import VALIDATION_MASK, VALIDATION_PATIENTS

Mask = NDArray[np.bool_]
TOUCHING = np.ones((3, 3, 3))
"Lesions are voxels that share a face, an edge or a corner."
THRESHOLDS = tuple(round(0.2 + 0.05 * n, 2) for n in range(12))
RULE_SPREADS = 2.0


@dataclass(frozen=True)
class MaskedScan:
    """A scan with a manual mask of its lesions, on one grid."""

    name: str
    image: Image
    manual: Mask


@dataclass(frozen=True)
class LesionScore:
    """How a found mask compares with a manual one."""

    dice: float
    lesions: int
    "Manual ones of 14 mm3 or three voxels."
    sensitivity: float
    "Share of these that any found voxel touches."
    false_positives: int
    "Found components that touch no manual voxel."
    found_ml: float
    manual_ml: float

    @property
    def volume_error(self) -> float:
        """Share of the manual volume that is found too much (above 0) or too little."""
        return self.found_ml / self.manual_ml - 1


@dataclass(frozen=True)
class SearchedScan:
    """What was made of a scan."""

    answer: LesionAnswer
    segmentation: Segmentation

    def mask(self, threshold: float) -> Mask:
        return lesion_mask(self.answer.probability, self.segmentation, threshold)


def masked_scans(data: Path, suffix: str = "FLAIR") -> Iterator[MaskedScan]:
    """The scans of validation patients of DATA; with another suffix, those of them that were scanned so too."""
    yield from clinical_scans(data, VALIDATION_PATIENTS, suffix)
    folder = data / "ms-lesions-mni"
    stem = f"{VALIDATION_MASK}_space-MNI152"
    scan = folder / f"{stem}_desc-brain_{suffix.removesuffix('w')}.nii.gz"
    if scan.exists():
        yield _masked(VALIDATION_MASK, scan, folder / f"{stem}_label-lesion_mask.nii.gz")


def clinical_scans(data: Path, subjects: Iterable[str], suffix: str = "FLAIR") -> Iterator[MaskedScan]:
    """Those of these patients with clinical scans that were scanned so."""
    for subject in subjects:
        scan = data / "ms-clinical-lesions" / subject / "anat" / f"{subject}_{suffix}.nii.gz"
        manual = data / "ms-clinical-lesions" / "derivatives" / "manual" / subject / "anat"
        if scan.exists():
            yield _masked(subject, scan, manual / f"{subject}_label-lesion_mask.nii.gz")


def _masked(name: str, scan: Path, manual: Path) -> MaskedScan:
    return MaskedScan(name, load(scan), load(manual, uniform_ok=True).data > 0)


def found_in(image: Image, model: Model, lesion_model: LesionModel, device: str = "cpu") -> SearchedScan:
    """Find lesions as the BIDS App does."""
    found = answer(prepare(image, True), model, PredictOptions(device))
    return SearchedScan(lesion_answer(found, lesion_model, device), native(found, False))


def rule_of_one_line(image: Image, segmentation: Segmentation) -> Mask:
    """The baseline."""
    cortex = image.data[segmentation.tissue == TISSUE["cortex"]]
    median = np.median(cortex)
    spread = 1.4826 * np.median(np.abs(cortex - median))
    bright = (segmentation.tissue == TISSUE["white-matter"]) & (image.data > median + RULE_SPREADS * spread)
    return large_pieces(bright, LEAST_VOXELS, corners=True)


def compare(found: Mask, manual: Mask, voxel_mm3: float) -> LesionScore:
    """Voxel by voxel, and lesion by lesion."""
    both = found & manual
    lesions, count = ndimage.label(manual, TOUCHING)
    sizes = np.bincount(lesions.reshape(-1), minlength=count + 1)
    counted = (sizes >= LEAST_VOXELS) | (sizes * voxel_mm3 >= LEAST_MM3)
    counted[0] = False
    hit = np.bincount(lesions[both], minlength=count + 1) > 0
    components, n_found = ndimage.label(found, TOUCHING)
    true = np.bincount(components[both], minlength=n_found + 1)[1:] > 0
    return LesionScore(
        2 * float(both.sum()) / max(1.0, float(found.sum() + manual.sum())),
        int(counted.sum()),
        float(hit[counted].mean()) if counted.any() else np.nan,
        int(n_found - true.sum()),
        float(found.sum()) * voxel_mm3 / 1000,
        float(manual.sum()) * voxel_mm3 / 1000,
    )


def best_thresholds(scans: Sequence[tuple[MaskedScan, SearchedScan]]) -> Thresholds:
    """Those with the highest mean Dice, among scans of thick and of thin slices."""
    thick = [pair for pair in scans if max(pair[0].image.spacing_mm) >= THICK_MM]
    thin = [pair for pair in scans if pair not in thick]
    return Thresholds(*(_best_threshold(some) if some else 0.5 for some in (thick, thin)))


def _best_threshold(scans: Sequence[tuple[MaskedScan, SearchedScan]]) -> float:
    scores = [by_threshold(scan, found) for scan, found in scans]
    return max(THRESHOLDS, key=lambda level: float(np.mean([each[level].dice for each in scores])))


def by_threshold(scan: MaskedScan, found: SearchedScan) -> dict[float, LesionScore]:
    """What each of the thresholds that are chosen from would give."""
    return {level: compare(found.mask(level), scan.manual, scan.image.voxel_volume_mm3) for level in THRESHOLDS}


def summary(scores: Sequence[LesionScore]) -> dict[str, float]:
    """Means over scans, and how volumes go together."""
    found, manual = (np.array([getattr(score, name) for score in scores]) for name in ("found_ml", "manual_ml"))
    several = len(scores) > 2
    return {
        "dice": round(float(np.mean([score.dice for score in scores])), 3),
        "sensitivity": round(float(np.mean([score.sensitivity for score in scores])), 3),
        "false_positives": round(float(np.mean([score.false_positives for score in scores])), 1),
        "volume_error_median": round(float(np.median([abs(score.volume_error) for score in scores])), 3),
        "volume_correlation": round(float(np.corrcoef(found, manual)[0, 1]), 3) if several else np.nan,
    }


def as_row(score: LesionScore) -> dict[str, float]:
    """A scan's scores for the card."""
    return {
        "dice": round(score.dice, 3),
        "lesions": score.lesions,
        "sensitivity": round(score.sensitivity, 3),
        "false_positives": score.false_positives,
        "found_ml": round(score.found_ml, 2),
        "manual_ml": round(score.manual_ml, 2),
    }
