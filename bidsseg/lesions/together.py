"""Lesions of several sessions of one patient, decided together.

A lesion that is faint may cross the threshold in one session and miss it in the next, without any change. So where one
session shows a lesion, another session's voxels count already at a lower probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats
from bidsseg.lesions.components import Reals, apply, is_inside

FAINT = 1 / 8
"""Share of the threshold from which a voxel counts where another session has a lesion. Of normal white matter 1 to 3 %
is above it; at a half, patients who were scanned again without a change had up to five false new lesions."""


@dataclass(frozen=True, eq=False)
class SessionLesions:
    """What the network found in one session, on its scan's own grid (I, J, K)."""

    mask: NDArray[np.bool_]
    probability: Floats
    affine: Reals
    from_first: Reals
    "4x4, RAS mm of the first session to RAS mm of this one."


def decide_together(sessions: Sequence[SessionLesions], threshold: float) -> list[NDArray[np.bool_]]:
    """The mask of each session: its own, and what is likely and lies where another session has a lesion."""
    return [
        own.mask | _confirmed(own, [other for other in sessions if other is not own], FAINT * threshold)
        for own in sessions
    ]


def _confirmed(own: SessionLesions, others: Sequence[SessionLesions], least: float) -> NDArray[np.bool_]:
    """Voxels of at least this probability that some other session's mask holds, at the nearest voxel."""
    likely = (own.probability >= least) & ~own.mask
    voxels = np.argwhere(likely)
    in_first = apply(np.linalg.inv(own.from_first), apply(own.affine, voxels))
    held = np.zeros(len(voxels), bool)
    for other in others:
        there = np.rint(apply(np.linalg.inv(other.affine) @ other.from_first, in_first)).astype(np.intp)
        inside = is_inside(there, other.mask.shape)
        held[inside] |= other.mask[tuple(there[inside].T)]
    confirmed = np.zeros_like(own.mask)
    confirmed[tuple(voxels[held].T)] = True
    return confirmed
