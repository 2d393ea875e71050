"""The anatomy of every voxel of a grid, and the label images that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import voxel_volume_mm3
from bidsseg.labels import Codes, Scheme, code_lookup, encode


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tissue, side and parcel of every voxel of a grid, shapes (I, J, K); their codes are those of ``bidsseg.labels``.

    The label images of all schemes follow from these, so they cannot contradict each other.
    """

    tissue: NDArray[np.uint8]
    side: NDArray[np.uint8]
    parcel: NDArray[np.uint8]
    "Without ``has_gyri``, one gyrus stands for the whole lobe."
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    "4x4, voxel indices to RAS mm; unless given, voxels of 1 mm in RAS order."
    has_gyri: bool = True

    @property
    def voxel_volume_mm3(self) -> float:
        return voxel_volume_mm3(self.affine)

    @property
    def brain_mask(self) -> NDArray[np.bool_]:
        """Whether each voxel shows brain or the cerebrospinal fluid around it, (I, J, K)."""
        return self.tissue > 0

    @cached_property
    def _label_maps(self) -> dict[Scheme, Codes]:
        return {}

    def labels(self, scheme: Scheme) -> Codes:
        """The label of every voxel in one scheme; computed once for each.

        Parameters
        ----------
        scheme : {"regions", "lobes", "gyri"}
            ``"regions"`` are structures with cortex and white matter of each hemisphere as a whole, ``"lobes"`` divides
            these two by lobe, ``"gyri"`` the cortex by gyrus.

        Returns
        -------
        numpy.ndarray
            (I, J, K) uint16, read-only; 0 is background, the other codes are those of ``label_table``.

        Raises
        ------
        ValueError
            If gyri are asked for and the anatomy holds none.
        """
        if scheme == "gyri" and not self.has_gyri:
            raise ValueError("this anatomy was made without gyri")
        if scheme not in self._label_maps:
            codes = encode(self.tissue, self.side, self.parcel, scheme)
            codes.flags.writeable = False  # all callers share it
            self._label_maps[scheme] = codes
        return self._label_maps[scheme]


def from_labels(regions: Codes, lobes: Codes, affine: NDArray[np.float64]) -> Anatomy:
    """The anatomy whose label maps of regions and lobes, both (I, J, K), these are; without gyri.

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
    return Anatomy(tissue, side, parcel, affine, has_gyri=False)


@cache
def _factors_of_codes() -> dict[int, tuple[int, int, int]]:
    """The first (tissue, side, parcel) that has each pair of codes, region << 16 | lobe."""
    pairs = code_lookup("regions").astype(np.int64) << 16 | code_lookup("lobes")
    found, first = np.unique(pairs, return_index=True)
    factors = np.stack(np.unravel_index(first, pairs.shape), 1)
    return {int(pair): (int(t), int(s), int(p)) for pair, (t, s, p) in zip(found, factors, strict=True)}
