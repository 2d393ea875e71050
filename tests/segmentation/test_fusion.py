"""Averages of probabilities and agreement of answers, between grids whose offsets one knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.bids.contrasts import fused_places
from bidsseg.bids.names import Scan
from bidsseg.bids.outputs import Place
from bidsseg.files import write_text
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUES, lobe_parts
from bidsseg.network.inference import PredictOptions, Probabilities
from bidsseg.quality.agreement import AGREEMENT, agreement, carry, with_agreement
from bidsseg.segmentation import fusion
from bidsseg.segmentation.fusion import fuse
from bidsseg.segmentation.pipeline import Answer
from bidsseg.workflow.finishing import sessions_to_compare

SHAPE = (8, 8, 8)


def labels(start: int, shift_mm: float = 0, spacing_mm: float = 1.0) -> Image:
    """Label 12 from voxel ``start`` of the first axis on."""
    data = np.zeros(SHAPE, np.float32)
    data[start:] = 12
    affine = np.diag((spacing_mm, 1, 1, 1.0))
    affine[0, 3] = shift_mm
    return Image(data, affine, nib.Nifti1Header())


def shift(mm: float) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[0, 3] = mm
    return matrix


@pytest.mark.parametrize(
    ("other", "to_other", "expected"),
    [
        (labels(4), shift(0), 1.0),
        (labels(4, shift_mm=3), shift(3), 1.0),  # the same head, three mm to the right
        (labels(6), shift(0), 2 * 2 / (4 + 2)),
        (labels(2, shift_mm=0.5, spacing_mm=2), shift(0), 1.0),  # slices twice as thick
        (labels(4, shift_mm=4), shift(0), 0.0),  # reaches the upper half only, and has nothing there
    ],
)
def test_agreement_of_two_answers(other: Image, to_other: NDArray[np.float64], expected: float) -> None:
    assert agreement(labels(4), other, to_other) == pytest.approx(expected)


def test_labels_end_where_their_image_ends() -> None:
    carried, reached = carry(labels(0), labels(0), shift(5))
    assert carried[:, 0, 0].tolist() == [12, 12, 12, 0, 0, 0, 0, 0]
    assert reached[:, 0, 0].tolist() == [True] * 3 + [False] * 5


def certain(tissue: int, origin: tuple[int, int, int] = (0, 0, 0), shape: tuple[int, ...] = SHAPE) -> Probabilities:
    """One tissue everywhere in the box."""
    channels = np.zeros((len(TISSUES), *shape), np.float16)
    channels[tissue] = 1
    return Probabilities(
        origin, channels, np.ones((1, *shape), np.float16), np.zeros((len(lobe_parts()), *shape), np.float16)
    )


def fused(monkeypatch: pytest.MonkeyPatch, answered: Probabilities, to_other: NDArray[np.float64]) -> Probabilities:
    scan = labels(4)
    volume, grid = conform(scan)
    monkeypatch.setattr(fusion, "answer", lambda *_: Answer(volume, grid, answered))
    monkeypatch.setattr(fusion, "rigid_transform", lambda *_: to_other)
    return fuse(scan, certain(3), grid, [scan], None, PredictOptions())  # type: ignore[arg-type]


def test_probabilities_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fused(monkeypatch, certain(5), shift(0))
    assert float(found.tissue[3, 4, 4, 4]) == float(found.tissue[5, 4, 4, 4]) == 0.5
    np.testing.assert_allclose(found.tissue.sum(0), 1, atol=1e-3)


def test_where_the_other_scan_does_not_reach_the_first_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fused(monkeypatch, certain(5), shift(4))
    assert found.tissue[5, :, 4, 4].tolist() == [0.5] * 4 + [0] * 4
    assert found.tissue[3, :, 4, 4].tolist() == [0.5] * 4 + [1] * 4


def test_beyond_the_box_of_its_brain_the_other_scan_says_background(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fused(monkeypatch, certain(5, (4, 0, 0), (4, 8, 8)), shift(0))
    assert found.tissue[0, :3, 4, 4].tolist() == [0.5] * 3
    assert found.tissue[5, 5:, 4, 4].tolist() == [0.5] * 3


def places(out: Path, *names: str) -> list[Place]:
    found = []
    for name in names:
        *pairs, suffix = name.split("_")
        entities = tuple((key, value) for key, value in (pair.split("-") for pair in pairs))
        found.append(Place(Scan(out / "raw" / f"{name}.nii.gz", entities, suffix), out / "raw", out))
    return found


def test_contrasts_of_one_session_are_fused(tmp_path: Path) -> None:
    found = fused_places(places(tmp_path, "sub-1_ses-1_T1w", "sub-1_ses-1_FLAIR", "sub-1_ses-2_T1w", "sub-2_ses-1_T1w"))
    assert [(place.scan.stem, [p.name for p in place.partners]) for place in found] == [
        ("sub-1_ses-1_T1wfused", ["sub-1_ses-1_FLAIR.nii.gz"]),
        ("sub-1_ses-1_FLAIRfused", ["sub-1_ses-1_T1w.nii.gz"]),
    ]
    assert found[0].file("dseg.nii.gz", space="orig", seg="lobes", desc=found[0].scan.suffix).name == (
        "sub-1_ses-1_space-orig_seg-lobes_desc-T1wfused_dseg.nii.gz"
    )


def test_sessions_are_compared_once_and_again_when_a_scan_was_done_again(tmp_path: Path) -> None:
    session = places(tmp_path, "sub-1_T1w", "sub-1_FLAIR")
    assert sessions_to_compare(session) == []  # not segmented yet
    for place in session:
        write_text(place.marker, json.dumps({"Verdict": "pass"}))
    assert sessions_to_compare(session) == [session]
    for place, other in zip(session, session[::-1], strict=True):
        write_text(place.marker, json.dumps(with_agreement({"Verdict": "pass"}, {other.scan.stem: 0.8})))
    assert sessions_to_compare(session) == []
    write_text(session[0].marker, json.dumps({"Verdict": "pass"}))
    assert sessions_to_compare(session) == [session]


@pytest.mark.parametrize(
    ("verdict", "dice", "expected"),
    [("pass", 0.8, "pass"), ("pass", 0.3, "check"), ("fail", 0.3, "fail"), ("check", 0.9, "check")],
)
def test_little_agreement_calls_for_a_look(verdict: str, dice: float, expected: str) -> None:
    changed = with_agreement({"Verdict": verdict, "Reasons": []}, {"sub-1_FLAIR": dice})
    assert changed["Verdict"] == expected
    assert changed[AGREEMENT] == dice
    assert bool(changed["Reasons"]) == (dice < 0.5)


@pytest.mark.parametrize(("verdict", "others"), [("pass", []), ("check", ["few slices"]), ("fail", ["poor"])])
def test_agreement_is_told_anew_when_the_other_contrast_is_done_again(verdict: str, others: list[str]) -> None:
    quality = {"Verdict": verdict, "Reasons": others}
    low = with_agreement(with_agreement(quality, {"sub-1_FLAIR": 0.3}), {"sub-1_FLAIR": 0.4})
    assert [reason.rpartition(" ")[2] for reason in low["Reasons"][len(others) :]] == ["0.40"]
    high = with_agreement(low, {"sub-1_FLAIR": 0.9})
    assert (high["Verdict"], high["Reasons"]) == (verdict, others)


def test_a_fused_place_is_another_than_the_scans_own(tmp_path: Path) -> None:
    [place, _] = places(tmp_path, "sub-1_T1w", "sub-1_FLAIR")
    assert replace(place, partners=(Path("x"),)) != place
