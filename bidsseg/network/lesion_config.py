"""The lesion network's shape; apart from the network, so that its card can be read without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

THICK_MM = 2.5
"Slices are thick from here on: clinical 2D scans have 3 mm and more, 3D ones 1.5 mm and less."


@dataclass(frozen=True)
class LesionNetConfig:
    """Architecture; stored in the card."""

    fine_width: int = 16
    "Channels at 2 mm."
    coarse_width: int = 32
    "Channels at 4 mm."


class Thresholds(NamedTuple):
    """Probabilities from which a voxel is lesion."""

    thick: float = 0.5
    "In thick slices, which blur a lesion's edges and so its probability."
    thin: float = 0.5

    def of(self, spacing_mm: Iterable[float]) -> float:
        """That of a scan with these distances of voxels."""
        return self.thick if max(spacing_mm) >= THICK_MM else self.thin
