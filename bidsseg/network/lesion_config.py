"""The lesion network's shape; apart from the network, so that its card can be read without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class LoadError(NamedTuple):
    """By how much a lesion load is expected to miss the truth, mean of absolute differences."""

    floor_ml: float
    "Where no lesion is found."
    share: float
    "Of the load that is found, on top of the floor."

    def of(self, load_ml: float) -> float:
        """In mL, of a scan with this load."""
        return self.floor_ml + self.share * load_ml


class LoadErrors(NamedTuple):
    """The same by the slices of the scan, as ``Thresholds`` are."""

    thick: LoadError
    thin: LoadError

    @classmethod
    def read(cls, stored: Sequence[Sequence[float]] | None) -> LoadErrors | None:
        """What JSON keeps of them."""
        return cls(*(LoadError(*map(float, pair)) for pair in stored)) if stored else None

    def of(self, spacing_mm: Iterable[float]) -> LoadError:
        """That of a scan with these distances of voxels."""
        return self.thick if max(spacing_mm) >= THICK_MM else self.thin
