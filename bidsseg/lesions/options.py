"""How lesions are told apart and placed."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDED_DOWN = 1 - 1e-6
"A least volume times this is reached by as many voxels of a size that a header rounds."


@dataclass(frozen=True)
class LesionOptions:
    """How lesions are told apart and placed."""

    threshold: float = 0.5
    "Probability at or above which a voxel of a probabilistic mask is lesion."
    min_volume_mm3: float = 14.0
    "Smaller components are counted together as too-small; a ball 3 mm across has 14 mm3."
    min_long_axis_mm: float = 3.0
    "Shorter lesions keep their zone but are left out of the findings (McDonald criteria: at least 3 mm)."
    tolerance_mm: float = 1.5
    "A lesion abuts ventricles or cortex where the gap between them is at most this."
    bands_mm: tuple[float, ...] = ()
    "Upper edges of distance bands from the lateral ventricles, for instance (3, 10); none by default."
