"""What the network says about a scan: probabilities over a box of its 1 mm grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Box, box_at
from bidsseg.imaging.blocks import blocks_along, blocks_of
from bidsseg.labels import TISSUES


@dataclass(frozen=True)
class Probabilities:
    """What the network says about a box of the 1 mm grid; float16, every probability 0-1."""

    origin: tuple[int, int, int]
    "The box's first voxel."
    tissue: NDArray[np.float16]
    "(19, I, J, K)"
    right: NDArray[np.float16]
    "(1, I, J, K): on the right rather than the left."
    parcels: NDArray[np.float16]
    """(I/2, J/2, K/2, lobe parts), rounded up, or (..., N_PARCELS) with gyri: of the blocks of 2 mm that the network
    answers for, the first of which begins with the box's first voxel; see ``imaging.blocks``."""

    @property
    def box(self) -> Box:
        """On the 1 mm grid."""
        return box_at(self.origin, self.tissue.shape[1:])

    def within(self, box: Box) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
        """Views of tissue, right and parcels in a box of the 1 mm grid, which begins with a block of the own box."""
        i, j, k = (slice(s.start - o, s.stop - o) for s, o in zip(box, self.origin, strict=True))
        return self.tissue[:, i, j, k], self.right[:, i, j, k], self.parcels[blocks_of((i, j, k))]


def background(origin: tuple[int, int, int], shape: tuple[int, int, int], n_parcels: int) -> Probabilities:
    """No brain anywhere in a box."""
    tissue, right = (np.zeros((n, *shape), np.float16) for n in (len(TISSUES), 1))
    tissue[0] = 1
    return Probabilities(origin, tissue, right, np.zeros((*blocks_along(shape), n_parcels), np.float16))
