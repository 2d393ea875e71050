"""Scores of found lesions, on masks that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bidsseg.evaluation.lesion_scores import (
    MaskedScan,
    SearchedScan,
    best_thresholds,
    by_threshold,
    compare,
    rule_of_one_line,
)
from bidsseg.imaging.image import at_1mm
from bidsseg.labels import TISSUE
from bidsseg.network.lesion_net import Contrast
from bidsseg.segmentation.lesion_probability import LesionAnswer
from bidsseg.segmentation.result import Segmentation


def test_voxels_and_lesions_are_counted() -> None:
    manual, found = np.zeros((30, 10, 10), bool), np.zeros((30, 10, 10), bool)
    manual[0:4, 0:4, 0:4] = True  # 64, of which 32 are found
    found[0:2, 0:4, 0:4] = True
    manual[10:13, 0:3, 0:3] = True  # 27, missed
    found[20:22, 0:2, 0:2] = True  # 8, false
    score = compare(found, manual, 2.0)
    assert score.dice == pytest.approx(2 * 32 / (40 + 91))
    assert (score.lesions, score.sensitivity, score.false_positives) == (2, 0.5, 1)
    assert (score.found_ml, score.manual_ml) == pytest.approx((0.08, 0.182))
    assert score.volume_error == pytest.approx(40 / 91 - 1)


@pytest.mark.parametrize(("voxels", "voxel_mm3", "counted"), [(2, 1.0, 0), (3, 1.0, 1), (2, 7.0, 1), (1, 7.0, 0)])
def test_manual_lesions_count_from_14_mm3_or_three_voxels(voxels: int, voxel_mm3: float, counted: int) -> None:
    manual = np.zeros((8, 3, 3), bool)
    manual[:voxels, 1, 1] = True
    assert compare(manual, manual, voxel_mm3).lesions == counted


def test_the_rule_marks_what_is_brighter_than_cortex_in_white_matter() -> None:
    rng = np.random.default_rng(0)
    tissue = np.full((20, 20, 20), TISSUE["white-matter"], np.uint8)
    tissue[:10] = TISSUE["cortex"]
    data = rng.normal(100, 1, tissue.shape).astype(np.float32)
    data[15, 5:8, 5] = 200
    data[15, 15:17, 5] = 200  # two voxels
    data[5, 5:9, 5] = 200  # cortex
    nothing = np.zeros_like(tissue)
    segmentation = Segmentation(tissue, nothing, nothing, np.eye(4), False, confidence=nothing.astype(np.float16))
    data[10:] = np.where(data[10:] < 150, 90, data[10:])
    mask = rule_of_one_line(at_1mm(data), segmentation)
    assert np.argwhere(mask).tolist() == [[15, 5, 5], [15, 6, 5], [15, 7, 5]]


def test_each_threshold_is_scored_and_the_best_is_chosen() -> None:
    """Lesion is what has 0.46 or more, around it lies 0.32: from 0.35 on no voxel is false, from 0.5 on some miss."""
    probability, manual = np.zeros((20, 20, 20), np.float32), np.zeros((20, 20, 20), bool)
    probability[4:12, 4:12, 4:12], probability[5:11, 5:11, 5:11], probability[6:10, 6:10, 6:10] = 0.32, 0.46, 0.9
    manual[5:11, 5:11, 5:11] = True
    tissue, nothing = np.full(manual.shape, TISSUE["white-matter"], np.uint8), np.zeros(manual.shape, np.uint8)
    segmentation = Segmentation(tissue, nothing, nothing, np.eye(4), False, confidence=nothing.astype(np.float16))
    scan = MaskedScan("sub-01", at_1mm(probability), manual)
    found = SearchedScan(LesionAnswer(probability, Contrast(1.0, -5.0)), segmentation)
    scores = by_threshold(scan, found)
    assert {level: round(1000 * score.found_ml) for level, score in scores.items() if level in (0.3, 0.4, 0.5)} == {
        0.3: 8**3,
        0.4: 6**3,
        0.5: 4**3,
    }
    assert best_thresholds([(scan, found)]) == (0.5, 0.35)  # none of thick slices to tell
