"""From probabilities to a mask, and what is no FLAIR."""

from __future__ import annotations

import numpy as np
import pytest

from bidsseg.labels import TISSUE
from bidsseg.lesions.finding import find_lesions, lesion_mask, why_unfit
from bidsseg.lesions.records import load_in_words
from bidsseg.network.lesion_config import LoadError
from bidsseg.network.lesion_net import Contrast
from bidsseg.segmentation.lesion_probability import LesionAnswer
from bidsseg.segmentation.result import Segmentation


def white_matter(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Segmentation:
    tissue = np.full(shape, TISSUE["white-matter"], np.uint8)
    nothing = np.zeros(shape, np.uint8)
    affine = np.diag((*spacing_mm, 1.0))
    return Segmentation(tissue, nothing, nothing, affine, False, confidence=nothing.astype(np.float16))


@pytest.mark.parametrize(
    ("spacing_mm", "voxels", "kept"),
    [
        ((1.0, 1.0, 1.0), 13, False),
        ((1.0, 1.0, 1.0), 14, True),
        ((1.0, 1.0, 7.0), 2, False),  # 14 mm3, but two voxels
        ((1.0, 1.0, 7.0), 3, True),
        ((0.5, 0.5, 0.5), 111, False),
        ((0.5, 0.5, 0.5), 112, True),
    ],
)
def test_a_lesion_has_three_voxels_and_14_mm3(spacing_mm: tuple[float, float, float], voxels: int, kept: bool) -> None:
    probability = np.zeros((120, 3, 3), np.float32)
    probability[:voxels, 1, 1] = 0.6
    mask = lesion_mask(probability, white_matter(probability.shape, spacing_mm), 0.5)
    assert mask.sum() == (voxels if kept else 0)


@pytest.mark.parametrize("name", ["background", "csf", "lateral-ventricle", "fourth-ventricle"])
def test_no_lesion_lies_in_fluid_or_outside_the_brain(name: str) -> None:
    segmentation = white_matter((6, 6, 6), (1, 1, 1))
    segmentation.tissue[3:] = TISSUE[name]
    mask = lesion_mask(np.ones((6, 6, 6), np.float32), segmentation, 0.5)
    assert mask[:3].all()
    assert not mask[3:].any()


def test_voxels_that_share_a_corner_are_one_lesion() -> None:
    probability = np.zeros((20, 20, 20), np.float32)
    for n in range(14):
        probability[n, n, n] = 1
    assert lesion_mask(probability, white_matter((20, 20, 20), (1, 1, 1)), 0.5).sum() == 14


@pytest.mark.parametrize(
    ("cortex", "fluid", "words"),
    [
        (-0.4, -5.3, None),
        (2.5, -8.0, None),
        (0.4, np.nan, None),  # slices above the ventricles
        (-2.8, -7.3, "as in T1w"),
        (2.0, 11.1, "ventricles are not darker"),
        (0.0, -0.5, "ventricles are not darker"),
        (np.nan, np.nan, "hardly any white matter"),
    ],
)
def test_a_scan_that_is_no_flair_is_told(cortex: float, fluid: float, words: str | None) -> None:
    told = why_unfit(LesionAnswer(np.zeros((1, 1, 1), np.float32), Contrast(cortex, fluid)))
    assert told is None if words is None else words in str(told)


@pytest.mark.parametrize(("error", "known"), [(LoadError(0.5, 0.25), {"LesionLoadExpectedErrorMl": 2.5}), (None, {})])
def test_a_load_has_its_expected_error_where_this_is_known(error: LoadError | None, known: dict[str, float]) -> None:
    probability = np.ones((20, 20, 20), np.float32)
    answer = LesionAnswer(probability, Contrast(0.0, -5.0))
    about = find_lesions(answer, white_matter(probability.shape, (1, 1, 1)), 0.5, error).about
    assert about["LesionLoadMl"] == 8.0
    assert {key: value for key, value in about.items() if "Expected" in key} == known


@pytest.mark.parametrize(("error", "words"), [(1.934, "10.79 mL (expected error 1.93 mL)"), (None, "10.79 mL")])
def test_a_load_in_words(error: float | None, words: str) -> None:
    assert load_in_words(10.79, error) == words
