"""What the card says of a lesion network, from loads and scores that can be reckoned by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bidsseg.evaluation.lesion_load import FLOOR_ML, ComparedLoad, load_errors, validation
from bidsseg.evaluation.lesion_measures import LesionMeasures, measured_as_json
from bidsseg.evaluation.lesion_rescan import SHIFT_MM, scanned_again
from bidsseg.evaluation.lesion_scores import LesionScore
from bidsseg.imaging.image import at_1mm
from bidsseg.network.lesion_card import LesionCard, lesion_table, read_lesion_card, write_lesion_card
from bidsseg.network.lesion_config import LesionNetConfig, LoadError, LoadErrors

PATIENTS = [
    ComparedLoad("a", 6.0, 10.0, 12.1),  # 2 mL and the floor too little: a fifth
    ComparedLoad("b", 6.0, 5.0, 2.9),  # 2 mL and the floor too much: two fifths
    ComparedLoad("c", 1.0, 1.0, 1.6),  # half of it, and the floor
]


def test_the_share_is_the_mean_of_patients_with_slices_alike() -> None:
    errors = load_errors(PATIENTS)
    assert errors.thick == pytest.approx(LoadError(FLOOR_ML, 0.3))
    assert errors.thin == pytest.approx(LoadError(FLOOR_ML, 0.5))
    assert errors.of([1, 1, 6.0]).of(10.0) == pytest.approx(3.1)


def test_where_no_patient_tells_all_of_the_load_is_doubtful() -> None:
    assert load_errors(PATIENTS[:2]).thin == (FLOOR_ML, 1.0)


def test_each_patient_is_judged_by_the_others() -> None:
    told = validation(PATIENTS)
    ratios = told["error in patients over the expected one, each left out"]
    assert ratios == pytest.approx({"a": 2.1 / 4.1, "b": 2.1 / 1.1}, abs=0.01)  # c has no others in thin slices
    assert told["patients within twice the expected error"] == 2
    assert (
        validation([PATIENTS[0], ComparedLoad("far", 6.0, 10.0, 20.0)])["patients within twice the expected error"] == 1
    )


def measures() -> LesionMeasures:
    score, rule = LesionScore(0.7, 10, 0.8, 2, 5.0, 4.0), LesionScore(0.5, 10, 0.6, 9, 6.0, 4.0)
    return LesionMeasures(
        {"sub-02": score, "patient07": score},
        {"sub-02": rule, "patient07": rule},
        [ComparedLoad("sub-02", 6.0, 5.0, 4.0), ComparedLoad("patient07", 1.0, 5.0, 4.0)],
        {"sub-02": {"new": 1, "vanished": 0}},
        {"T1w": {"sub-07": LesionScore(0.1, 10, 0.2, 30, 9.0, 4.0)}},
        {"sub-1": 0.1},
    )


def test_the_card_has_every_scan_beside_the_rule() -> None:
    measured = measures()
    card = LesionCard("small", "0", LesionNetConfig(), "", accuracy=measured_as_json(measured))
    for line in (
        "| sub-02 | 0.70 (0.50) | 80% of 10 | 2 | 5.0 | 4.0 |",
        "at most 0.10 mL",
        "lesions called new: 1 in sub-02.",
        "In T1w, which is not offered: Dice 0.10 (sub-07).",
    ):
        assert line in lesion_table(card)
    assert card.accuracy["mean of 2D FLAIR"]["dice"] == 0.7
    assert "Expected error" not in lesion_table(card)


def test_the_card_keeps_the_errors_of_loads(tmp_path: Path) -> None:
    measured, folder = measures(), tmp_path
    card = LesionCard(
        "small", "0", LesionNetConfig(), "", accuracy=measured_as_json(measured), load_errors=measured.load_errors
    )
    write_lesion_card(folder, card)
    read = read_lesion_card(folder)
    assert read.load_errors == measured.load_errors
    assert isinstance(read.load_errors, LoadErrors)
    assert "Expected error of a load: " in lesion_table(read)


@pytest.mark.parametrize(("asked", "threshold", "known"), [(None, 0.5, True), (0.3, 0.3, False), (0.5, 0.5, False)])
def test_no_error_is_told_at_a_threshold_of_the_users_own(asked: float | None, threshold: float, known: bool) -> None:
    errors = LoadErrors(LoadError(0.2, 0.1), LoadError(0.1, 0.1))
    card = LesionCard("small", "0", LesionNetConfig(), "", load_errors=errors)
    assert card.decided_by([1, 1, 7], asked) == (threshold, errors.thick if known else None)


def test_a_scan_taken_again_shows_the_head_elsewhere_on_the_same_grid() -> None:
    data = np.full((40, 40, 40), 10, np.float32)
    data[18:23, 18:23, 18:23] = 100
    image = at_1mm(data)
    one, same, other = (scanned_again(image, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.data, same.data)
    np.testing.assert_array_equal(one.affine, image.affine)
    assert one.data.dtype == np.float32
    assert np.abs(one.data - other.data).mean() > 0.1
    bright = np.argwhere(one.data > 50)
    assert 0 < np.linalg.norm(bright.mean(0) - 20) < 2 * SHIFT_MM
