"""The lesion network's shape; apart from the network, so that its card can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LesionNetConfig:
    """Architecture; stored in the card."""

    fine_width: int = 16
    "Channels at 2 mm."
    coarse_width: int = 32
    "Channels at 4 mm."
