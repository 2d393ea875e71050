"""Fits to trials made up by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from click.testing import CliRunner

from bidsseg.cli.main import main
from bidsseg.evaluation.calibration import (
    CrossValidated,
    Estimate,
    calibrate,
    cross_validate,
    curve,
    detection,
    estimates,
    is_good,
    mean_error,
    observe,
    same_scan,
    same_scan_or_kind,
    with_limits,
)
from bidsseg.evaluation.damage import NONE, Damage
from bidsseg.evaluation.damage_study import Trial, append_lines, in_parallel, read_trials
from bidsseg.evaluation.views import View
from bidsseg.network.card import QUALITY_MARKS, read_card
from bidsseg.quality.assessment import Assessment
from bidsseg.quality.evidence import SCORED
from bidsseg.quality.expectation import FEATURES, KIND, calibration_from
from bidsseg.quality.usual import references
from tests.quality.test_assessment import VIEW, usual

SOFTS = (0.95, 0.9, 0.7, 0.5, 0.3)


def trial(scan: str, soft: float, slice_mm: float = 1.0) -> Trial:
    """A scan whose Dice is always 0.1 less than its probabilities say, and 0.1 less again in slices of 8 mm."""
    view = View(scan, "", "T1w", 0.0, slice_mm, "axial", 0, 0)
    dice = soft - (0.1 if slice_mm == 1 else 0.2)
    by_scheme: dict[str, dict[int, float]] = {scheme: dict.fromkeys(references()[scheme], dice) for scheme in SCORED}
    how = NONE if soft >= 0.9 else Damage("noise", soft)
    geometry = replace(VIEW, slices=round(160 / slice_mm), slice_mm=slice_mm)
    return Trial(view, how, "abc", by_scheme, usual(soft), geometry)


TRIALS = [trial(scan, soft, mm) for scan in ("sub-a", "sub-b") for soft in SOFTS for mm in (1.0, 8.0)]


def test_thick_slices_are_held_against_thick_slices() -> None:
    found = cross_validate(estimates([observe(one) for one in TRIALS], same_scan), same_scan)
    assert mean_error(found) < 0.05
    clean = [one for one in found if one.trial.clean]
    assert all(one.assessment.verdict != "fail" and one.good for one in clean)
    reach = [one.assessment.expectation.reach for one in clean if one.assessment.expectation]
    assert max(reach) - min(reach) == pytest.approx(0.1, abs=0.03)
    assert detection(found, ("fail",)).text == "12 of 12 bad found (100%), 0 false alarms among 8 good (0%)"


def test_a_fit_has_a_weight_for_each_feature() -> None:
    calibration, _ = calibrate(TRIALS)
    assert len(calibration.expected["regions"].weights) == len(FEATURES)
    assert len(calibration.reachable["lobes"].weights) == len(KIND)
    assert 0 < calibration.check_above <= calibration.fail_above <= 0.1


@pytest.mark.parametrize(
    ("good", "limits"),
    [
        ([0.0] * 20, (0.05, 0.05)),  # what is good does not fail
        ([0.0] * 16 + [0.052] * 2 + [0.07] * 2, (0.07, 0.054)),
        ([0.0] * 16 + [0.09] * 4, (0.075, 0.075)),  # never above the middle of good and bad
    ],
)
def test_few_good_scans_exceed_the_limits(good: list[float], limits: tuple[float, float]) -> None:
    calibration, _ = calibrate(TRIALS)
    found = [Estimate(trial("sub-a", 0.3), calibration, 0.3, 0.06)]
    found += [Estimate(trial("sub-a", 0.9), calibration, 0.0, expected) for expected in good]
    limited = with_limits(calibration, found)
    assert (limited.fail_above, limited.check_above) == pytest.approx(limits)


@pytest.mark.parametrize(("measure", "feature", "sign"), [("noise", "noise", 1), ("unevenness", "ripple", -1)])
@pytest.mark.parametrize("slope", [-1.0, 1.0])
def test_noise_never_lowers_an_expectation_nor_ripples_raise_it(
    measure: str, feature: str, sign: int, slope: float
) -> None:
    """Whatever the trials say: here, among scans of equal confidence, Dice goes with the measure, or against it."""
    found = []
    for scan, amount in ((scan, amount) for scan in ("sub-a", "sub-b") for amount in (0.0, 0.05, 0.1)):
        one = trial(scan, 0.7)
        dice = {scheme: dict.fromkeys(rows, 0.6 + slope * amount) for scheme, rows in one.dice.items()}
        evidence = replace(one.evidence, **{measure: amount})  # type: ignore[arg-type]
        found.append(observe(replace(one, dice=dice, evidence=evidence)))
    weight = curve(found, "regions", len(FEATURES)).weights[FEATURES.index(feature)]
    assert weight * sign > 0 if slope * sign > 0 else weight == 0


def test_what_is_left_out_of_a_fit() -> None:
    noisy, other = trial("sub-a", 0.5), trial("sub-b", 0.3)
    clean = trial("sub-b", 0.9)
    assert not same_scan(noisy, other)
    assert same_scan_or_kind(noisy, other)
    assert not same_scan_or_kind(noisy, clean)


@pytest.mark.parametrize(
    ("kind", "shortfall", "good"), [("noise", 0.0, True), ("noise", 0.07, False), ("voxel size", 0.0, False)]
)
def test_an_alarm_is_false_where_nothing_is_wrong(kind: str, shortfall: float, good: bool) -> None:
    one = replace(trial("sub-a", 0.9), damage=Damage(kind, 0.8))
    assert is_good(one, shortfall) == good
    found = CrossValidated(one, shortfall, Assessment("fail", ()))
    assert detection([found], ("fail",)).false_alarms == good


def test_trials_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text("\n".join([*(one.as_line() for one in TRIALS), "{cut short"]))
    assert list(read_trials(path)) == TRIALS
    assert list(read_trials(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "new\n"), ("", "new\n"), ("old\n", "old\nnew\n"), ("old\n{to", "old\n{to\nnew\n")],
)
def test_a_new_line_joins_none_that_was_cut_short(tmp_path: Path, before: str | None, after: str) -> None:
    path = tmp_path / "trials.jsonl"
    if before is not None:
        path.write_text(before)
    append_lines(path, ["new"])
    assert path.read_text() == after


def test_a_trial_after_one_that_was_cut_short_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(TRIALS[0].as_line()[:-9])
    append_lines(path, [TRIALS[1].as_line()])
    assert list(read_trials(path)) == [TRIALS[1]]


def test_work_in_parallel_comes_back() -> None:
    assert sorted(in_parallel(abs, [-1, 2, -3], 2)) == [1, 2, 3]


def test_the_command_fits_to_the_trials_there_are(tiny_model: Path, tmp_path: Path) -> None:
    model, trials, readme = copytree(tiny_model, tmp_path / "model"), tmp_path / "trials.jsonl", tmp_path / "README.md"
    sha256 = read_card(model).sha256
    trials.write_text("\n".join(replace(one, weights_sha256=sha256).as_line() for one in TRIALS))
    readme.write_text("\n".join(QUALITY_MARKS))
    given = [tmp_path, "--trials", trials, "--clinical", tmp_path / "none", "--readme", readme, "--fit-only"]
    found = CliRunner().invoke(main, ["calibrate", *map(str, given), "--model", str(model)])
    assert found.exit_code == 0, found.output
    assert "12 of 12 bad found" in found.output
    stored = calibration_from(read_card(model).quality)
    assert stored is not None
    assert stored.about["trials"] == len(TRIALS)
    assert "12 of 12 bad found (100%)" in readme.read_text()
