"""The Dice to be expected of a segmentation, and the Dice that scans of its kind can reach.

Both are logistic functions, with an offset for each label, fitted by ``brainseg-cli calibrate`` on held-out scans of
every kind, clean and damaged, and kept in the model's card. What a kind of scan can reach depends on its slices, its
contrast and its field of view alone; what is to be expected of an answer, on all that it tells about itself
(``FEATURES``). An answer is poor where the second falls short of the first: thick slices are no fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import UserError
from bidsseg.labels import CSF
from bidsseg.quality.coverage import SHORTEST_MM, FieldOfView, is_cut, is_whole
from bidsseg.quality.evidence import Evidence
from bidsseg.quality.usual import MOST_ODD, label_oddness, layout

KIND = (
    *("constant", "thickness", "few_slices", "few_sagittal_slices"),
    *("white_brighter", "fluid_brighter", "surroundings", "other_outlines"),
)
"What kind of scan it is; the last is 1 for what the study has of another outlining protocol, and 0 in use."
OTHER_OUTLINES = KIND.index("other_outlines")
FEATURES = (
    *KIND,
    *("soft_dice", "scan_soft_dice", "median_soft_dice"),
    *("oddness", "scan_oddness", "disorder", "layout", "ripple", "noise"),
)
"""What is known of an answer. The confidence in all regions has a mean and a median: where most are sure and few are
not, as in thick slices, the few say little of the others."""
HINTS = {
    "scan_oddness": "volumes are out of the ordinary: look whether the voxel size is right and the brain is whole",
    "disorder": "structures lie oddly: look whether orientation and voxel size are right",
    "layout": "structures lie oddly: look whether orientation and voxel size are right",
    "ripple": "white matter is uneven: look for ghosts of movement",
    "noise": "look for noise",
}
"What to look for, by the feature that stands out most."
UNSURE = "the network is unsure: look for artefacts, a wrong header or an unusual contrast"
"Where none does."
STANDS_OUT = 2.5
"Standard deviations from the mean of clean scans."
LEAST_SPREAD = 0.02
"Smaller differences of a feature mean nothing."
WIDEST_MM = 120.0
"Fewer slices than cover so much show a part of the brain."
T1W_CONTRAST = 0.1
"White matter is brighter than cortex by at least this in T1w, where the brain has grey values 0-1."
LEAST_CONTRAST = 0.05
"Of white matter with cortex, likewise; unevenness is measured against no less."
SURROUNDED = 0.15
"Share of bright voxels around the brain, from which on it is a whole head."
USUAL_LAYOUT = -0.25
"Usual ``Evidence.layout_fit`` of a whole brain in the right orientation."
Row = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A logistic function of some features, for every label of a scheme."""

    weights: list[float]
    offsets: dict[str, float]
    "Offsets by code, added to the logit."

    def __call__(self, codes: list[int], rows: Row) -> dict[int, float]:
        """Dice by code, 0-1, from the features (N, F) of N labels."""
        logits = rows @ np.array(self.weights) + [self.offsets.get(str(code), 0.0) for code in codes]
        return {code: float(1 / (1 + math.exp(-value))) for code, value in zip(codes, logits, strict=True)}


@dataclass(frozen=True)
class Calibration:
    """How evidence becomes expected Dice; in the model's card."""

    expected: dict[str, Curve]
    "Curves of ``FEATURES`` by scheme."
    reachable: dict[str, Curve]
    "Curves of ``KIND`` by scheme."
    usual: list[float]
    "Mean of ``FEATURES`` over clean scans."
    spread: list[float]
    "Standard deviation of ``FEATURES`` over clean scans."
    fail_above: float
    "Shortfall, mean over regions, above which a scan fails."
    check_above: float
    "Shortfall above which it deserves a look."
    about: dict[str, Any] = field(default_factory=dict)
    "What it was fitted on, and how well it predicts scans that it was not fitted on."
    features: tuple[str, ...] = FEATURES

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def calibration_from(stored: Mapping[str, Any]) -> Calibration | None:
    """What ``Calibration.as_json`` gave; None for an empty mapping or one of other features.

    Raises ``UserError`` for anything else.
    """
    try:
        if tuple(stored.get("features", ())) != FEATURES:
            return None
        curves = {
            name: {scheme: Curve(**curve) for scheme, curve in stored[name].items()}
            for name in ("expected", "reachable")
        }
        return Calibration(**{**stored, **curves, "features": FEATURES})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError("the quality in the model's card is damaged; install bidsseg again") from error


@dataclass(frozen=True)
class Expectation:
    """Of one answer."""

    expected: dict[str, dict[int, float]]
    "Dice by scheme and code, of the labels that the scan should show."
    reachable: dict[str, dict[int, float]]
    "Dice of such scans, likewise."
    hint: str
    "What to look for, in words."

    @property
    def dice(self) -> float:
        """Expected, mean over regions."""
        return float(np.mean(list(self.expected["regions"].values())))

    @property
    def reach(self) -> float:
        """Dice that such scans reach, mean over regions."""
        return float(np.mean(list(self.reachable["regions"].values())))

    @property
    def shortfall(self) -> float:
        return self.reach - self.dice


def expected_labels(evidence: Evidence, view: FieldOfView, scheme: str) -> list[int]:
    """Codes that the scan should show: all of the scheme but fluid around the brain, or those found in part of it."""
    cut = is_cut(evidence, view)
    return [code for code, s in evidence.sums[scheme].items() if code != CSF and (s.voxels > 0 or not cut)]


def kind(evidence: Evidence, view: FieldOfView) -> list[float]:
    """``KIND`` of a scan, known without the truth."""
    few = max(math.log(WIDEST_MM / max(view.slices * view.slice_mm, 1.0)), 0.0)
    return [
        1.0,
        min(view.slice_mm, 10.0) / 10,
        few,
        few if view.axis == 0 else 0.0,
        float(evidence.white_over_grey > T1W_CONTRAST),
        float(evidence.fluid_over_white > 0),
        float(evidence.surroundings > SURROUNDED),
        0.0,
    ]


def features(evidence: Evidence, view: FieldOfView, scheme: str) -> tuple[list[int], Row]:
    """Codes (N,) and their ``FEATURES`` (N, F); volumes and places count where the whole brain is in view."""
    codes = expected_labels(evidence, view, scheme)
    whole = is_whole(evidence, view)
    regions = expected_labels(evidence, view, "regions")
    soft = [_logit(evidence.sums["regions"][code].soft_dice) for code in regions] or [-4.0]
    odd, scan_odd, disorder, misfit = dict.fromkeys(codes, 0.0), 0.0, 0.0, 0.0
    if whole:
        odd, all_odd = (label_oddness(evidence, one, view.slice_mm) for one in (scheme, "regions"))
        scan_odd = float(np.mean([all_odd[code] for code in regions])) if regions else MOST_ODD
        disorder = min(layout(evidence).disorder_mm / 10, 5.0)
    if view.smallest_extent_mm >= SHORTEST_MM and whole:
        misfit = min(max(USUAL_LAYOUT - evidence.layout_fit, 0.0), 0.5)
    ripple = min(evidence.unevenness / max(abs(evidence.white_over_grey), LEAST_CONTRAST), 1.0)
    sure, scan = (np.mean(soft), np.median(soft)), (scan_odd, disorder, misfit, ripple, 10 * evidence.noise)
    rows = [
        [*kind(evidence, view), _logit(evidence.sums[scheme][code].soft_dice), *sure, odd[code], *scan]
        for code in codes
    ]
    return codes, np.array(rows, np.float64).reshape(-1, len(FEATURES))


def _logit(share: float) -> float:
    share = min(max(share, 0.02), 0.98)
    return math.log(share / (1 - share))


def expect(evidence: Evidence, view: FieldOfView, calibration: Calibration) -> Expectation | None:
    """Expected and reachable Dice of every label that the scan should show; None where it shows no region."""
    expected: dict[str, dict[int, float]] = {}
    reachable: dict[str, dict[int, float]] = {}
    for scheme in evidence.sums:
        codes, rows = features(evidence, view, scheme)
        if not codes:
            return None
        expected[scheme] = calibration.expected[scheme](codes, rows)
        reachable[scheme] = calibration.reachable[scheme](codes, rows[:, : len(KIND)])
    mean = features(evidence, view, "regions")[1].mean(0)
    return Expectation(expected, reachable, _hint(mean, calibration))


def _hint(mean: Row, calibration: Calibration) -> str:
    """What stands out most from clean scans."""
    beyond = (mean - np.array(calibration.usual)) / np.maximum(np.array(calibration.spread), LEAST_SPREAD)
    found = {name: float(beyond[FEATURES.index(name)]) for name in HINTS}
    worst = max(found, key=lambda name: found[name])
    return HINTS[worst] if found[worst] > STANDS_OUT else UNSURE
