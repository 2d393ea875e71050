"""Records of a scan's lesions: each lesion, each part, and the report on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsseg.lesions.components import LesionComponents, Reals
from bidsseg.lesions.masks import MaskKind
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.zones import MCDONALD_SITES, Cubes
from bidsseg.segmentation.anatomy import Anatomy

GIVEN, FOUND = "mask", "network"
"Where the lesions of a summary come from."


def load_in_words(load_ml: float, expected_error_ml: float | None) -> str:
    """A lesion load with its expected error, where this is known."""
    error = "" if expected_error_ml is None else f" (expected error {expected_error_ml:.2f} mL)"
    return f"{load_ml:.2f} mL{error}"


@dataclass(frozen=True)
class Lesion:
    """One lesion."""

    lesion: int
    "1 is the largest; the value of its voxels in the labelled lesion image."
    volume_mm3: float
    long_axis_mm: float
    "Largest distance between two voxel centres of the isotropic grid, plus one voxel."
    centroid_mm: tuple[float, float, float]
    "RAS, scanner or template coordinates of the scan's header."
    zone: str
    contacts: tuple[str, ...]
    dist_ventricle_mm: float
    "Gap to the nearest lateral ventricle, face to face: 0 where they touch or overlap, nan without a ventricle."
    dist_cortex_mm: float
    "Gap to the nearest cerebral cortex, likewise."
    main_region: int
    "Region code with the largest share, ventricles and CSF only where there is nothing else; 0 is outside the brain."
    regions: tuple[tuple[int, float], ...]
    "Region codes and the lesion's share in each, largest first; the shares add up to 1."
    relative_intensity: float
    "Mean grey value over the median of normal-appearing white matter; nan without such white matter."
    parts: int
    "How many parts a confluent lesion has; 1 for any other."


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a confluent lesion, or the whole of another."""

    part: int
    "Numbered over all lesions; the value of its voxels in the image of parts."
    lesion: int
    volume_mm3: float
    centroid_mm: tuple[float, float, float]
    zone: str
    contacts: tuple[str, ...]
    ventricle_share: float
    "Share of its surface at a lateral ventricle."
    cortex_share: float
    "Share of its surface at the cerebral cortex."
    dist_ventricle_mm: float
    dist_cortex_mm: float
    main_region: int


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of at most 1 mm of the mask's lesion voxels: what the volumes in tables are sums of; shape (M,)."""

    component: NDArray[np.int32]
    "0 outside the scan's field of view."
    part: NDArray[np.int32]
    "Part of the lesion; 0 outside, and in what is too small."
    volume_mm3: float
    "Volume of each piece."
    index: NDArray[np.intp]
    "Flat index of the scan voxel that holds the piece's centre; -1 outside."
    points_mm: Reals
    "(M, 3) RAS."


@dataclass(frozen=True, eq=False)
class LesionReport:
    """All lesions of a scan."""

    lesions: tuple[Lesion, ...]
    "Largest first; without components below the minimum volume."
    parts: tuple[Part, ...]
    "Ordered by lesion, the largest part of each first."
    cubes: tuple[Cubes, ...]
    "The isotropic voxels of each part."
    components: LesionComponents
    pieces: Pieces
    labels: NDArray[np.uint16]
    "(I, J, K) lesion of each voxel of the scan's grid; 0 also for what is too small."
    part_labels: NDArray[np.uint16]
    "(I, J, K) part of each voxel."
    anatomy: Anatomy
    "What was segmented, corrected under lesions."
    corrected_voxels: int
    ventricle_mm: Reals
    "(M,) gap of each piece to the lateral ventricles; nan without these."
    cortex_mm: Reals
    "(M,) the same to the cortex."
    kind: MaskKind
    options: LesionOptions
    warnings: tuple[str, ...]

    @property
    def mask_volume_mm3(self) -> float:
        return len(self.components.voxels) * self.components.voxel_volume_mm3


def findings(lesions: Sequence[Lesion], options: LesionOptions) -> str:
    """What is seen of dissemination in space: lesions per McDonald site. Not a diagnosis.

    Counts zones of lesions of at least the minimum long axis; ``(+n)`` counts those of another zone that touch it too.
    """
    long_enough = [lesion for lesion in lesions if lesion.long_axis_mm >= options.min_long_axis_mm]
    zones = Counter(lesion.zone for lesion in long_enough)
    also = Counter(c for lesion in long_enough for c in lesion.contacts if c != lesion.zone)
    parts = [f"{site}: {zones[site]}" + (f" (+{also[site]})" if also[site] else "") for site in MCDONALD_SITES]
    return ", ".join(parts)
