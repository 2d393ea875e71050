from pathlib import Path

import numpy as np
import pytest

from bidsseg.evaluation.scores import (
    Condition,
    brightened,
    compare,
    evaluate,
    hausdorff95_mm,
    label_means,
    majority,
    mean_dice,
    merge_lobes,
    recolour,
    reference_codes,
    simulate,
    write_scores,
)
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUE
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.held_out import Case


def image(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1)) -> Image:
    data = np.random.default_rng(0).uniform(1, 100, shape).astype(np.float32)
    return Image(data, np.diag((*spacing, 1.0)))


def case() -> Case:
    """A 20 mm cube: putamen below, white matter above; the lower half of the grey values is darker."""
    tissue = np.full((20, 20, 20), TISSUE["putamen"], np.uint8)
    tissue[..., 10:] = TISSUE["white-matter"]
    zeros = np.zeros_like(tissue)
    return Case("cube", image((20, 20, 20)), Anatomy(tissue, zeros, zeros))


def test_dice_and_volumes_of_a_shifted_block() -> None:
    reference, found = np.zeros((2, 10, 10, 10), np.uint16)
    reference[2:6], found[4:8] = 12, 12
    (score,) = compare(reference, found, image((10, 10, 10), (1, 1, 2)), "regions")
    assert (score.name, score.dice, score.reference_mm3) == ("Left-Putamen", 0.5, 800)


@pytest.mark.parametrize(("shift", "spacing", "expected"), [(0, 1, 0), (3, 1, 3), (3, 2.5, 7.5)])
def test_hausdorff_distance_is_in_mm(shift: int, spacing: float, expected: float) -> None:
    a, b = np.zeros((2, 20, 3, 3), bool)
    a[5], b[5 + shift] = True, True  # two plates
    assert hausdorff95_mm(a, b, np.array([spacing, 1, 1])) == pytest.approx(expected)


def test_hausdorff_distance_to_nothing_is_nan() -> None:
    assert np.isnan(hausdorff95_mm(np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool), np.ones(3)))


@pytest.mark.parametrize(
    ("condition", "shape", "spacing"),
    [
        (Condition(), (20, 20, 20), (1, 1, 1)),
        (Condition(5), (20, 20, 4), (1, 1, 5)),
        (Condition(5, "coronal"), (20, 4, 20), (1, 5, 1)),
        (Condition(3, "sagittal"), (7, 20, 20), (3, 1, 1)),
        (Condition(5, slices=2), (20, 20, 2), (1, 1, 5)),
    ],
)
def test_simulated_slices(condition: Condition, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    found, _ = simulate(case(), condition)
    assert found.data.shape == shape
    np.testing.assert_allclose(found.spacing_mm, spacing)


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        (Condition(), "1 mm"),
        (Condition(contrast="flair"), "flair, 1 mm"),
        (Condition(5, "coronal"), "5 mm coronal slices"),
        (Condition(5, slices=12), "5 mm axial slices, 12 of them"),
        (Condition(slices=12, axis="coronal"), "1 mm coronal slices, 12 of them"),
    ],
)
def test_conditions_have_names_of_their_own(condition: Condition, name: str) -> None:
    assert condition.name == name


def test_a_simulated_slice_is_the_mean_of_what_it_covers_at_its_place() -> None:
    whole = case()
    found, _ = simulate(whole, Condition(5))
    np.testing.assert_allclose(found.data[..., 1], whole.image.data[..., 5:10].mean(-1), rtol=1e-5)
    np.testing.assert_allclose(found.affine @ (0, 0, 1, 1), (0, 0, 7, 1))


def test_thick_reference_labels_are_those_that_fill_most() -> None:
    whole = case()
    _, matrix = simulate(whole, Condition(4))  # slices 0-3, 4-7, 8-11 (half and half), 12-15, 16-19
    codes = majority(reference_codes(whole.anatomy, "regions"), matrix, 2)
    assert [int(codes[0, 0, k]) for k in (0, 1, 3, 4)] == [12, 12, codes[0, 0, 4], codes[0, 0, 4]]
    assert codes[0, 0, 0] != codes[0, 0, 4]


def test_inverted_contrast_swaps_dark_and_bright() -> None:
    found = recolour(case(), "inverted")
    original = case().image.data
    assert np.corrcoef(found.ravel(), original.ravel())[0, 1] < -0.99


def test_csf_is_not_scored() -> None:
    whole = case()
    whole.anatomy.tissue[:5] = TISSUE["csf"]
    assert not reference_codes(whole.anatomy, "regions")[:5].any()


def test_lobes_merge_grey_and_white_of_a_side() -> None:
    codes = np.array([0, 12, 1301, 3201, 2306, 4206], np.uint16)
    assert merge_lobes(codes).tolist() == [0, 0, 1301, 1301, 2306, 2306]


def test_evaluation_runs_from_scan_to_table(tiny_model: Path, tmp_path: Path) -> None:
    schemes = ("regions", "lobar", "gyri")
    scores = evaluate([case()], load_model(tiny_model), Condition(5), schemes, PredictOptions("cpu", 1))
    assert {score.scheme for score in scores} == set(schemes)
    assert all(0 <= score.dice <= 1 for score in scores)
    assert mean_dice(scores, "regions") == pytest.approx(
        np.mean([dice for scheme, _, dice, _ in label_means(scores) if scheme == "regions"])
    )
    write_scores(tmp_path / "scores.tsv", {"5 mm": scores, "7 mm": scores})
    assert len((tmp_path / "scores.tsv").read_text().splitlines()) == 1 + 2 * len(scores)


def test_gain_goes_smoothly_from_one_corner_to_the_other() -> None:
    found = brightened(np.ones((5, 7, 9), np.float32), 0.25)
    assert [float(found[at]) for at in ((0, 0, 0), (2, 3, 4), (4, 6, 8))] == pytest.approx([1.25, 1, 0.75])
    assert np.abs(np.diff(found, axis=0)).max() < 0.06
    assert Condition(gain=0.25).name == "gain +-25%, 1 mm"
