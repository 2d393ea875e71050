"""Verdicts on answers made up by hand from what is usual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bidsseg.evaluation.calibration import Foretold, detection, fail_limit, fit, foretell, same_scan
from bidsseg.evaluation.damage import Damage
from bidsseg.evaluation.damage_study import Trial
from bidsseg.labels import LEFT, RIGHT, TISSUE, gyri
from bidsseg.quality.assessment import (
    FEATURES,
    Assessment,
    Calibration,
    Geometry,
    assess,
    asymmetries,
    calibration_from,
    features,
    label_oddness,
    layout,
    quality,
    quality_json,
    references,
    ripple,
)
from bidsseg.quality.evidence import SCORED, Evidence, Sums
from bidsseg.segmentation.result import Segmentation

BRAIN_MM3 = 1.4e6
VIEW = Geometry(40, 4.0, 160.0)
TRUSTING = Calibration(
    {scheme: [float(name == "soft_dice") for name in FEATURES] for scheme in SCORED}, {scheme: {} for scheme in SCORED}
)
"Expects the soft Dice itself."


def usual(soft: float = 0.9) -> Evidence:
    """A brain of median volumes with every label in its place."""
    sums: dict[str, dict[int, Sums]] = {
        scheme: {
            code: Sums(r.middle * BRAIN_MM3, r.middle * BRAIN_MM3, soft * r.middle * BRAIN_MM3, r.centre_mm)
            for code, r in references()[scheme].items()
        }
        for scheme in SCORED
    }
    return Evidence(sums, BRAIN_MM3)


def changed(evidence: Evidence, code: int, factor: float) -> Evidence:
    """One region larger or smaller."""
    sums = evidence.sums["regions"][code]
    regions = {**evidence.sums["regions"], code: sums._replace(voxels=factor * sums.voxels)}
    return replace(evidence, sums={**evidence.sums, "regions": regions})


def moved(evidence: Evidence, matrix: list[list[float]]) -> Evidence:
    """All regions at places times a matrix."""
    regions = {
        code: sums._replace(centre=tuple((np.array(matrix) @ sums.centre).tolist()))
        for code, sums in evidence.sums["regions"].items()
    }
    return replace(evidence, sums={**evidence.sums, "regions": regions})


def test_a_usual_brain_passes() -> None:
    found = assess(usual(), VIEW, TRUSTING)
    assert (found.verdict, found.reasons) == ("pass", ())
    assert found.expected_dice == pytest.approx(0.9)
    assert quality_json(usual(), found)["ExpectedDice"] == 0.9


@pytest.mark.parametrize(
    ("unevenness", "white_over_grey", "expected"),
    [(0.07, 0.2, 0.0), (0.19, 0.2, 1.0), (0.19, -0.2, 0.0), (0.19, 0.01, 0.0)],
)
def test_ripples_count_in_t1w_contrast_alone(unevenness: float, white_over_grey: float, expected: float) -> None:
    evidence = replace(usual(), unevenness=unevenness, white_over_grey=white_over_grey)
    assert ripple(evidence) == pytest.approx(expected)


@pytest.mark.parametrize(("unevenness", "expected"), [(0.09, 0), (0.05, 0), (0.02, 0.3), (0, 0.5)])
def test_noise_counts_where_nothing_else_varies(unevenness: float, expected: float) -> None:
    _, rows = features(replace(usual(), unevenness=unevenness), "regions")
    np.testing.assert_allclose(rows[:, FEATURES.index("scan_noise")], expected)


def test_a_label_in_its_place_is_not_odd() -> None:
    assert max(label_oddness(usual(), "regions").values()) == pytest.approx(0)
    assert layout(usual()).disorder_mm == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("evidence", "view", "verdict", "reason"),
    [
        (usual(0.6), VIEW, "fail", "expected Dice 0.60"),
        (replace(usual(), intracranial_mm3=5e4), VIEW, "fail", "hardly any brain"),
        (replace(usual(), cut_mm2={"bottom": 900.0}), VIEW, "check", "cuts the brain at the bottom (9 cm2)"),
        (replace(usual(), cerebellum_cut_mm2=500.0), VIEW, "check", "cuts the cerebellum"),
        (usual(), replace(VIEW, slices=5), "check", "only 5 slices"),
        (usual(), replace(VIEW, slice_mm=10.0), "check", "slices 10 mm apart"),
        (usual(), replace(VIEW, smallest_extent_mm=50.0), "check", "only 50 mm wide"),
        (changed(usual(), 10, 0.3), VIEW, "check", "Left-Thalamus"),
        (changed(usual(), 16, 0.0), VIEW, "check", "Brain-Stem"),
        (moved(usual(), [[1, 0, 0], [0, 1, 0], [0, 0, -1]]), VIEW, "check", "Bottom and top look exchanged"),
        (moved(usual(), [[1, 0, 0], [0, -1, 0], [0, 0, 1]]), VIEW, "check", "Back and front look exchanged"),
        (moved(usual(), [[1, 0, 0], [0, 0, 1], [0, 1, 0]]), VIEW, "check", "looks like bottom to top"),
    ],
)
def test_what_calls_for_a_look(evidence: Evidence, view: Geometry, verdict: str, reason: str) -> None:
    found = assess(evidence, view, TRUSTING)
    assert found.verdict == verdict
    assert any(reason in told for told in found.reasons), found.reasons


def test_large_ventricles_are_a_finding_not_an_error() -> None:
    evidence = usual()
    for code in (4, 43, 14):
        evidence = changed(evidence, code, 6.0)
    assert assess(evidence, VIEW, TRUSTING).verdict == "pass"


def test_asymmetry_is_left_less_right_over_their_mean() -> None:
    evidence = usual()
    sums = dict(evidence.sums["regions"])
    sums[17], sums[53] = sums[17]._replace(voxels=300), sums[53]._replace(voxels=100)
    found = asymmetries(replace(evidence, sums={**evidence.sums, "regions": sums}))
    assert found[17][0] == 1.0


def test_without_calibration_nothing_is_expected() -> None:
    found = assess(usual(0.3), VIEW, None)
    assert (found.verdict, found.expected_dice, found.expected) == ("pass", None, {})


def test_a_calibration_of_other_features_is_not_used() -> None:
    assert calibration_from({}) is None
    assert calibration_from({"weights": {"regions": [1.0]}, "offsets": {}}) is None
    assert calibration_from(TRUSTING.as_json()) == TRUSTING


def trial(scan: str, soft: float, kind: str = "noise") -> Trial:
    """A scan whose Dice is always 0.1 less than its probabilities say."""
    dice: dict[str, dict[int, float]] = {scheme: dict.fromkeys(references()[scheme], soft - 0.1) for scheme in SCORED}
    return Trial(scan, Damage(kind, soft), "abc", dice, usual(soft), VIEW)


def test_the_fit_learns_that_the_network_is_too_sure_of_itself() -> None:
    trials = [trial(scan, soft) for scan in ("a", "b") for soft in (0.3, 0.5, 0.7, 0.9)]
    calibration = fit(trials)
    assert len(calibration.weights["regions"]) == len(FEATURES)
    for one in foretell(trials, same_scan):
        assert one.assessment.expected_dice == pytest.approx(one.trial.mean_dice, abs=0.04)
    assert detection(foretell(trials, same_scan), ("fail",)).text == (
        "6 of 6 bad found (100%), 0 false alarms among 2 good (0%)"
    )


@pytest.mark.parametrize(("softs", "limit"), [((0.5, 0.7, 0.8, 0.9), 0.81), ((0.5, 0.6), 0.75), ((0.9,), 0.75)])
def test_the_limit_of_failing_finds_the_bad_scans(softs: tuple[float, ...], limit: float) -> None:
    """The expectation is the soft Dice, the truth 0.1 less."""
    assert fail_limit([trial("a", soft) for soft in softs], TRUSTING) == limit


def test_mirrored_scans_are_counted_apart() -> None:
    unseen = Foretold(trial("a", 0.4, "left to right"), Assessment("pass", (), 0.9))
    assert detection([unseen], ("fail",)).bad == 0
    assert detection([unseen], ("fail",), visible=False).bad == 1


def test_quality_of_lopsided_white_matter() -> None:
    tissue = np.full((4, 1, 1), TISSUE["white-matter"], np.uint8)
    side = np.array([LEFT, LEFT, LEFT, RIGHT], np.uint8).reshape(4, 1, 1)
    parcel = np.full((4, 1, 1), len(gyri()) - 1, np.uint8)
    confidence = np.full((4, 1, 1), 0.5, np.float16)
    found = quality(Segmentation(tissue, side, parcel, confidence, np.eye(4), has_gyri=True))
    assert found["CerebralAsymmetry"] == 0.5
    assert found["MeanConfidence"] == 0.5
    assert found["IntracranialVolumeMm3"] == pytest.approx(4)
