"""Settings for separating lesions and locating them."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDED_DOWN = 1 - 1e-6
"A least volume times this is reached by as many voxels of a size that a header rounds."


@dataclass(frozen=True)
class LesionOptions:
    """Settings for separating lesions and locating them."""

    threshold: float = 0.5
    "Probability at or above which a voxel of a probabilistic mask is lesion."
    min_volume_mm3: float = 14.0
    "Smaller components are counted together as too-small; a ball 3 mm across has 14 mm3."
    min_long_axis_mm: float = 3.0
    "Shorter lesions keep their zone but are left out of the findings (McDonald criteria: at least 3 mm)."
    tolerance_mm: float = 2.0
    "The surface of a part is at the ventricles where the gap between them is at most this: a normal bright rim there."
    cortex_tolerance_mm: float = 1.0
    "The same for the cortex, whose folds are close to white matter everywhere."
    ventricle_share: float = 0.1
    "A part abuts the ventricles with at least this share of its surface at them."
    cortex_share: float = 0.3
    "A part abuts the cortex with at least this share of its surface at it."
    neck_share: float = 0.5
    "A lesion is split where a neck is narrower than this share of the lesser width beside it."
    part_depth_mm: float = 1.0
    "A part is at least this deep, counted at voxel centres."
    near_mm: float = 4.0
    "A voxel belongs to the nearer of ventricles and cortex up to this gap, and to deep white matter beyond."
    bands_mm: tuple[float, ...] = ()
    "Upper edges of distance bands from the lateral ventricles, for instance (3, 10); none by default."
