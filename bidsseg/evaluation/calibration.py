"""Fit what quality control needs from a study of damaged scans, and tell how well it works on scans it never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.evaluation.damage_study import Trial
from bidsseg.quality.assessment import FEATURES, GOOD_DICE, Assessment, Calibration, assess, features
from bidsseg.quality.evidence import SCORED

RIDGE = 1e-3
FOUND = 0.9
"Share of the bad trials that fail in the fit; of scans left out some fewer do."
OFFSET_RIDGE = 0.02
"Keeps the offsets of single labels small where few trials speak for them; shares of the summed weights."
INVISIBLE = ("left to right",)
"Kinds of damage that no image shows: a mirrored brain looks like a brain."


@dataclass(frozen=True)
class Foretold:
    """A trial, and what was thought of it without having seen its scan."""

    trial: Trial
    assessment: Assessment

    @property
    def bad(self) -> bool:
        return self.trial.mean_dice < GOOD_DICE


def fit(trials: Sequence[Trial]) -> Calibration:
    """Ridge regression of the logit of Dice on the features, an offset for each label; and the limit of failing."""
    weights: dict[str, list[float]] = {}
    offsets: dict[str, dict[str, float]] = {}
    for scheme in SCORED:
        codes, rows, dice = _table(trials, scheme)
        known = sorted(set(codes.tolist()))
        design = np.hstack((rows, codes[:, None] == np.array(known)))
        clipped = np.clip(dice, 0.02, 0.98)
        importance = clipped * (1 - clipped)  # errors of Dice count, not of its logit
        penalty = np.repeat((RIDGE, OFFSET_RIDGE), (len(FEATURES), len(known))) * importance.sum() / len(known)
        target = np.log(clipped / (1 - clipped))
        normal = design.T @ (design * importance[:, None]) + np.diag(penalty)
        solution = np.linalg.solve(normal, design.T @ (importance * target))
        weights[scheme] = [round(float(w), 4) for w in solution[: len(FEATURES)]]
        tail = solution[len(FEATURES) :]
        offsets[scheme] = {str(code): round(float(value), 4) for code, value in zip(known, tail, strict=True)}
    calibration = Calibration(weights, offsets)
    return replace(calibration, fail_below=fail_limit(trials, calibration))


def fail_limit(trials: Iterable[Trial], calibration: Calibration) -> float:
    """The expected Dice, in hundredths, below which ``FOUND`` of the bad trials lie; ``GOOD_DICE`` at least.

    Expectations lean towards the mean, so that many a bad scan is expected to be just good enough.
    """
    bad = [trial for trial in trials if trial.damage.kind not in INVISIBLE and trial.mean_dice < GOOD_DICE]
    expected = sorted(assess(trial.evidence, trial.geometry, calibration).expected_dice or 0.0 for trial in bad)
    if not expected:
        return GOOD_DICE
    last_found = expected[math.ceil(FOUND * len(expected)) - 1]
    return max(GOOD_DICE, math.floor(100 * last_found + 1) / 100)


def _table(trials: Sequence[Trial], scheme: str) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Codes (N,), features (N, 8) and Dice (N,) of all labels that both the truth has and the scan should show."""
    parts = []
    for trial in trials:
        if trial.damage.kind in INVISIBLE:
            continue
        codes, rows = features(trial.evidence, scheme)
        kept = [n for n, code in enumerate(codes) if code in trial.dice[scheme]]
        parts.append((np.array(codes)[kept], rows[kept], np.array([trial.dice[scheme][codes[n]] for n in kept])))
    columns = [np.concatenate([part[n] for part in parts]) for n in range(3)]
    return columns[0].astype(np.int64), columns[1], columns[2]


Same = Callable[[Trial, Trial], bool]


def same_scan(one: Trial, other: Trial) -> bool:
    return one.scan == other.scan


def same_scan_or_kind(one: Trial, other: Trial) -> bool:
    """Neither the scan nor this kind of damage was in the fit."""
    return one.scan == other.scan or one.damage.kind == other.damage.kind


def foretell(trials: Sequence[Trial], same: Same) -> list[Foretold]:
    """Assess every trial with a calibration fitted to the trials that have nothing to do with it."""
    fitted: dict[tuple[str, ...], Calibration] = {}
    foretold = []
    for trial in trials:
        others = [other for other in trials if not same(trial, other)]
        key = (trial.scan, trial.damage.kind if same is same_scan_or_kind else "")
        if key not in fitted:
            fitted[key] = fit(others)
        foretold.append(Foretold(trial, assess(trial.evidence, trial.geometry, fitted[key])))
    return foretold


def correlations(foretold: Iterable[Foretold]) -> dict[str, float]:
    """Pearson's r of expected and true Dice: of scans (mean over regions), and of single labels by scheme."""
    visible = [one for one in foretold if one.trial.damage.kind not in INVISIBLE]
    found = {"scan": _r([(one.assessment.expected_dice or 0.0, one.trial.mean_dice) for one in visible])}
    for scheme in SCORED:
        pairs = [
            (one.assessment.expected[scheme][code], dice)
            for one in visible
            for code, dice in one.trial.dice[scheme].items()
            if code in one.assessment.expected[scheme]
        ]
        found[scheme] = _r(pairs)
    return found


def _r(pairs: Sequence[tuple[float, float]]) -> float:
    return round(float(np.corrcoef(np.array(pairs).T)[0, 1]), 3) if len(pairs) > 2 else float("nan")


def mean_error(foretold: Iterable[Foretold]) -> float:
    """Mean absolute difference of expected and true mean Dice of scans."""
    visible = [one for one in foretold if one.trial.damage.kind not in INVISIBLE]
    errors = [abs((one.assessment.expected_dice or 0.0) - one.trial.mean_dice) for one in visible]
    return round(float(np.mean(errors)), 3)


@dataclass(frozen=True)
class Detection:
    """How well a verdict finds bad segmentations."""

    bad: int
    found: int
    "Of the bad."
    good: int
    false_alarms: int
    "Of the good."

    @property
    def text(self) -> str:
        found = f"{self.found} of {self.bad} bad found" + (f" ({self.found / self.bad:.0%})" if self.bad else "")
        share = f" ({self.false_alarms / self.good:.0%})" if self.good else ""
        return f"{found}, {self.false_alarms} false alarms among {self.good} good{share}"


def detection(foretold: Iterable[Foretold], verdicts: Sequence[str], visible: bool = True) -> Detection:
    """Count; a trial is found if its verdict is among ``verdicts``; with ``visible`` without ``INVISIBLE`` damage."""
    counted = [one for one in foretold if not (visible and one.trial.damage.kind in INVISIBLE)]
    flagged = [(one.bad, one.assessment.verdict in verdicts) for one in counted]
    bad = sum(is_bad for is_bad, _ in flagged)
    hits = sum(is_bad and flag for is_bad, flag in flagged)
    alarms = sum(flag and not is_bad for is_bad, flag in flagged)
    return Detection(bad, hits, len(flagged) - bad, alarms)


def calibrate(trials: Sequence[Trial]) -> tuple[Calibration, list[Foretold]]:
    """The calibration from all trials, and what those that left out each trial's scan foretold of it."""
    by_scan = foretell(trials, same_scan)
    by_kind = foretell(trials, same_scan_or_kind)
    return replace(fit(trials), about=_about(trials, by_scan, by_kind)), by_scan


def _about(trials: Sequence[Trial], by_scan: list[Foretold], by_kind: list[Foretold]) -> dict[str, Any]:
    told: dict[str, Any] = {"scans": sorted({trial.scan for trial in trials}), "trials": len(trials)}
    for name, foretold in (("scan left out", by_scan), ("scan and kind of damage left out", by_kind)):
        told[name] = {
            "correlation": correlations(foretold),
            "mean_absolute_error_of_scans": mean_error(foretold),
            "fail": detection(foretold, ("fail",)).text,
            "check or fail": detection(foretold, ("check", "fail")).text,
            "fail, mirrored scans included": detection(foretold, ("fail",), visible=False).text,
        }
    return told
