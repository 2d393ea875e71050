"""Lesions of several sessions of one patient, decided together.

A lesion that is faint may cross the threshold in one session and miss it in the next, without any change. So where one
session shows a lesion, another session's voxels count already at a lower probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats
from bidsseg.lesions.components import Reals, apply, is_inside
from bidsseg.lesions.finding import in_tissue, lesion_mask, of_doubt
from bidsseg.segmentation.anatomy import Anatomy

FAINT = 1 / 8
"""Share of the threshold from which a voxel counts where another session has a lesion. Of normal white matter 1 to 3 %
is above it; at a half, patients who were scanned again without a change had up to five false new lesions."""


@dataclass(frozen=True, eq=False)
class SessionLesions:
    """What the network found in one session, on its scan's own grid (I, J, K)."""

    mask: NDArray[np.bool_]
    probability: Floats
    anatomy: Anatomy
    threshold: float
    "Of the mask, by the slices of the session's own scan."
    from_first: Reals
    "4x4, RAS mm of the first session to RAS mm of this one."

    def at(self, threshold: float) -> SessionLesions:
        """The same with the mask of another threshold."""
        return replace(self, mask=lesion_mask(self.probability, self.anatomy, threshold), threshold=threshold)


@dataclass(frozen=True, eq=False)
class JointLesions:
    """The lesions of one session as all sessions decide them."""

    mask: NDArray[np.bool_]
    "(I, J, K)"
    load_ml: float
    "Volume of the mask."
    load_range_ml: tuple[float, float]
    "The load where all sessions decide at thresholds ``DOUBT`` higher and lower."


def joint_lesions(sessions: Sequence[SessionLesions]) -> list[JointLesions]:
    """What becomes of each session, in their order."""
    doubts = zip(*(of_doubt(session.threshold) for session in sessions), strict=True)
    by_level = [
        decide_together(level)
        for level in (sessions, *([s.at(t) for s, t in zip(sessions, doubt, strict=True)] for doubt in doubts))
    ]
    joint = []
    for session, (mask, *others) in zip(sessions, zip(*by_level, strict=True), strict=True):
        load, least, most = (float(m.sum()) * session.anatomy.voxel_volume_mm3 / 1000 for m in (mask, *others))
        joint.append(JointLesions(mask, load, (least, most)))
    return joint


def decide_together(sessions: Sequence[SessionLesions]) -> list[NDArray[np.bool_]]:
    """The mask of each session: its own, and what is likely, in tissue, and lies where another session has a lesion."""
    return [own.mask | _confirmed(own, [other for other in sessions if other is not own]) for own in sessions]


def _confirmed(own: SessionLesions, others: Sequence[SessionLesions]) -> NDArray[np.bool_]:
    """Likely voxels that some other session's mask holds, at the nearest voxel."""
    likely = (own.probability >= FAINT * own.threshold) & in_tissue(own.anatomy) & ~own.mask
    voxels = np.argwhere(likely)
    in_first = apply(np.linalg.inv(own.from_first), apply(own.anatomy.affine, voxels))
    held = np.zeros(len(voxels), bool)
    for other in others:
        there = np.rint(apply(np.linalg.inv(other.anatomy.affine) @ other.from_first, in_first)).astype(np.intp)
        inside = is_inside(there, other.mask.shape)
        held[inside] |= other.mask[tuple(there[inside].T)]
    confirmed = np.zeros_like(own.mask)
    confirmed[tuple(voxels[held].T)] = True
    return confirmed
