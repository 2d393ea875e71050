"""From probabilities on the 1 mm grid to one label for every voxel of the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import SLAB_FLOATS, Grid, slabs, to_ras_order
from bidsseg.labels import LOBAR_TISSUES, N_GYRI, TISSUE, first_gyri, gyri_to_parts, lobe_parts, part_of_gyrus
from bidsseg.network.probabilities import Probabilities
from bidsseg.segmentation.result import Segmentation

PARCELLATED = (*LOBAR_TISSUES, "cerebellum-cortex")


class Decision(NamedTuple):
    """What was decided for some voxels, arrays of one shape: see ``Segmentation``."""

    tissue: NDArray[np.uint8]
    side: NDArray[np.uint8]
    parcel: NDArray[np.uint8]
    confidence: NDArray[np.float16]


def decide_on_native_grid(found: Probabilities, grid: Grid, gyri: bool, max_floats: int = SLAB_FLOATS) -> Segmentation:
    """Decide every voxel on the scan's own grid, from probabilities resampled to it, ``max_floats`` at a time."""
    types = (np.uint8, np.uint8, np.uint8, np.float16)
    stored = Decision(*(np.zeros(grid.native_shape, dtype) for dtype in types))
    whole = Decision(*(to_ras_order(volume, grid) for volume in stored))
    channels = len(found.tissue) + len(found.right) + found.parcels.shape[-1]
    for slab in slabs(found.tissue.shape[1:], found.origin, grid, channels, max_floats):
        decided = decide(slab.of(found.tissue), slab.of(found.right)[0], partial(slab.of_blocks, found.parcels), gyri)
        whole.tissue[slab.window] = decided.tissue
        whole.side[slab.window] = decided.side
        whole.parcel[slab.window] = decided.parcel
        whole.confidence[slab.window] = decided.confidence
    return Segmentation(
        stored.tissue,
        stored.side,
        stored.parcel,
        grid.native_affine,
        gyri,
        confidence=stored.confidence,
        edge_fraction=edge_fraction(whole.tissue),
    )


def edge_fraction(tissue: NDArray[np.uint8]) -> float:
    """The largest share of brain on a face of the field of view."""
    faces = (tissue.take(k, axis) for axis in range(3) for k in (0, -1))
    return max(float((face > 0).mean()) for face in faces)


def decide(tissues: Floats, right: Floats, parcels_at: Callable[[NDArray[np.bool_]], Floats], gyri: bool) -> Decision:
    """Tissue, side, parcel and confidence from probabilities (19, i, j, k), (i, j, k), and (parcels, N) where asked.

    Tissue first, then side, then lobe, then gyrus within the lobe: so the schemes nest in each other.
    """
    chosen, tissue = _largest(tissues)
    confidence = np.where(tissue > 0, chosen, 0).astype(np.float16)
    side = (right > 0.5).astype(np.uint8)
    parcel = np.zeros_like(tissue)
    parcellated = np.isin(tissue, [TISSUE[name] for name in PARCELLATED])
    parcels = parcels_at(parcellated)
    parcel[parcellated] = (
        likeliest_parcels(parcels, tissue[parcellated]) if gyri else first_gyri()[_largest(parcels)[1]]
    )
    return Decision(tissue, side, parcel, confidence)


def likeliest_parcels(parcels: Floats, tissue: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Parcels (N,) from their probabilities (N_PARCELS, N): lobules in the cerebellum, else gyri of the chosen lobe."""
    lookup = part_of_gyrus()
    best = [_largest(parcels[:N_GYRI][lookup == number]) for number in range(len(lobe_parts()))]
    part = _largest(gyri_to_parts() @ parcels[:N_GYRI])[1]
    within = np.zeros_like(part)
    for number, (_, index) in enumerate(best):
        here = part == number
        within[here] = np.flatnonzero(lookup == number)[index[here]]
    lobule = N_GYRI + _largest(parcels[N_GYRI:])[1]
    return np.where(tissue == TISSUE["cerebellum-cortex"], lobule, within).astype(np.uint8)


def _largest(channels: Floats) -> tuple[Floats, NDArray[np.uint8]]:
    """Largest value and its index along the first axis; torch does it several times faster than numpy."""
    found = torch.from_numpy(channels).max(0)
    return found.values.numpy(), found.indices.to(torch.uint8).numpy()
