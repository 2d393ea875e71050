"""A segmentation on a scan's own grid, and what follows from it: label maps, volumes, masks, confidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import voxel_volume_mm3
from bidsseg.labels import Codes, Scheme, code_lookup, encode


@dataclass(frozen=True)
class Segmentation:
    """The anatomy of every voxel of a scan, in the scan's own axes; shapes (I, J, K)."""

    tissue: NDArray[np.uint8]
    side: NDArray[np.uint8]
    parcel: NDArray[np.uint8]
    "Without ``has_gyri``, one gyrus stands for the whole lobe."
    confidence: NDArray[np.float16]
    "Probability of the chosen tissue; 0 outside the brain."
    affine: NDArray[np.float64]
    has_gyri: bool
    edge_fraction: float = 0.0
    "Largest share of brain on a face of the field of view: large where the scan cuts the brain."

    @property
    def voxel_volume_mm3(self) -> float:
        return voxel_volume_mm3(self.affine)


def labels(segmentation: Segmentation, scheme: Scheme) -> Codes:
    """The label map of a scheme; raises ``ValueError`` for gyri that were not computed."""
    if scheme == "gyri" and not segmentation.has_gyri:
        raise ValueError("this segmentation was made without gyri")
    return encode(segmentation.tissue, segmentation.side, segmentation.parcel, scheme)


def from_labels(regions: Codes, lobes: Codes, affine: NDArray[np.float64]) -> Segmentation:
    """The segmentation whose label maps of regions and lobes, both (I, J, K), these are; without gyri and confidence.

    Raises ``ValueError`` for codes that no anatomy has.
    """
    if regions.shape != lobes.shape:
        raise ValueError(f"label images of one scan must have one shape, got {regions.shape} and {lobes.shape}")
    pairs, inverse = np.unique(regions.astype(np.int64) << 16 | lobes, return_inverse=True)
    known = _factors_of_codes()
    missing = [(int(pair) >> 16, int(pair) & 0xFFFF) for pair in pairs if int(pair) not in known]
    if missing:
        raise ValueError(f"region {missing[0][0]} and lobe {missing[0][1]} don't go together in one voxel")
    factors = np.array([known[int(pair)] for pair in pairs], np.uint8)[inverse.reshape(regions.shape)]
    tissue, side, parcel = (np.ascontiguousarray(factors[..., n]) for n in range(3))
    return Segmentation(tissue, side, parcel, np.zeros(regions.shape, np.float16), affine, has_gyri=False)


@cache
def _factors_of_codes() -> dict[int, tuple[int, int, int]]:
    """The first (tissue, side, parcel) that has each pair of codes, region << 16 | lobe."""
    pairs = code_lookup("regions").astype(np.int64) << 16 | code_lookup("lobes")
    found, first = np.unique(pairs, return_index=True)
    places = np.stack(np.unravel_index(first, pairs.shape), 1)
    return {int(pair): (int(t), int(s), int(p)) for pair, (t, s, p) in zip(found, places, strict=True)}


def brain_mask(segmentation: Segmentation) -> NDArray[np.uint8]:
    """1 for brain and the CSF around it, 0 elsewhere."""
    return (segmentation.tissue > 0).astype(np.uint8)
