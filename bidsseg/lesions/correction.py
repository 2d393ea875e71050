"""Corrects regions under lesions, which a segmentation may take for fluid or cortex amid white matter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.lesions.zones import CORTEX, VENTRICLES, WHITE_MATTER, is_any, tissues
from bidsseg.segmentation.anatomy import Anatomy

DOUBTFUL = tissues("background", "csf", "cortex", "lateral-ventricle", "inferior-lateral-ventricle")
"What a lesion in white matter is taken for by mistake."


def correct_under_lesions(anatomy: Anatomy, lesion: NDArray[np.bool_]) -> Anatomy:
    """Make white matter of lesion voxels (I, J, K) that were taken for background, fluid or cortex inside white matter.

    Inside white matter is an island of such labels (of one kind, or of all together) that lies at least half in lesions
    and has mostly white matter around it; it gets side and parcel of the nearest white matter. True ventricles and
    cortex go on beyond the lesion and stay.
    """
    if not lesion.any():
        return anatomy
    tissue = anatomy.tissue
    ventricle, cortex, doubtful = (is_any(tissue, kinds) for kinds in (VENTRICLES, CORTEX, DOUBTFUL))
    new = {name: getattr(anatomy, name).copy() for name in ("tissue", "side", "parcel")}
    spacing = voxel_spacing_mm(anatomy.affine)
    for doubt in (ventricle, cortex, doubtful & ~ventricle & ~cortex, doubtful):
        for island, white in _islands(doubt, lesion, tissue):
            nearest = white[cKDTree(white * spacing).query(island * spacing)[1]]
            for values in new.values():
                values[tuple(island.T)] = values[tuple(nearest.T)]
    return Anatomy(**new, affine=anatomy.affine, has_gyri=anatomy.has_gyri)


def _islands(
    doubt: NDArray[np.bool_], lesion: NDArray[np.bool_], tissue: NDArray[np.uint8]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Lesion voxels of each island (N, 3), and the white matter around it (M, 3)."""
    components, count = ndimage.label(doubt)
    within = np.bincount(components[lesion], minlength=count + 1)
    share = within / np.maximum(np.bincount(components.reshape(-1), minlength=count + 1), 1)
    boxes = ndimage.find_objects(components)
    found = []
    for number in 1 + np.flatnonzero(share[1:] >= 0.5):
        box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in boxes[number - 1])
        inside = components[box] == number
        around = ndimage.binary_dilation(inside) & ~inside
        white = around & (tissue[box] == WHITE_MATTER)
        if white.sum() * 2 > around.sum():
            start = np.array([s.start for s in box])
            found.append((np.argwhere(inside & lesion[box]) + start, np.argwhere(white) + start))
    return found
