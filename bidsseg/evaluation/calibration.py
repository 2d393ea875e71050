"""Fits the calibration of quality control to the damage study, and measures it on scans left out of the fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import lsq_linear

from bidsseg.evaluation.damage_study import Trial
from bidsseg.quality.assessment import Assessment, assess
from bidsseg.quality.coverage import is_whole
from bidsseg.quality.evidence import SCORED
from bidsseg.quality.expectation import FEATURES, KIND, OTHER_OUTLINES, Calibration, Curve, features

RIDGE, OFFSET_RIDGE = 1e-3, 0.02
"Keep weights, and offsets of single labels, small where few trials speak for them; shares of the summed weights."
TROUBLES = ("oddness", "scan_oddness", "disorder", "layout", "ripple")
"Features that can lower an expectation, and never raise it."
BORNE = ("noise",)
"""Features that can raise an expectation, and never lower it: the network is less sure in noise than it need be. Ghosts
of movement look like a little noise; a weight learned from them alone would condemn every noisy scan."""
BAD = 0.1
"Shortfall of Dice, mean over regions: a scan that is this far below what its kind reaches is bad,"
GOOD = 0.05
"by less than this good; between them either verdict is right."
NEVER = 9.0
"A shortfall beyond all that occur."
FEW_FAIL, FEW_ALARMS = 0.05, 0.1
"Shares of the good trials whose shortfall is beyond the limit of failing, and beyond what calls for a look."


@dataclass(frozen=True)
class Rows:
    """The labels of one trial and scheme that both the truth has and the scan should show."""

    codes: list[int]
    features: NDArray[np.float64]
    "(N, F)"
    dice: NDArray[np.float64]
    "(N,)"


@dataclass(frozen=True)
class Observed:
    """A trial and what is fitted to it."""

    trial: Trial
    rows: dict[str, Rows]
    "Rows by scheme."


@dataclass(frozen=True)
class CrossValidated:
    """A trial and the assessment of it by a calibration that was fitted without its scan."""

    trial: Trial
    shortfall: float
    "How far Dice lies below what scans of its kind reach: mean over the regions that the reference labels have."
    assessment: Assessment

    @property
    def bad(self) -> bool:
        return self.shortfall >= BAD

    @property
    def good(self) -> bool:
        return is_good(self.trial, self.shortfall)


def is_good(trial: Trial, shortfall: float) -> bool:
    """Whether an alarm would be false; with a wrong voxel size volumes are wrong, though labels may be right."""
    return shortfall <= GOOD and trial.damage.kind != "voxel size"


def observe(trial: Trial) -> Observed:
    """Work out the features once, which takes longer than a fit."""
    rows: dict[str, Rows] = {}
    for scheme in SCORED:
        codes, found = features(trial.evidence, trial.geometry, scheme)
        kept = [n for n, code in enumerate(codes) if code in trial.dice[scheme]]
        dice = np.array([trial.dice[scheme][codes[n]] for n in kept])
        found[:, OTHER_OUTLINES] = not trial.view.has_lobes
        rows[scheme] = Rows([codes[n] for n in kept], found[kept], dice)
    return Observed(trial, rows)


def curve(observed: Iterable[Observed], scheme: str, n_features: int) -> Curve:
    """Ridge regression of the logit of Dice on the first features, and an offset for each label."""
    rows = [one.rows[scheme] for one in observed]
    codes = np.concatenate([one.codes for one in rows]).astype(np.int64)
    dice = np.clip(np.concatenate([one.dice for one in rows]), 0.02, 0.98)
    known = sorted(set(codes.tolist()))
    given = np.concatenate([one.features for one in rows])[:, :n_features]
    design = np.hstack((given, codes[:, None] == np.array(known)))
    importance = dice * (1 - dice)  # errors of Dice count, not of its logit
    penalty = np.repeat((RIDGE, OFFSET_RIDGE), (n_features, len(known))) * importance.sum() / len(known)
    normal = design.T @ (design * importance[:, None]) + np.diag(penalty)
    solution = _solve(normal, design.T @ (importance * np.log(dice / (1 - dice))), n_features)
    weights, offsets = solution[:n_features], solution[n_features:]
    rounded = {str(code): round(float(value), 4) for code, value in zip(known, offsets, strict=True)}
    return Curve([round(float(w), 4) for w in weights], rounded)


def _solve(normal: NDArray[np.float64], right: NDArray[np.float64], n_features: int) -> NDArray[np.float64]:
    """The normal equations' solution; no weight of a trouble is positive, none of what is borne negative."""
    names = FEATURES[:n_features]
    lower, upper = (np.full(len(right), bound) for bound in (-np.inf, np.inf))
    upper[[n for n, name in enumerate(names) if name in TROUBLES]] = 0
    lower[[n for n, name in enumerate(names) if name in BORNE]] = 0
    root = np.linalg.cholesky(normal)
    found: NDArray[np.float64] = lsq_linear(root.T, solve_triangular(root, right, lower=True), (lower, upper)).x
    return found


def fit(observed: Sequence[Observed]) -> Calibration:
    """What is expected of scans, and what their kinds reach when nothing is wrong; without limits nothing fails."""
    clean = [one for one in observed if one.trial.clean]
    expected: dict[str, Curve] = {scheme: curve(observed, scheme, len(FEATURES)) for scheme in SCORED}
    reachable: dict[str, Curve] = {scheme: curve(clean, scheme, len(KIND)) for scheme in SCORED}
    features_of_clean = [one.rows["regions"].features.mean(0) for one in clean]
    usual, spread = ([round(float(x), 4) for x in by(features_of_clean, axis=0)] for by in (np.mean, np.std))
    return Calibration(expected, reachable, usual, spread, NEVER, NEVER)


def shortfall(one: Observed, calibration: Calibration) -> float:
    """What the truth says that a trial falls short of its kind."""
    rows = one.rows["regions"]
    reach = calibration.reachable["regions"](rows.codes, rows.features[:, : len(KIND)])
    return float(np.mean(list(reach.values())) - rows.dice.mean())


Same = Callable[[Trial, Trial], bool]


def same_scan(one: Trial, other: Trial) -> bool:
    return one.view.anatomy == other.view.anatomy


def same_scan_or_kind(one: Trial, other: Trial) -> bool:
    """Neither the anatomy nor this kind of damage was in the fit."""
    return same_scan(one, other) or (not one.clean and one.damage.kind == other.damage.kind)


@dataclass(frozen=True)
class Estimate:
    """A trial's shortfall, true and as expected by a calibration that was fitted without trials like it."""

    trial: Trial
    calibration: Calibration
    "Fitted to the others."
    true: float
    expected: float
    "``NEVER`` where the trial fails for another reason than its shortfall."


def estimates(observed: Sequence[Observed], same: Same) -> list[Estimate]:
    """The shortfall of every trial, estimated by a calibration fitted to the unrelated trials."""
    fitted: dict[tuple[str, str], Calibration] = {}
    found = []
    for one in observed:
        trial, key = one.trial, _key(one.trial, same)
        if key not in fitted:
            fitted[key] = fit([other for other in observed if not same(trial, other.trial)])
        opinion = assess(trial.evidence, trial.geometry, fitted[key])
        expected = NEVER if opinion.verdict == "fail" or not opinion.expectation else opinion.expectation.shortfall
        found.append(Estimate(trial, fitted[key], shortfall(one, fitted[key]), expected))
    return found


def _key(trial: Trial, same: Same) -> tuple[str, str]:
    """Trials with the same key are related to the same trials."""
    return trial.view.anatomy, trial.damage.kind if same is same_scan_or_kind else ""


def with_limits(calibration: Calibration, found: Iterable[Estimate]) -> Calibration:
    """The limits of fail and check, in thousandths.

    Few of the good trials exceed the first, so that it finds as many of the bad ones as it can; it is no higher than
    the middle of good and bad. Some more of the good trials may exceed the second.
    """
    good = [one.expected for one in found if is_good(one.trial, one.true)]
    few_fail, few_alarms = np.maximum(np.quantile(good or [GOOD], (1 - FEW_FAIL, 1 - FEW_ALARMS)), GOOD)
    fail_above = min(float(few_fail), (GOOD + BAD) / 2)
    check_above = min(float(few_alarms), fail_above)
    return replace(calibration, fail_above=round(fail_above, 3), check_above=round(check_above, 3))


def cross_validate(found: Sequence[Estimate], same: Same) -> list[CrossValidated]:
    """Verdicts on all trials; the limits, too, come from unrelated trials."""
    limited: dict[tuple[str, str], Calibration] = {}
    validated = []
    for one in found:
        key = _key(one.trial, same)
        if key not in limited:
            limited[key] = with_limits(one.calibration, [other for other in found if not same(one.trial, other.trial)])
        opinion = assess(one.trial.evidence, one.trial.geometry, limited[key])
        validated.append(CrossValidated(one.trial, one.true, opinion))
    return validated


def correlations(validated: Sequence[CrossValidated]) -> dict[str, float]:
    """Pearson's r of expected and true Dice: of scans (mean over regions), and of single labels by scheme."""
    found = {"scan": _r([(one.assessment.expected_dice or 0.0, one.trial.mean_dice) for one in validated])}
    for scheme in SCORED:
        pairs = [
            (one.assessment.expected[scheme][code], dice)
            for one in validated
            for code, dice in one.trial.dice[scheme].items()
            if code in one.assessment.expected.get(scheme, {})
        ]
        found[scheme] = _r(pairs)
    return found


def _r(pairs: Sequence[tuple[float, float]]) -> float:
    return round(float(np.corrcoef(np.array(pairs).T)[0, 1]), 3) if len(pairs) > 2 else float("nan")


def mean_error(validated: Iterable[CrossValidated]) -> float:
    """Mean absolute difference of expected and true mean Dice of scans."""
    return round(
        float(np.mean([abs((one.assessment.expected_dice or 0.0) - one.trial.mean_dice) for one in validated])), 3
    )


@dataclass(frozen=True)
class Detection:
    """How well a verdict finds bad segmentations."""

    bad: int
    found: int
    "Bad ones that were found."
    good: int
    false_alarms: int
    "Good ones that were not passed."

    @property
    def text(self) -> str:
        found = f"{self.found} of {self.bad} bad found" + (f" ({self.found / self.bad:.0%})" if self.bad else "")
        share = f" ({self.false_alarms / self.good:.0%})" if self.good else ""
        return f"{found}, {self.false_alarms} false alarms among {self.good} good{share}"


def detection(validated: Iterable[CrossValidated], verdicts: Sequence[str]) -> Detection:
    """Count; a trial is found if its verdict is among ``verdicts``."""
    bad = [one.assessment.verdict in verdicts for one in validated if one.bad]
    good = [one.assessment.verdict in verdicts for one in validated if one.good]
    return Detection(len(bad), sum(bad), len(good), sum(good))


def calibrate(trials: Sequence[Trial]) -> tuple[Calibration, list[CrossValidated]]:
    """The calibration from all trials, and every trial judged by one fitted without its scan."""
    observed = [observe(trial) for trial in trials]
    estimated = estimates(observed, same_scan)
    by_scan = cross_validate(estimated, same_scan)
    by_kind = cross_validate(estimates(observed, same_scan_or_kind), same_scan_or_kind)
    fitted = with_limits(fit(observed), estimated)
    return replace(fitted, about=_about(trials, by_scan, by_kind)), by_scan


def _about(trials: Sequence[Trial], by_scan: list[CrossValidated], by_kind: list[CrossValidated]) -> dict[str, Any]:
    about: dict[str, Any] = {
        "scans": sorted({trial.view.anatomy for trial in trials}),
        "trials": len(trials),
        "bad": f"mean Dice of regions is {BAD} or more below what scans of the kind reach; good: {GOOD} or less",
    }
    for name, validated in (("scan left out", by_scan), ("scan and kind of damage left out", by_kind)):
        unseen = [one for one in validated if one.trial.view.has_lobes]
        whole = [one for one in validated if is_whole(one.trial.evidence, one.trial.geometry)]
        about[name] = {
            "correlation": correlations(validated),
            "mean_absolute_error_of_scans": mean_error(validated),
            "fail": detection(validated, ("fail",)).text,
            "check or fail": detection(validated, ("check", "fail")).text,
            "check or fail, whole brain in view": detection(whole, ("check", "fail")).text,
            "fail, brains that no weight learned from": detection(unseen, ("fail",)).text,
        }
    return about
