from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.errors import UserError
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUE
from bidsseg.lesions.filling import Filled, fill_lesions
from tests.lesion_phantom import Bounds, Spacing, boxes, brain, coordinates, image

SPACINGS: list[Spacing] = [(1, 1, 1), (1, 1, 6)]
LESION: Bounds = (16, 28, -6, 6, 18, 30)
"In the upper white matter, 12 mm wide."
WHITE, NOISE, CORRELATED_MM = 100.0, 2.0, 1.0


def scan(spacing: Spacing, brightness: float) -> tuple[Image, NDArray[np.bool_]]:
    """Correlated noise, white matter that grows brighter from left to right by 1 in 2 mm, and a lesion."""
    segmentation = brain(spacing)
    levels = np.full(len(TISSUE), 60.0)
    levels[TISSUE["white-matter"]] = WHITE
    x = coordinates(spacing)[0]
    noise = np.random.default_rng(1).normal(0, 1, segmentation.tissue.shape)
    noise = ndimage.gaussian_filter(noise, [CORRELATED_MM, CORRELATED_MM, 0])
    lesion = boxes(spacing, [LESION])
    data = levels[segmentation.tissue] + x / 2 + NOISE * noise / noise.std() + brightness * lesion
    return image(data, segmentation.affine), lesion


def filled(spacing: Spacing, brightness: float = 50.0) -> tuple[Image, Filled, NDArray[np.bool_]]:
    grey, lesion = scan(spacing, brightness)
    return grey, fill_lesions(grey, image(lesion, grey.affine), brain(spacing)), lesion


@pytest.mark.parametrize("brightness", [50, -50])
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_a_lesion_becomes_white_matter_that_follows_the_bias_field(spacing: Spacing, brightness: float) -> None:
    _, found, lesion = filled(spacing, brightness)
    expected = np.broadcast_to(WHITE + coordinates(spacing)[0] / 2, lesion.shape)
    off = (found.image.data - expected)[lesion]
    assert abs(off.mean()) < 0.5
    assert off.std() == pytest.approx(NOISE, rel=0.3)
    assert found.voxels == lesion.sum()
    assert found.left == 0
    assert found.warnings == ()


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_noise_is_as_correlated_as_around_the_lesion(spacing: Spacing) -> None:
    grey, found, lesion = filled(spacing)
    normal = (brain(spacing).tissue == TISSUE["white-matter"]) & ~ndimage.binary_dilation(lesion, iterations=4)
    steps = [np.diff(data, axis=1)[where[:, 1:] & where[:, :-1]].std()
             for data, where in ((grey.data, normal), (found.image.data, lesion))]  # fmt: skip
    assert steps[1] == pytest.approx(steps[0], rel=0.25)


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_other_voxels_stay_as_they_are(spacing: Spacing) -> None:
    grey, found, lesion = filled(spacing)
    far = ~ndimage.binary_dilation(lesion, np.ones((3, 3, 3)), iterations=4)
    other = brain(spacing).tissue != TISSUE["white-matter"]
    assert np.array_equal(found.image.data[far | other], grey.data[far | other])


def test_the_same_input_gives_the_same_output() -> None:
    (_, one, _), (_, two, _) = (filled((1, 1, 6)) for _ in range(2))
    assert np.array_equal(one.image.data, two.image.data)


def test_slices_are_filled_from_themselves() -> None:
    """Every second slice is brighter by 40, as slices of two packages may be."""
    grey, lesion = scan((1, 1, 6), 50)
    brighter = 40 * (np.arange(grey.data.shape[2]) % 2)
    striped = image(grey.data + brighter, grey.affine)
    found = fill_lesions(striped, image(lesion, grey.affine), brain((1, 1, 6)))
    means = [float(found.image.data[..., k][lesion[..., k]].mean()) for k in np.flatnonzero(lesion.any((0, 1)))]
    assert len(means) == 2
    assert abs(means[0] - means[1]) == pytest.approx(40, abs=3)


def test_what_a_tight_mask_leaves_out_goes_too() -> None:
    grey, lesion = scan((1, 1, 1), 50)
    tight = ndimage.binary_erosion(lesion)
    found = fill_lesions(grey, image(tight, grey.affine), brain((1, 1, 1)))
    rim = lesion & ~tight
    expected = np.broadcast_to(WHITE + coordinates((1, 1, 1))[0] / 2, lesion.shape)
    assert abs((found.image.data - expected)[rim].mean()) < 1


@pytest.mark.parametrize(
    ("lesions", "left", "told"),
    [
        ([(30, 42, -6, 6, 18, 30)], 6 * 12 * 12, "50% of the lesion mask (864 voxels) lies"),
        ([LESION, (36, 37, 0, 1, 24, 25)], 1, "less than 1% of the lesion mask (1 voxel) lies"),
    ],
)
def test_lesions_outside_of_white_matter_are_told_and_left(lesions: list[Bounds], left: int, told: str) -> None:
    """Cortex begins at 36 mm; there half of the first box lies, and all of the last."""
    grey, _ = scan((1, 1, 1), 0)
    mask = boxes((1, 1, 1), lesions)
    found = fill_lesions(grey, image(mask, grey.affine), brain((1, 1, 1)))
    assert (found.voxels, found.left) == (mask.sum() - left, left)
    assert found.not_filled == (f"{told} outside of white matter and was not filled",)
    cortex = mask & (brain((1, 1, 1)).tissue == TISSUE["cortex"])
    assert np.array_equal(found.image.data[cortex], grey.data[cortex])


def test_an_empty_mask_changes_nothing() -> None:
    grey, lesion = scan((1, 1, 1), 0)
    found = fill_lesions(grey, image(np.zeros_like(lesion), grey.affine), brain((1, 1, 1)))
    assert np.array_equal(found.image.data, grey.data)
    assert (found.voxels, found.left, found.warnings, found.not_filled) == (0, 0, (), ())


def test_without_normal_white_matter_there_is_nothing_to_fill_from() -> None:
    grey, _ = scan((1, 1, 1), 0)
    tissue = np.zeros_like(brain((1, 1, 1)).tissue)
    tissue[boxes((1, 1, 1), [LESION])] = TISSUE["white-matter"]
    tissue[boxes((1, 1, 1), [(-40, 10, -40, 40, -40, 40)])] = TISSUE["cortex"]
    alone = replace(brain((1, 1, 1)), tissue=tissue)
    with pytest.raises(UserError, match="hardly any white matter"):
        fill_lesions(grey, image(boxes((1, 1, 1), [LESION]), grey.affine), alone)
