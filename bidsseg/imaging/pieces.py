"""Connected pieces of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def large_pieces(
    mask: NDArray[np.bool_], least_voxels: float = 1, least_share: float = 0, corners: bool = False
) -> NDArray[np.bool_]:
    """What remains of a mask (I, J, K) without pieces of fewer voxels, or of a smaller share of the largest's.

    Voxels are of one piece where they share a face or, with ``corners``, a face, an edge or a corner.
    """
    pieces, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, 3 if corners else 1))
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    large: NDArray[np.bool_] = (sizes >= max(1, least_voxels, least_share * sizes.max()))[pieces]
    return large
