"""Averages of probabilities between grids whose offsets are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.grid import conform
from bidsseg.labels import TISSUES, lobe_parts
from bidsseg.network.inference import PredictOptions, Probabilities
from bidsseg.segmentation import fusion
from bidsseg.segmentation.fusion import fuse
from bidsseg.segmentation.pipeline import Answer
from tests.quality.test_agreement import SHAPE, labels, shift


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
