"""Turns one can do with a small cube."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bidsseg.imaging.arrays import Floats
from bidsseg.network.inference import PredictOptions
from bidsseg.quality import reorientation
from bidsseg.quality.assessment import assess
from bidsseg.quality.reorientation import Turn, better_orientation, name_of, turned, turns
from tests.quality.test_assessment import TRUSTING, VIEW, usual


def test_all_orientations_but_mirrored_ones_are_tried_once() -> None:
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    found = {turned(cube, turn).tobytes() for turn in turns()}
    assert len(found) == 23
    assert cube.tobytes() not in found
    assert next(iter(turns())) == ((0, 1, 2), (2,))


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (((0, 1, 2), (2,)), "bottom and top exchanged"),
        (((0, 1, 2), (1, 2)), "back and front exchanged and bottom and top exchanged"),
        (((0, 2, 1), ()), "its axes in another order"),
    ],
)
def test_names(turn: Turn, name: str) -> None:
    assert name_of(turn) == name


@pytest.mark.parametrize(("soft", "expected"), [(0.9, "bottom and top exchanged (expected Dice 0.90)"), (0.5, "")])
def test_an_upside_down_scan_is_told(monkeypatch: pytest.MonkeyPatch, soft: float, expected: str) -> None:
    volume = np.zeros((2, 2, 2), np.float32)
    volume[..., 0] = 1  # upside down: bright below

    def infer(asked: Floats, *_: object) -> tuple[float, Floats]:
        return soft if asked[0, 0, 1] == 1 else 0.3, asked

    monkeypatch.setattr(reorientation, "infer", infer)
    monkeypatch.setattr(reorientation, "collect", lambda answer, shape: usual(answer))
    found = better_orientation(volume, usual(0.3), None, PredictOptions(), TRUSTING)  # type: ignore[arg-type]
    assert found == expected
    told = assess(replace(usual(0.3), better_turned=found), VIEW, TRUSTING)
    assert told.verdict == "fail"
    assert any("wrong orientation" in reason for reason in told.reasons) == bool(expected)
