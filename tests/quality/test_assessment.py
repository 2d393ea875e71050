"""Verdicts on answers made up by hand from what is usual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bidsseg.labels import LEFT, RIGHT, TISSUE, gyri
from bidsseg.quality.assessment import assess, quality, quality_json
from bidsseg.quality.coverage import FieldOfView
from bidsseg.quality.evidence import SCORED, Evidence, Sums
from bidsseg.quality.expectation import FEATURES, KIND, Calibration, Curve
from bidsseg.quality.usual import asymmetries, label_oddness, layout, lobe_ratios, references
from bidsseg.segmentation.result import Segmentation

BRAIN_MM3 = 1.4e6
VIEW = FieldOfView(40, 4.0, 160.0)
TRUSTING = Calibration(
    {scheme: Curve([float(name == "soft_dice") for name in FEATURES], {}) for scheme in SCORED},
    {scheme: Curve([np.log(9) * float(name == "constant") for name in KIND], {}) for scheme in SCORED},
    [0.0] * len(FEATURES),
    [0.1] * len(FEATURES),
    fail_above=0.2,
    check_above=0.1,
)
"Expects the soft Dice itself, and that a scan can reach 0.9."


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
    assert quality_json(usual(), found)["ExpectedDice"] == quality_json(usual(), found)["ReachableDice"] == 0.9


def test_a_label_in_its_place_is_not_odd() -> None:
    assert max(label_oddness(usual(), "regions").values()) == pytest.approx(0)
    assert layout(usual()).disorder_mm == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("evidence", "view", "verdict", "reason"),
    [
        (usual(0.6), VIEW, "fail", "something went wrong: expected Dice 0.60, scans of this kind reach 0.90"),
        (usual(0.75), VIEW, "check", "worse than usual: expected Dice 0.75, scans of this kind reach 0.90"),
        (usual(0.75), VIEW, "check", "the network is unsure"),
        (replace(usual(), intracranial_mm3=5e4), VIEW, "fail", "hardly any brain"),
        (replace(usual(), intracranial_mm3=3.9e6), VIEW, "fail", "intracranial volume 3900 mL"),
        (replace(usual(), intracranial_mm3=2.3e6), VIEW, "check", "intracranial volume 2300 mL"),
        (replace(usual(), better_turned="bottom and top exchanged"), VIEW, "fail", "right with bottom and top"),
        (replace(usual(), cut_mm2={"bottom": 9000.0}), VIEW, "check", "cuts the brain at the bottom (90 cm2)"),
        (replace(usual(), cerebellum_cut_mm2=2000.0), VIEW, "check", "cuts the cerebellum"),
        (usual(), replace(VIEW, slices=5), "check", "only 5 slices"),
        (usual(), replace(VIEW, slices=1), "check", "only 1 slice"),
        (usual(), replace(VIEW, slice_mm=10.0), "check", "slices 10 mm apart"),
        (usual(), replace(VIEW, smallest_extent_mm=50.0), "check", "only 50 mm wide"),
        (changed(usual(), 10, 0.3), VIEW, "check", "Left-Thalamus"),
        (changed(usual(), 16, 0.0), VIEW, "check", "Brain-Stem"),
        (moved(usual(), [[1, 0, 0], [0, 1, 0], [0, 0, -1]]), VIEW, "check", "Bottom and top look exchanged"),
        (moved(usual(), [[1, 0, 0], [0, -1, 0], [0, 0, 1]]), VIEW, "check", "Back and front look exchanged"),
        (moved(usual(), [[1, 0, 0], [0, 0, 1], [0, 1, 0]]), VIEW, "check", "looks like bottom to top"),
    ],
)
def test_what_calls_for_a_look(evidence: Evidence, view: FieldOfView, verdict: str, reason: str) -> None:
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


@pytest.mark.parametrize(
    ("view", "verdict"),
    [(VIEW, "pass"), (replace(VIEW, slices=20, slice_mm=7.0), "pass"), (replace(VIEW, axis=0), "pass")],
)
def test_thick_slices_alone_are_no_reason(view: FieldOfView, verdict: str) -> None:
    assert assess(usual(), view, TRUSTING).verdict == verdict


def test_lobes_ratio_is_that_of_both_sides() -> None:
    assert lobe_ratios({1304: 30, 2304: 10, 3204: 15, 4204: 5, 1301: 9}) == {"occipital": 2}


@pytest.mark.parametrize(
    ("cortex", "white", "reason"),
    [(1.45, 0.75, "cortex may have swallowed white matter"), (0.5, 1.3, "white matter may have swallowed cortex")],
)
def test_swallowed_white_matter_is_told(cortex: float, white: float, reason: str) -> None:
    """Volumes that are usual one by one, or almost, and a ratio that is not."""
    evidence = usual()
    for side in (0, 1000):
        evidence = changed(changed(evidence, 1304 + side, cortex), 3204 + side, white)
    found = assess(evidence, VIEW, TRUSTING)
    assert found.verdict == "check"
    assert any("occipital cortex is" in told and reason in told for told in found.reasons), found.reasons
    assert not any(
        "occipital cortex is" in told for told in assess(evidence, replace(VIEW, slices=5), TRUSTING).reasons
    )


@pytest.mark.parametrize("slice_mm", [1.0, 3.0, 4.0])
@pytest.mark.parametrize("ratio", [3.0, 3.6, 4.2])
def test_cortex_that_swallowed_white_matter_is_told_in_slices_too(ratio: float, slice_mm: float) -> None:
    """These are ratios of labels whose grey values were set by a bright scalp."""
    evidence = usual()
    regions = evidence.sums["regions"]
    now = lobe_ratios({code: sums.voxels for code, sums in regions.items()})["occipital"]
    for side in (0, 1000):
        evidence = changed(evidence, 3204 + side, now / ratio)
    found = assess(evidence, replace(VIEW, slices=48, slice_mm=slice_mm), TRUSTING)
    assert any(f"occipital cortex is {ratio:.1f} times its white matter" in told for told in found.reasons)


def test_quality_of_lopsided_white_matter() -> None:
    tissue = np.full((4, 1, 1), TISSUE["white-matter"], np.uint8)
    side = np.array([LEFT, LEFT, LEFT, RIGHT], np.uint8).reshape(4, 1, 1)
    parcel = np.full((4, 1, 1), len(gyri()) - 1, np.uint8)
    confidence = np.full((4, 1, 1), 0.5, np.float16)
    found = quality(Segmentation(tissue, side, parcel, confidence=confidence))
    assert found["CerebralAsymmetry"] == 0.5
    assert found["MeanConfidence"] == 0.5
    assert found["IntracranialVolumeMm3"] == pytest.approx(4)


def test_brain_parenchymal_fraction_is_what_is_no_fluid() -> None:
    """Of six voxels one is background, one ventricle and one CSF."""
    names = ("background", "lateral-ventricle", "csf", "cortex", "white-matter", "brainstem")
    tissue = np.array([TISSUE[name] for name in names], np.uint8).reshape(6, 1, 1)
    rest = np.zeros((6, 1, 1), np.uint8)
    found = quality(Segmentation(tissue, rest, rest, confidence=rest.astype(np.float16)))
    assert found["BrainParenchymalFraction"] == 0.6
