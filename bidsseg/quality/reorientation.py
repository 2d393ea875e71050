"""Whether a scan that cannot be labelled well could be, were its header to say something else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np

from bidsseg.imaging.arrays import Floats
from bidsseg.network.inference import PredictOptions, infer
from bidsseg.network.weights import Model
from bidsseg.quality.assessment import DIRECTIONS, Calibration, expect
from bidsseg.quality.evidence import Evidence, collect

GAIN = 0.1
"Of expected Dice, by which another orientation must be better."
Turn = tuple[tuple[int, ...], tuple[int, ...]]
"Order of the axes, and the axes reversed afterwards."


def turns() -> Iterator[Turn]:
    """The 23 other orientations, simple flips first; left and right are never exchanged, which no image shows."""
    for order in permutations(range(3)):
        for flips in product((False, True), repeat=2):
            reverse = tuple(axis for axis, flip in zip((1, 2), flips, strict=True) if flip)
            if order != (0, 1, 2) or reverse:
                yield order, reverse


def turned(volume: Floats, turn: Turn) -> Floats:
    order, reverse = turn
    return np.ascontiguousarray(np.flip(volume.transpose(order), reverse))


def name_of(turn: Turn) -> str:
    """What the header takes for what."""
    order, reverse = turn
    if order == (0, 1, 2):
        return " and ".join(f"{DIRECTIONS[axis][0]} and {DIRECTIONS[axis][1]} exchanged" for axis in reverse)
    return "its axes in another order"


def mean_expected(evidence: Evidence, calibration: Calibration) -> float:
    return float(np.mean(list(expect(evidence, "regions", calibration).values()) or [0.0]))


def better_orientation(
    volume: Floats, found: Evidence, model: Model, options: PredictOptions, calibration: Calibration
) -> str:
    """The first other orientation in which a normalised 1 mm RAS volume can be labelled well; empty if there is none.

    Asks the network up to 23 times, so only for scans that fail.
    """
    wanted = max(calibration.fail_below, mean_expected(found, calibration) + GAIN)
    for turn in turns():
        other = turned(volume, turn)
        dice = mean_expected(collect(*infer(other, model, options)), calibration)
        if dice >= wanted:
            return f"{name_of(turn)} (expected Dice {dice:.2f})"
    return ""
