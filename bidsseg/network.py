"""The U-Net: it works at 2 mm and answers at 1 mm.

Space-to-depth folds each 2x2x2 block of 1 mm voxels into 8 channels, a 3D U-Net runs on the 2 mm grid,
and linear heads give the 8 sub-voxels back. Tissue, side and parcel have heads of their own in place of one flat
softmax over their product, which would be an order of magnitude larger and not symmetric under left-right flips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidsseg.labels import N_PARCELS, TISSUES

SUBVOXELS = 8


@dataclass(frozen=True)
class UNetConfig:
    """Architecture; stored in the model card."""

    widths: tuple[int, ...] = (16, 48, 96, 160, 192)
    "Channels of each level; level n works at 2^(n+1) mm."
    head_width: int = 96
    "Channels of the hidden layer shared by the heads."
    n_tissues: int = len(TISSUES)
    n_parcels: int = N_PARCELS

    @property
    def multiple(self) -> int:
        """Every side of an input volume must be a multiple of this many 1 mm voxels."""
        return 1 << len(self.widths)


class Block(nn.Module):
    """Two times (3x3x3 convolution, instance norm, leaky ReLU)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(channels_out, channels_out)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.01, inplace=True)
        return F.leaky_relu(self.norm2(self.conv2(x)), 0.01, inplace=True)


class UNet(nn.Module):
    """Ronneberger et al. 2015 in 3D, with a space-to-depth stem and factored heads.

    ``features`` maps a volume (B, 1, I, J, K) at 1 mm to (B, C, I/2, J/2, K/2). The last 8 of the C channels are the
    block's own grey values, so that the others need not carry them: that halves the steps to sharp tissue borders. The
    heads map rows (N, C) of such
    features to logits (N, 8, classes), sub-voxels in the order of ``space_to_depth``. Rows, not volumes, because the
    heads at every voxel cost more than the network: training asks for a subset, inference goes in chunks.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoder = nn.ModuleList(
            Block(c_in, c_out) for c_in, c_out in zip((SUBVOXELS, *widths[:-1]), widths, strict=True)
        )
        upward = list(reversed(range(len(widths) - 1)))
        self.reduce = nn.ModuleList(nn.Conv3d(widths[level + 1], widths[level], 1) for level in upward)
        self.decoder = nn.ModuleList(Block(widths[level], widths[level]) for level in upward)
        self.hidden = nn.Linear(widths[0] + SUBVOXELS, config.head_width)
        self.tissue_head = nn.Linear(config.head_width, SUBVOXELS * config.n_tissues)
        self.side_head = nn.Linear(config.head_width, SUBVOXELS)
        self.parcel_head = nn.Linear(config.head_width, SUBVOXELS * config.n_parcels)

    def features(self, volume: Tensor) -> Tensor:
        """(B, 1, I, J, K) at 1 mm -> (B, C, I/2, J/2, K/2)."""
        x = space_to_depth(volume)
        grey = 4 * (x - 0.3)  # 0-1 to the spread of normalised features
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.max_pool3d(x, 2))
            skips.append(x)
        skips.pop()
        for reduce, block in zip(self.reduce, self.decoder, strict=True):
            # Adding the skip, reduced while still coarse, halves the cost of the top level against concatenation.
            x = block(F.interpolate(reduce(x), scale_factor=2.0, mode="nearest") + skips.pop())
        return torch.cat((x, grey.to(x.dtype)), 1)

    def embed(self, rows: Tensor) -> Tensor:
        """Rows of features (N, C) -> the heads' hidden layer (N, head_width)."""
        return F.leaky_relu(self.hidden(rows), 0.01)

    def tissue_logits(self, embedded: Tensor) -> Tensor:
        """(N, head_width) -> (N, 8, n_tissues)."""
        return self._by_subvoxel(self.tissue_head(embedded))

    def side_logits(self, embedded: Tensor) -> Tensor:
        """(N, head_width) -> (N, 8): the logit of being on the right."""
        logits: Tensor = self.side_head(embedded)
        return logits

    def parcel_logits(self, embedded: Tensor) -> Tensor:
        """(N, head_width) -> (N, 8, n_parcels)."""
        return self._by_subvoxel(self.parcel_head(embedded))

    @staticmethod
    def _by_subvoxel(logits: Tensor) -> Tensor:
        return logits.reshape(len(logits), SUBVOXELS, logits.shape[1] // SUBVOXELS)


def space_to_depth(volume: Tensor) -> Tensor:
    """(B, 1, I, J, K) -> (B, 8, I/2, J/2, K/2); sub-voxel (a, b, c) of a block is channel 4a + 2b + c."""
    batch, _, i, j, k = volume.shape
    blocks = volume.reshape(batch, i // 2, 2, j // 2, 2, k // 2, 2)
    return blocks.permute(0, 2, 4, 6, 1, 3, 5).reshape(batch, SUBVOXELS, i // 2, j // 2, k // 2)


def depth_to_space(blocks: Tensor) -> Tensor:
    """The inverse of ``space_to_depth``: (B, 8, I, J, K) -> (B, 1, 2I, 2J, 2K)."""
    batch, _, i, j, k = blocks.shape
    grid = blocks.reshape(batch, 2, 2, 2, i, j, k).permute(0, 4, 1, 5, 2, 6, 3)
    return grid.reshape(batch, 1, 2 * i, 2 * j, 2 * k)
