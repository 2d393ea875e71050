"""Accuracy against manual labels: Dice and 95 % Hausdorff distance, on scans as they are or made worse on purpose."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import Floats, along, box_around, overlap, resampling_matrix
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUE, Codes, Scheme, encode, grey_of_lobe, label_table
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.segmentation.pipeline import segment
from bidsseg.train.held_out import Case

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
LOBAR_SCHEME = "lobar"


@dataclass(frozen=True)
class Condition:
    """How a 1 mm scan is changed before it is segmented."""

    slice_mm: float = 1.0
    "Thickness and spacing of simulated slices; 1 leaves the scan as it is."
    axis: Literal["sagittal", "coronal", "axial"] = "axial"
    "Perpendicular to the slices."
    contrast: Literal["as-is", "inverted", "flair"] = "as-is"
    slices: int = 0
    "Keep only this many slices around the middle of the brain; 0 keeps all."
    gain: float = 0.0
    "Brighten one corner of the scan by this share, darken the opposite one by as much, smoothly."

    @property
    def name(self) -> str:
        parts: list[str] = [self.contrast] if self.contrast != "as-is" else []
        parts += [f"gain +-{self.gain:.0%}"] if self.gain else []
        whole = self.slice_mm == 1 and not self.slices
        parts.append("1 mm" if whole else f"{self.slice_mm:g} mm {self.axis} slices")
        return ", ".join(parts + ([f"{self.slices} of them"] if self.slices else []))


STANDARD_CONDITIONS = (
    Condition(),
    *(Condition(mm) for mm in (3, 5, 7)),
    *(Condition(5, axis) for axis in ("coronal", "sagittal")),
    *(Condition(contrast=contrast) for contrast in ("inverted", "flair")),
    *(Condition(5, slices=slices) for slices in (12, 1)),
)
"What the card reports."


@dataclass(frozen=True)
class Score:
    """Agreement on one label of one scan."""

    case: str
    scheme: str
    index: int
    name: str
    dice: float
    hd95_mm: float
    "nan where either side lacks the label."
    reference_mm3: float
    volume_mm3: float


def reference_codes(anatomy: Anatomy, scheme: Scheme) -> Codes:
    """Manual labels in one of our schemes; CSF, which was not outlined by hand, is left out."""
    codes = encode(anatomy.tissue, anatomy.side, anatomy.parcel, scheme)
    codes[anatomy.tissue == TISSUE["csf"]] = 0
    return codes


def simulate(case: Case, condition: Condition) -> tuple[Image, Floats | None]:
    """The changed scan, and the matrix from its slices' axis to the slices (None where unchanged)."""
    data, axis = brightened(recolour(case, condition.contrast), condition.gain), AXES[condition.axis]
    n, affine = data.shape[axis], case.image.affine.copy()
    if condition.slice_mm == 1 and not condition.slices:
        return replace(case.image, data=data), None
    centres = np.arange(condition.slice_mm / 2 - 0.5, n, condition.slice_mm)
    if condition.slices:
        brain = np.flatnonzero((case.anatomy.tissue > 0).any(tuple(a for a in range(3) if a != axis)))
        first = np.searchsorted(centres, brain.mean()) - condition.slices // 2
        centres = centres[max(0, first) : max(0, first) + condition.slices]
    matrix = resampling_matrix(centres, n, condition.slice_mm)
    affine[:3, 3] = affine[:3, 3] + affine[:3, axis] * centres[0]
    affine[:3, axis] *= condition.slice_mm
    return replace(case.image, data=along(matrix, data, axis), affine=affine), matrix


def recolour(case: Case, contrast: str) -> Floats:
    """The scan's grey values as another sequence might show them; background stays 0."""
    data = case.image.data
    if contrast == "as-is":
        return data
    inside = data > 0
    top = float(np.percentile(data[inside], 99.5))
    if contrast == "inverted":
        return np.where(inside, np.clip(1.1 * top - data, 0, None), 0).astype(np.float32)
    grey, white = (float(np.median(data[case.anatomy.tissue == TISSUE[t]])) for t in ("cortex", "white-matter"))
    # A smooth map through dark fluid, bright grey and middling white matter: FLAIR's order of tissues.
    levels = [0.0, 0.35 * grey, grey, white, 1.3 * white]
    values = [0.0, 0.15, 0.85, 0.62, 0.5]
    return np.where(inside, np.interp(data, levels, values), 0).astype(np.float32)


def brightened(data: Floats, gain: float) -> Floats:
    """Grey values (I, J, K) times a smooth field, from 1 + gain in one corner of the image to 1 - gain in the other."""
    if not gain:
        return data
    waves = np.ix_(*(np.cos(np.linspace(0, np.pi, n)) / data.ndim for n in data.shape))
    return (data * (1 + gain * sum(waves))).astype(np.float32)


def majority(codes: Codes, matrix: Floats | None, axis: int) -> Codes:
    """Labels of thick slices: for each voxel the label that fills most of it."""
    if matrix is None:
        return codes
    best: Floats = along(matrix, (codes == 0).astype(np.float32), axis)
    result = np.zeros(best.shape, np.uint16)
    for code in np.unique(codes[codes > 0]):
        share = along(matrix, (codes == code).astype(np.float32), axis)
        better = share > best
        result[better], best[better] = code, share[better]
    return result


def evaluate(
    cases: Iterable[Case],
    model: Model,
    condition: Condition,
    schemes: tuple[str, ...],
    options: PredictOptions,
    bias_correction: bool = False,
) -> list[Score]:
    """Segment every case under a condition and score each label of each scheme (regions, lobar, gyri)."""
    scores: list[Score] = []
    options = replace(options, gyri="gyri" in schemes)
    for case in cases:
        image, matrix = simulate(case, condition)
        found = segment(image, model, options, bias_correction)
        for scheme in schemes:
            base: Scheme = "gyri" if scheme == "gyri" else "regions"
            reference = majority(reference_codes(case.anatomy, base), matrix, AXES[condition.axis])
            pair = (reference, found.labels(base))
            if scheme == LOBAR_SCHEME:
                pair = (merge_lobes(pair[0]), merge_lobes(pair[1]))
            scores += [replace(score, case=case.name, scheme=scheme) for score in compare(*pair, image, base)]
    return scores


def merge_lobes(codes: Codes) -> Codes:
    """Grey and white matter of one lobe and side under the code of the grey; everything else 0."""
    return grey_of_lobe()[codes]


def compare(reference: Codes, found: Codes, image: Image, scheme: Scheme) -> list[Score]:
    """Score every label that the reference has, on one grid."""
    names = {label.index: label.name for label in label_table(scheme)}
    scores = []
    for index in (int(code) for code in np.unique(reference[reference > 0])):
        a, b = reference == index, found == index
        window = box_around(a | b, 1)
        a, b = a[window], b[window]
        dice = 2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))
        voxel = image.voxel_volume_mm3
        hd95 = hausdorff95_mm(a, b, image.spacing_mm)
        name = names.get(index, str(index))
        scores.append(Score("", "", index, name, dice, hd95, float(a.sum()) * voxel, float(b.sum()) * voxel))
    return scores


def dice_by_label(reference: Codes, found: Codes) -> dict[int, float]:
    """Dice of every label that the reference has."""
    a, b, both = overlap(reference, found)
    present = [int(code) for code in np.flatnonzero(a) if code]
    return {code: round(2 * int(both[code]) / int(a[code] + b[code]), 4) for code in present}


def hausdorff95_mm(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> float:
    """The larger of the two directed 95th percentiles of surface distance in mm; nan for an empty mask."""
    if not (a.any() and b.any()):
        return float("nan")
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    ways = []
    for here, there in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~there, sampling=spacing_mm)
        ways.append(float(np.percentile(distance[here], 95)))
    return max(ways)


def label_means(scores: list[Score]) -> list[tuple[str, str, float, float]]:
    """(scheme, label, mean Dice, mean 95 % Hausdorff distance in mm) of every label over the cases."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.scheme, score.name), []).append(score)
    rows = []
    for (scheme, name), members in groups.items():
        hd95 = [member.hd95_mm for member in members if np.isfinite(member.hd95_mm)]
        dice = float(np.mean([member.dice for member in members]))
        rows.append((scheme, name, dice, float(np.mean(hd95)) if hd95 else float("nan")))
    return rows


def mean_dice(scores: list[Score], scheme: str) -> float:
    """Mean over labels of the mean over cases."""
    means = [dice for found, _, dice, _ in label_means(scores) if found == scheme]
    return float(np.mean(means)) if means else float("nan")


def mean_hd95_mm(scores: list[Score], scheme: str) -> float:
    """Mean over all labels and cases where both sides have the label."""
    values = [score.hd95_mm for score in scores if score.scheme == scheme and np.isfinite(score.hd95_mm)]
    return float(np.mean(values)) if values else float("nan")


def summary(scores: list[Score]) -> dict[str, Any]:
    """Mean Dice and 95 % Hausdorff distance per scheme, for the card."""
    return {
        scheme: {"dice": round(mean_dice(scores, scheme), 4), "hd95_mm": round(mean_hd95_mm(scores, scheme), 2)}
        for scheme in dict.fromkeys(score.scheme for score in scores)
    }


def write_scores(path: Path, by_condition: dict[str, list[Score]]) -> None:
    """One row per condition, case, scheme and label."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(
            ["condition", "case", "scheme", "index", "name", "dice", "hd95_mm", "reference_mm3", "volume_mm3"]
        )
        for condition, scores in by_condition.items():
            for s in scores:
                hd95 = f"{s.hd95_mm:.2f}" if np.isfinite(s.hd95_mm) else "n/a"
                volumes = (f"{s.reference_mm3:.1f}", f"{s.volume_mm3:.1f}")
                writer.writerow([condition, s.case, s.scheme, s.index, s.name, f"{s.dice:.4f}", hd95, *volumes])
