"""The network's shape; apart from the network, so that a model's card can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass

from bidsseg.labels import N_PARCELS, TISSUES

MOST_LEVELS, WIDEST = 8, 1024
"The deepest and the widest network that is accepted: 8 levels see 256 mm, and wider ones need too much memory."


@dataclass(frozen=True)
class UNetConfig:
    """Architecture; stored in the model card. Raises ``ValueError`` where it is out of bounds."""

    widths: tuple[int, ...] = (16, 64, 128, 256, 320)
    "Channels of each level; level n works at 2^(n+1) mm."
    head_width: int = 96
    "Channels of the hidden layer shared by the heads."
    n_filters: int = 2
    "Learned filters of grey values that the tissue head sees at each sub-voxel, besides the value itself."
    n_tissues: int = len(TISSUES)
    n_parcels: int = N_PARCELS

    def __post_init__(self) -> None:
        sizes = (*self.widths, self.head_width, self.n_filters, self.n_tissues, self.n_parcels)
        if not 2 <= len(self.widths) <= MOST_LEVELS or not all(1 <= size <= WIDEST for size in sizes):
            raise ValueError(f"a network has 2 to {MOST_LEVELS} levels, of 1 to {WIDEST} channels each")

    @property
    def multiple(self) -> int:
        """Every side of an input volume must be a multiple of this many 1 mm voxels.

        The deepest level alone may have a voxel that only half of one above fills: more would cost accuracy. Nor may
        there be half a voxel of 4 mm, since each holds the context of two blocks.
        """
        return max(4, 1 << (len(self.widths) - 1))
