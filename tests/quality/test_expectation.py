"""What is expected of an answer, and what such scans can reach."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bidsseg.quality.coverage import FieldOfView
from bidsseg.quality.expectation import FEATURES, KIND, calibration_from, expect, features, kind
from tests.quality.test_assessment import TRUSTING, VIEW, changed, usual


@pytest.mark.parametrize(
    ("view", "changes", "feature", "expected"),
    [
        (VIEW, {}, "thickness", 0.4),
        (VIEW, {}, "few_slices", 0.0),
        (replace(VIEW, slices=3), {}, "few_slices", np.log(10)),
        (replace(VIEW, slices=3), {}, "few_sagittal_slices", 0.0),
        (replace(VIEW, slices=3, axis=0), {}, "few_sagittal_slices", np.log(10)),
        (VIEW, {"white_over_grey": 0.2}, "white_brighter", 1.0),
        (VIEW, {"white_over_grey": -0.2}, "white_brighter", 0.0),
        (VIEW, {"fluid_over_white": 0.5}, "fluid_brighter", 1.0),
        (VIEW, {"surroundings": 0.5}, "surroundings", 1.0),
    ],
)
def test_kinds_of_scan(view: FieldOfView, changes: dict[str, float], feature: str, expected: float) -> None:
    found = kind(replace(usual(), **changes), view)  # type: ignore[arg-type]
    assert found[KIND.index(feature)] == pytest.approx(expected)


def test_volumes_count_where_the_whole_brain_is_seen() -> None:
    evidence = changed(replace(usual(), layout_fit=-0.45), 10, 0.2)
    codes, whole = features(evidence, VIEW, "regions")
    _, part = features(evidence, replace(VIEW, slices=5), "regions")
    assert whole.shape == part.shape == (len(codes), len(FEATURES))
    for name in ("scan_oddness", "layout"):
        assert whole[0, FEATURES.index(name)] > 0 == part[0, FEATURES.index(name)]
    assert whole[0, FEATURES.index("layout")] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unevenness": 0.1}, "ghosts of movement"),
        ({"noise": 0.1}, "look for noise"),
        ({"layout_fit": -0.6}, "orientation and voxel size"),
        ({"noise": 0.02}, "the network is unsure"),  # two standard deviations
    ],
)
def test_the_hint_names_what_stands_out(changes: dict[str, float], told: str) -> None:
    found = expect(replace(usual(), **changes), VIEW, TRUSTING)  # type: ignore[arg-type]
    assert found is not None
    assert told in found.hint


def test_a_calibration_of_other_features_is_not_used() -> None:
    assert calibration_from({}) is None
    assert calibration_from({"weights": {"regions": [1.0]}, "offsets": {}}) is None
    stored = json.loads(json.dumps(TRUSTING.as_json()))
    assert calibration_from(stored) == TRUSTING
    assert calibration_from({**stored, "features": ["constant"]}) is None
