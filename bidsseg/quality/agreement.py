"""The agreement of the labels from several contrasts of one session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import overlap
from bidsseg.imaging.grid import conform
from bidsseg.labels import Codes
from bidsseg.quality.verdicts import AGREEMENT, WITH

if TYPE_CHECKING:
    from bidsseg.imaging.image import Image


def carry(labels: Image, target: Image, to_labels: NDArray[np.float64]) -> tuple[Codes, NDArray[np.bool_]]:
    """Labels on another scan's grid, nearest neighbours, and where they reach.

    ``to_labels`` takes RAS mm of the target to RAS mm of the labels.
    """
    matrix = np.linalg.inv(labels.affine) @ to_labels @ target.affine
    axes = np.ogrid[tuple(slice(0, n) for n in target.data.shape)]
    flat, reached = np.zeros(target.data.shape, np.int64), np.ones(target.data.shape, bool)
    for row, size in zip(matrix[:3], labels.data.shape, strict=True):
        index = np.rint(row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] + row[3]).astype(np.int64)
        reached &= (index >= 0) & (index < size)
        flat = flat * size + np.clip(index, 0, size - 1)
    carried = labels.data.reshape(-1)[flat.reshape(-1)].reshape(flat.shape).astype(np.uint16)
    return np.where(reached, carried, 0).astype(np.uint16), reached


def agreement(one: Image, other: Image, to_other: NDArray[np.float64]) -> float:
    """Mean Dice of the labels of two answers on the grid of the first, where both reach; nan without labels."""
    carried, reached = carry(other, one, to_other)
    own = np.where(reached, one.data, 0).astype(np.uint16)
    a, b, both = overlap(own, carried)[:, 1:]
    present = a + b > 0
    return float(np.mean(2 * both[present] / (a + b)[present])) if present.any() else float("nan")


def register_answers(
    scans: Sequence[tuple[Image, Image]], pairs: Sequence[tuple[int, int]], threads: int
) -> dict[tuple[int, int], float]:
    """How far the labels of scans agree, both ways, after a rigid registration of each pair.

    A scan comes as its image at 1 mm, on the grid to which its own grid is resampled, and its labels on its own grid.
    """
    from bidsseg.imaging.registration import register_both  # and SimpleITK, which reports on agreement do without

    found = {}
    for a, b in pairs:
        (one_scan, one), (other_scan, other) = scans[a], scans[b]
        to_b, to_a = register_both(one_scan, other_scan, _brain_at_1mm(one), threads)
        found[a, b], found[b, a] = agreement(one, other, to_b), agreement(other, one, to_a)
    return found


def _brain_at_1mm(labels: Image) -> NDArray[np.bool_]:
    brain: NDArray[np.bool_] = conform(replace(labels, data=(labels.data > 0).astype(np.float32)))[0] >= 0.5
    return brain


def agreement_file(by_other: Mapping[str, float], made_with: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a scan's agreement file, from the Dice with each of its session's other contrasts."""
    rounded = {other: round(dice, 4) for other, dice in by_other.items()}
    return {AGREEMENT: round(sum(rounded.values()) / len(rounded), 4), WITH: rounded, **made_with}
