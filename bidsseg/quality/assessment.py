"""Turns the evidence of a segmentation into a verdict with reasons that a person can act on.

*fail*: something went wrong. *check*: something that an eye can settle. What is expected of a scan is held against what
scans of its kind reach (see ``expectation``), so that thick slices alone are no reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bidsseg.errors import some_of
from bidsseg.labels import FLUID, LOBAR_TISSUES, TISSUE, Scheme, is_fluid, label_table
from bidsseg.quality.coverage import FieldOfView, coverage_doubts, is_whole
from bidsseg.quality.evidence import Evidence
from bidsseg.quality.expectation import Calibration, Expectation, expect
from bidsseg.quality.usual import (
    DIRECTIONS,
    asymmetries,
    label_oddness,
    layout,
    lobe_ratios,
    references,
    usual_ratios,
    widening,
)
from bidsseg.segmentation.result import Segmentation

INTRACRANIAL_MM3 = (900e3, 2200e3)
"Range of adults: less or more means a wrong voxel size, or scalp taken for brain."
IMPOSSIBLE_MM3 = (700e3, 2600e3)
"Less or more of a whole head is no adult's."
LEAST_BRAIN_MM3 = 100e3
VERY_ODD = 1.5
"``oddness`` of a value that lies one and a half half-widths outside the usual range."
LOPSIDED = 2.5
"Times the usual bound of asymmetry."
NAMED_AT_MOST = 4


@dataclass(frozen=True)
class Assessment:
    """What is thought of one answer."""

    verdict: str
    "pass, check or fail."
    reasons: tuple[str, ...]
    expectation: Expectation | None = None
    "None without a calibration, or where the scan shows no region."

    @property
    def expected_dice(self) -> float | None:
        """Mean over regions."""
        return self.expectation.dice if self.expectation else None

    @property
    def expected(self) -> dict[str, dict[int, float]]:
        """By scheme and code, of the labels that the scan should show."""
        return self.expectation.expected if self.expectation else {}


def assess(evidence: Evidence, view: FieldOfView, calibration: Calibration | None) -> Assessment:
    """Weigh everything: fail where something went wrong, check where something calls for a look."""
    expectation = expect(evidence, view, calibration) if calibration else None
    bad, doubts = [], []
    if evidence.intracranial_mm3 < LEAST_BRAIN_MM3:
        bad.append(f"hardly any brain was found ({evidence.intracranial_mm3 / 1000:.0f} mL)")
    elif is_whole(evidence, view) and not IMPOSSIBLE_MM3[0] < evidence.intracranial_mm3 < IMPOSSIBLE_MM3[1]:
        bad.append(_odd_volume(evidence))
    if evidence.better_turned:
        bad.append(f"wrong orientation in the header? The scan looks right with {evidence.better_turned}")
    if calibration and expectation and expectation.shortfall > calibration.fail_above:
        bad.append(f"something went wrong: {_shortfall(expectation)}")
    elif calibration and expectation and expectation.shortfall > calibration.check_above:
        doubts.append(f"worse than usual: {_shortfall(expectation)}")
    if not evidence.better_turned:
        doubts += orientation_doubts(evidence)
    doubts += [*coverage_doubts(evidence, view), *volume_doubts(evidence, view)]
    verdict = "fail" if bad else "check" if doubts else "pass"
    return Assessment(verdict, (*bad, *doubts), expectation)


def _odd_volume(evidence: Evidence) -> str:
    return f"intracranial volume {evidence.intracranial_mm3 / 1000:.0f} mL; is the voxel size right?"


def _shortfall(found: Expectation) -> str:
    return f"expected Dice {found.dice:.2f}, scans of this kind reach {found.reach:.2f}; {found.hint}"


def orientation_doubts(evidence: Evidence) -> list[str]:
    """Regions that lie the other way round, or along another axis, than in any head."""
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


def volume_doubts(evidence: Evidence, view: FieldOfView) -> list[str]:
    """Volumes and left-right differences far from what is usual, where the whole brain is in view."""
    if not is_whole(evidence, view):
        return []
    doubts = []
    low, high = INTRACRANIAL_MM3
    if IMPOSSIBLE_MM3[0] < evidence.intracranial_mm3 < IMPOSSIBLE_MM3[1] and not low < evidence.intracranial_mm3 < high:
        doubts.append(_odd_volume(evidence))
    odd = sorted(
        ((value, code) for code, value in label_oddness(evidence, "regions", view.slice_mm).items()), reverse=True
    )
    strange = [code for value, code in odd if value > VERY_ODD and not _grown_fluid(evidence, code)]
    lopsided = [
        f"{_name(code)} {100 * asymmetry:+.0f} %"
        for code, (asymmetry, limit) in asymmetries(evidence).items()
        if limit is not None and abs(asymmetry) > LOPSIDED * limit * widening(view.slice_mm)
    ]
    if strange:
        doubts.append(f"volumes far from the usual: {some_of([_name(code) for code in strange], NAMED_AT_MOST)}")
    if lopsided:
        doubts.append(f"left and right differ more than is usual: {some_of(lopsided, NAMED_AT_MOST)}")
    return [*doubts, *ratio_doubts(evidence, widening(view.slice_mm))]


def ratio_doubts(evidence: Evidence, wider: float) -> list[str]:
    """Lobes whose cortex is too large or too small for their white matter; the usual range is widened at both ends."""
    doubts = []
    found = lobe_ratios({code: sums.voxels for code, sums in evidence.sums["regions"].items()})
    for lobe, usual in usual_ratios().items():
        low, high = usual[0] / wider, usual[1] * wider
        ratio = found.get(lobe, low)
        if not low <= ratio <= high:
            swallowed, by = ("white matter", "cortex") if ratio > high else ("cortex", "white matter")
            doubts.append(
                f"{lobe} cortex is {ratio:.1f} times its white matter (usual {low:.1f}-{high:.1f}): "
                f"{by} may have swallowed {swallowed}"
            )
    return doubts


def _grown_fluid(evidence: Evidence, code: int) -> bool:
    usual = references()["regions"][code]
    return (
        is_fluid("regions", code) and evidence.sums["regions"][code].voxels > usual.middle * evidence.intracranial_mm3
    )


def _name(code: int, scheme: Scheme = "regions") -> str:
    return next(label.name for label in label_table(scheme) if label.index == code)


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
        **_expectation_json(found.expectation),
        "WhiteMatterUnevenness": evidence.unevenness,
        "LayoutDistanceMm": round(layout(evidence).disorder_mm, 1),
        "Asymmetry": {_name(code): round(value, 4) for code, (value, _) in pairs},
    }


def _expectation_json(found: Expectation | None) -> dict[str, float]:
    return {"ExpectedDice": round(found.dice, 4), "ReachableDice": round(found.reach, 4)} if found else {}


def quality(segmentation: Segmentation) -> dict[str, Any]:
    """Numbers that tell a doubtful segmentation from a good one."""
    brain = segmentation.tissue > 0
    tissue, side = segmentation.tissue[brain], segmentation.side[brain]  # a small part of most scans
    cerebrum = np.isin(tissue, [TISSUE[name] for name in LOBAR_TISSUES])
    solid = np.count_nonzero(~np.isin(tissue, [TISSUE[name] for name in FLUID]))
    left, right = (int(np.count_nonzero(cerebrum & (side == number))) for number in (0, 1))
    return {
        "IntracranialVolumeMm3": round(float(tissue.size) * segmentation.voxel_volume_mm3, 1),
        "BrainParenchymalFraction": round(float(solid / max(tissue.size, 1)), 4),
        "CerebralAsymmetry": round((left - right) / max(left + right, 1), 4),
        "MeanConfidence": round(float(segmentation.confidence[brain].mean(dtype=np.float64)), 4)
        if tissue.size
        else 0.0,
        "EdgeFraction": round(segmentation.edge_fraction, 4),
    }
