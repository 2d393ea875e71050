"""From the evidence of an answer to a verdict: expected Dice, volumes and sides against what is usual, warnings.

The expected Dice of a label is a logistic function of what can be measured without the truth (``FEATURES``), fitted by
``brainseg-cli calibrate`` on damaged held-out scans and kept in the model's card.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import UserError
from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.imaging.image import Image
from bidsseg.labels import LOBAR_TISSUES, TISSUE, Scheme, label_table, other_sides
from bidsseg.quality.evidence import FACES, Evidence
from bidsseg.segmentation.result import Segmentation

GOOD_DICE = 0.75
"A scan whose regions have less, on average, should fail."
FEATURES = (
    *("constant", "soft_dice", "scan_soft_dice", "oddness"),
    *("scan_oddness", "scan_disorder", "scan_ripple", "scan_noise"),
)
USUAL_UNEVENNESS = 0.09
"Of white matter in a T1w scan without movement."
LEAST_UNEVENNESS = 0.05
"Of white matter that is seen: less is left where noise, which is taken off, is all that varies."
T1W_CONTRAST = 0.1
"White matter is brighter than cortex by at least this, of 0-1, where movement can be told from what is usual."
MOST_ODD = 4.0
LEAST_HALF_WIDTH = math.log(1.25)
"Of a usual range: a dozen brains, outlined by one team, differ less than brains and outlines do."
FEW_VOXELS = 50
"Of 1 mm3: the place of a smaller label says little."
CUT_MM2 = 400.0
"Of brain on a face of the field of view; less is the edge of the brain, or a little scalp taken for it."
CEREBELLUM_CUT_MM2 = 100.0
FEWEST_SLICES = 10
THICKEST_MM = 8.0
SHORTEST_MM = 80.0
INTRACRANIAL_MM3 = (900e3, 2200e3)
"Of adults: less or more means a wrong voxel size, or scalp taken for brain."
LEAST_BRAIN_MM3 = 100e3
VERY_ODD = 1.5
"Of ``oddness``: as far outside the usual range as one and a half of its half widths."
LOPSIDED = 2.5
"Times the usual bound of asymmetry."
GROWS_IN_DISEASE = frozenset({4, 5, 14, 15, 24, 43, 44})
"Fluid, whose large volume is a finding, not an error."
NAMED_AT_MOST = 4
DIRECTIONS = (("left", "right"), ("back", "front"), ("bottom", "top"))


@dataclass(frozen=True)
class Geometry:
    """The scan's field of view, which quality depends on."""

    slices: int
    "Voxels along the axis of the largest spacing."
    slice_mm: float
    "The largest spacing."
    smallest_extent_mm: float
    "The field of view's shortest side."


@dataclass(frozen=True)
class Reference:
    """What is usual for one label in the training population."""

    low: float
    high: float
    middle: float
    "Volume over intracranial volume: ends of the 90 % interval, and the median."
    asymmetry: float | None
    "Bound of |left - right| over their mean."
    centre_mm: tuple[float, float, float]
    "From the middle of the brain, RAS."


@dataclass(frozen=True)
class Calibration:
    """How evidence becomes expected Dice; in the model's card."""

    weights: dict[str, list[float]]
    "By scheme, one number for each of ``FEATURES``."
    offsets: dict[str, dict[str, float]]
    "By scheme and code, added to the logit."
    fail_below: float = GOOD_DICE
    "Expected Dice, mean over regions, below which a scan fails."
    about: dict[str, Any] = field(default_factory=dict)
    "What it was fitted on, and how well it predicts scans that it was not fitted on."

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Assessment:
    """What is thought of one answer."""

    verdict: str
    "pass, check or fail."
    reasons: tuple[str, ...]
    expected_dice: float | None
    "Mean over regions; None without a calibration."
    expected: dict[str, dict[int, float]] = field(default_factory=dict)
    "By scheme and code, of the labels that were found."


def geometry(image: Image) -> Geometry:
    """The field of view of a scan."""
    spacing = voxel_spacing_mm(image.affine)
    thickest = int(np.argmax(spacing))
    extent = [n * mm for n, mm in zip(image.data.shape, spacing, strict=True)]
    return Geometry(image.data.shape[thickest], round(float(spacing[thickest]), 3), round(float(min(extent)), 1))


@cache
def references() -> dict[str, dict[int, Reference]]:
    """By scheme and code; from ``tables/reference_volumes.tsv``, which ``brainseg-cli reference`` writes."""
    table = files("bidsseg") / "tables" / "reference_volumes.tsv"
    if not table.is_file():
        return {}
    found: dict[str, dict[int, Reference]] = {}
    for row in csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")), delimiter="\t"):
        centre = (float(row["right_mm"]), float(row["anterior_mm"]), float(row["superior_mm"]))
        asymmetry = None if row["asymmetry"] == "n/a" else float(row["asymmetry"])
        reference = Reference(float(row["low"]), float(row["high"]), float(row["middle"]), asymmetry, centre)
        found.setdefault(row["scheme"], {})[int(row["index"])] = reference
    return found


def calibration_from(stored: Mapping[str, Any]) -> Calibration | None:
    """What ``Calibration.as_json`` gave; None for an empty mapping or one of other features.

    Raises ``UserError`` for anything else.
    """
    try:
        if not stored or any(len(weights) != len(FEATURES) for weights in stored["weights"].values()):
            return None
        numbers = [stored.get("fail_below", GOOD_DICE), *chain(*stored["weights"].values())]
        numbers += chain(*(offsets.values() for offsets in stored["offsets"].values()))
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise TypeError("a number is none")
        return Calibration(**stored)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError("the quality in the model's card is damaged; install bidsseg again") from error


def oddness(fraction: float, usual: Reference | None) -> float:
    """How far a volume lies outside the usual range, in half widths of it (log scale), 0 to ``MOST_ODD``."""
    if usual is None:
        return 0.0
    if fraction <= 0:
        return MOST_ODD
    half = max(math.log(usual.high / usual.low) / 2, LEAST_HALF_WIDTH)
    return min(max(abs(math.log(fraction / usual.middle)) / half - 1, 0.0), MOST_ODD)


def label_oddness(evidence: Evidence, scheme: str) -> dict[int, float]:
    """``oddness`` of every label."""
    usual = references().get(scheme, {})
    total = max(evidence.intracranial_mm3, 1.0)
    return {code: oddness(sums.voxels / total, usual.get(code)) for code, sums in evidence.sums[scheme].items()}


@dataclass(frozen=True)
class Layout:
    """How labels lie to each other, against what is usual."""

    disorder_mm: float
    "Root mean square distance from their usual places, after the best shift and scaling along each axis."
    likeness: NDArray[np.float64]
    "(3, 3) correlation of the positions along each axis found (rows) with those usual (columns), -1 to 1."


def layout(evidence: Evidence) -> Layout:
    """Compare the centres of all regions with the usual; with fewer than six regions there is nothing to compare."""
    usual = references().get("regions", {})
    codes = [code for code, sums in evidence.sums["regions"].items() if sums.voxels >= FEW_VOXELS and code in usual]
    if len(codes) < 6:
        return Layout(0.0, np.eye(3))
    found = np.array([evidence.sums["regions"][code].centre for code in codes])
    wanted = np.array([usual[code].centre_mm for code in codes])
    found, wanted = found - found.mean(0), wanted - wanted.mean(0)
    scale = np.clip((found * wanted).sum(0) / np.maximum((wanted**2).sum(0), 1), 0.6, 1.6)
    spread = np.outer(np.sqrt((found**2).sum(0)), np.sqrt((wanted**2).sum(0)))
    distance = np.sqrt(((found - scale * wanted) ** 2).sum(1).mean())
    likeness = np.divide(found.T @ wanted, spread, out=np.zeros((3, 3)), where=spread > 0)
    return Layout(float(distance), likeness)


def is_cut(evidence: Evidence) -> bool:
    """Whether the field of view ends within the brain."""
    return max(evidence.cut_mm2.values(), default=0.0) > CUT_MM2


def expected_labels(evidence: Evidence, scheme: str) -> list[int]:
    """Codes that the scan should show: all of the scheme but fluid around the brain, or those found in part of it."""
    return [code for code, s in evidence.sums[scheme].items() if code != 24 and (s.voxels > 0 or not is_cut(evidence))]


def features(evidence: Evidence, scheme: str) -> tuple[list[int], NDArray[np.float64]]:
    """Codes (N,) and their ``FEATURES`` (N, 8)."""
    codes = expected_labels(evidence, scheme)
    odd = label_oddness(evidence, scheme)
    soft = [_logit(evidence.sums[scheme][code].soft_dice) for code in codes]
    regions = expected_labels(evidence, "regions")
    scan_soft = np.mean([_logit(evidence.sums["regions"][code].soft_dice) for code in regions]) if regions else -4.0
    scan_odd = np.mean([label_oddness(evidence, "regions")[code] for code in regions]) if regions else MOST_ODD
    disorder = min(layout(evidence).disorder_mm / 10, 5.0)
    whole = (scan_odd, disorder, ripple(evidence), 10 * max(LEAST_UNEVENNESS - evidence.unevenness, 0.0))
    rows = [[1.0, one, scan_soft, odd[code], *whole] for code, one in zip(codes, soft, strict=True)]
    return codes, np.array(rows, np.float64).reshape(-1, len(FEATURES))


def ripple(evidence: Evidence) -> float:
    """Unevenness of white matter above the usual; 0 in other contrasts than T1w's, where clean scans are uneven too."""
    if evidence.white_over_grey < T1W_CONTRAST:
        return 0.0
    return 10 * max(evidence.unevenness - USUAL_UNEVENNESS, 0.0)


def _logit(share: float) -> float:
    share = min(max(share, 0.02), 0.98)
    return math.log(share / (1 - share))


def expect(evidence: Evidence, scheme: str, calibration: Calibration) -> dict[int, float]:
    """Expected Dice of every label that the scan should show, 0-1."""
    codes, rows = features(evidence, scheme)
    offsets = [calibration.offsets[scheme].get(str(code), 0.0) for code in codes]
    logits = rows @ np.array(calibration.weights[scheme]) + np.array(offsets)
    return {code: float(1 / (1 + math.exp(-value))) for code, value in zip(codes, logits, strict=True)}


def assess(evidence: Evidence, view: Geometry, calibration: Calibration | None) -> Assessment:
    """Weigh everything: fail where the answer is expected to be bad, check where something calls for a look."""
    expected = {scheme: expect(evidence, scheme, calibration) for scheme in evidence.sums} if calibration else {}
    mean = float(np.mean(list(expected["regions"].values()))) if expected.get("regions") else None
    bad = []
    if evidence.intracranial_mm3 < LEAST_BRAIN_MM3:
        bad.append(f"hardly any brain was found ({evidence.intracranial_mm3 / 1000:.0f} mL)")
    if calibration and mean is not None and mean < calibration.fail_below:
        bad.append(f"the labels are likely poor: expected Dice {mean:.2f}, below {calibration.fail_below:.2f}")
    doubts = [*orientation_doubts(evidence), *coverage_doubts(evidence, view), *volume_doubts(evidence, view)]
    verdict = "fail" if bad else "check" if doubts else "pass"
    return Assessment(verdict, (*bad, *doubts), mean, expected)


def orientation_doubts(evidence: Evidence) -> list[str]:
    """Regions that lie the other way round, or along another axis, than in any head."""
    if evidence.better_turned:
        return [f"wrong orientation in the header? The scan looks right with {evidence.better_turned}"]
    likeness = layout(evidence).likeness
    doubts = []
    for axis, (low, high) in enumerate(DIRECTIONS):
        best = int(np.argmax(np.abs(likeness[axis])))
        if best != axis and abs(likeness[axis, best]) > 0.5:
            other = " to ".join(DIRECTIONS[best])
            doubts.append(f"wrong orientation in the header? What it calls {low} to {high} looks like {other}")
        elif likeness[axis, axis] < -0.2:
            doubts.append(f"wrong orientation in the header? {low.capitalize()} and {high} look exchanged")
    return doubts


def coverage_doubts(evidence: Evidence, view: Geometry) -> list[str]:
    """A field of view that cuts the brain, or shows little of it."""
    doubts = [
        f"the field of view cuts the brain at the {face} ({evidence.cut_mm2[face] / 100:.0f} cm2)"
        for face in FACES
        if evidence.cut_mm2.get(face, 0.0) > CUT_MM2
    ]
    if evidence.cerebellum_cut_mm2 > CEREBELLUM_CUT_MM2:
        doubts.append("the field of view cuts the cerebellum")
    if view.slices < FEWEST_SLICES:
        doubts.append(f"only {view.slices} slices")
    if view.slice_mm > THICKEST_MM:
        doubts.append(f"slices {view.slice_mm:g} mm apart")
    if view.smallest_extent_mm < SHORTEST_MM:
        doubts.append(f"the field of view is only {view.smallest_extent_mm:.0f} mm wide")
    return doubts


def volume_doubts(evidence: Evidence, view: Geometry) -> list[str]:
    """Volumes and left-right differences far from what is usual, where the whole brain is in view."""
    if is_cut(evidence) or view.slices < FEWEST_SLICES:
        return []
    doubts = []
    low, high = INTRACRANIAL_MM3
    if not low < evidence.intracranial_mm3 < high:
        doubts.append(f"intracranial volume {evidence.intracranial_mm3 / 1000:.0f} mL; is the voxel size right?")
    odd = sorted(((value, code) for code, value in label_oddness(evidence, "regions").items()), reverse=True)
    strange = [code for value, code in odd if value > VERY_ODD and not _grown_fluid(evidence, code)]
    lopsided = [
        f"{_name(code)} {100 * asymmetry:+.0f} %"
        for code, (asymmetry, limit) in asymmetries(evidence).items()
        if limit is not None and abs(asymmetry) > LOPSIDED * limit
    ]
    if strange:
        doubts.append(f"volumes far from the usual: {_some([_name(code) for code in strange])}")
    if lopsided:
        doubts.append(f"left and right differ more than is usual: {_some(lopsided)}")
    return doubts


def _grown_fluid(evidence: Evidence, code: int) -> bool:
    usual = references()["regions"][code]
    return code in GROWS_IN_DISEASE and evidence.sums["regions"][code].voxels > usual.middle * evidence.intracranial_mm3


def asymmetries(evidence: Evidence) -> dict[int, tuple[float, float | None]]:
    """By code of the left region: left less right over their mean, and the usual bound of its size."""
    usual, sums = references().get("regions", {}), evidence.sums["regions"]
    left = [label.index for label in label_table("regions") if label.hemisphere == "L"]
    found = {}
    for code in left:
        a, b = sums[code].voxels, sums[other_sides("regions")[code]].voxels
        if a + b > 0:
            found[code] = (2 * (a - b) / (a + b), usual[code].asymmetry if code in usual else None)
    return found


def _name(code: int, scheme: Scheme = "regions") -> str:
    return next(label.name for label in label_table(scheme) if label.index == code)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(names[:NAMED_AT_MOST]) + more


def quality_file(
    judged: tuple[Evidence, Assessment] | None,
    segmentation: Segmentation,
    warnings: Sequence[str],
    made_with: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of a scan's quality file: verdict and reasons, measures, warnings, and how the labels were made."""
    verdict = quality_json(*judged) if judged else {}
    return {**verdict, **quality(segmentation), "Warnings": list(warnings), **made_with}


def quality_json(evidence: Evidence, found: Assessment) -> dict[str, Any]:
    """Verdict, reasons, and the measures behind them."""
    pairs = asymmetries(evidence).items()
    return {
        "Verdict": found.verdict,
        "Reasons": list(found.reasons),
        **({"ExpectedDice": round(found.expected_dice, 4)} if found.expected_dice is not None else {}),
        "WhiteMatterUnevenness": evidence.unevenness,
        "LayoutDistanceMm": round(layout(evidence).disorder_mm, 1),
        "Asymmetry": {_name(code): round(value, 4) for code, (value, _) in pairs},
    }


def quality(segmentation: Segmentation) -> dict[str, Any]:
    """Numbers that tell a doubtful segmentation from a good one."""
    brain = segmentation.tissue > 0
    cerebrum = np.isin(segmentation.tissue, [TISSUE[name] for name in LOBAR_TISSUES])
    left = int((cerebrum & (segmentation.side == 0)).sum())
    right = int((cerebrum & (segmentation.side == 1)).sum())
    return {
        "IntracranialVolumeMm3": round(float(brain.sum()) * segmentation.voxel_volume_mm3, 1),
        "CerebralAsymmetry": round((left - right) / max(left + right, 1), 4),
        "MeanConfidence": round(float(segmentation.confidence[brain].mean(dtype=np.float64)), 4)
        if brain.any()
        else 0.0,
        "EdgeFraction": round(segmentation.edge_fraction, 4),
    }
