"""The U-Net: it works at 2 mm and answers at 1 mm.

Space-to-depth folds each 2x2x2 block of 1 mm voxels into 8 channels, a 3D U-Net runs on the 2 mm grid,
and linear heads give the 8 sub-voxels back. Tissue, side and parcel have heads of their own in place of one flat
softmax over their product, which would be an order of magnitude larger and not symmetric under left-right flips.
Parcels stay at 2 mm: their borders follow no grey values, and are drawn better by interpolation between blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bidsseg.network.config import UNetConfig

SUBVOXELS = 8


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


class Features(NamedTuple):
    """What the network's body gives to its heads."""

    fine: Tensor
    "(C + 8 * cues, I/2, J/2, K/2): the top level, and what each of the blocks' sub-voxels looks like (``HeadInputs``)."
    contexts: tuple[Tensor, ...]
    """Each (head_width, I/4, J/4, K/4): the hidden layer's input from all coarser levels; of one pass or more, the n-th
    moved by n blocks along every axis."""

    @property
    def n_blocks(self) -> int:
        return self.fine[0].numel()


class HeadInputs(NamedTuple):
    """The heads' input at N blocks."""

    hidden: Tensor
    "(head_width, N): what lies where."
    cues: Tensor
    "(cues, 8, N), float32: the sub-voxels' grey values, what each learned filter makes of them, and their squares."


class UNet(nn.Module):
    """Ronneberger et al. 2015 in 3D, with a space-to-depth stem and factored heads that see every level.

    The heads' hidden layer takes the decoder's features of all levels (a hypercolumn, Hariharan et al. 2015), so that
    the narrow top level carries borders and the wide ones below carry what lies where; it also takes the block's own
    grey values. Against heads on the top level alone this halves the steps that learning takes, for 1 % of its time.

    A tissue's logit is quadratic in the sub-voxel's grey value, with coefficients that the hidden layer gives for each
    block: the log of a Gaussian whose mean and width the network knows for the tissue, the place and the scan, in the
    manner of unified segmentation (Ashburner and Friston 2005). The top level's few channels cannot carry eight grey
    values through its norms to a threshold that depends on the contrast; with them alone the border of cortex and white
    matter was worse than a single threshold makes it.

    The heads work on columns (C, N), one for each 2 mm block asked for. Those of tissue and side give logits
    (8, classes, N), sub-voxels in the order of ``space_to_depth``; that of parcels (classes, N). Columns, not volumes,
    because the heads at every voxel cost more than the body: training asks for a subset, inference goes in chunks.
    Classes come before blocks all the way, because then nothing is transposed.
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
        self.context = nn.ModuleList(nn.Conv3d(width, config.head_width, 1, bias=False) for width in widths[:0:-1])
        self.filters = nn.Conv3d(SUBVOXELS, SUBVOXELS * config.n_filters, 3, padding=1)
        self.hidden = nn.Linear(widths[0] + SUBVOXELS * (1 + config.n_filters), config.head_width)
        self.tissue_head = nn.Linear(config.head_width, SUBVOXELS * config.n_tissues)
        self.slope_head = nn.Linear(config.head_width, (2 + config.n_filters) * config.n_tissues)
        nn.init.zeros_(self.slope_head.weight)
        nn.init.zeros_(self.slope_head.bias)
        self.side_head = nn.Linear(config.head_width, SUBVOXELS)
        self.parcel_head = nn.Linear(config.head_width, config.n_parcels)

    def features(self, volume: Tensor, passes: int = 1) -> Features:
        """(1, 1, I, J, K) at 1 mm -> what the heads need; see ``body``."""
        return features_of(*self.body(volume, passes))

    def body(self, volumes: Tensor, passes: int = 1) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, 1, I, J, K) at 1 mm -> ``Features`` of B volumes, stacked: (B, C + 8 * cues, I/2, J/2, K/2) and contexts.

        With two passes the levels below the top see the scan once as it lies and once moved by one block, and the mean
        counts: what pooling makes of a border depends on how it falls on the coarse grid (Zhang 2019), and the mean of
        two such answers is better than either. It costs far less than to average two runs of the whole network.
        """
        x = space_to_depth(volumes)
        grey = 4 * (x - 0.3)  # 0-1 to the spread of normalised features
        top = self.encoder[0](x)
        found = [self._below_top(_moved(top, n)) for n in range(passes)]
        from_below = mean_of([_moved(upward, -n) for n, (upward, _) in enumerate(found)])
        x = self.decoder[-1](from_below + top)
        filtered = F.leaky_relu(self.filters(grey), 0.01)
        fine = torch.cat((x, grey.to(x.dtype), filtered.to(x.dtype)), 1)
        return fine, tuple(context for _, context in found)

    def _below_top(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The top level's encoding -> what the levels below add to it, on the same grid, and the heads' context."""
        skips = [x]
        for block in self.encoder[1:]:
            x = block(F.max_pool3d(x, 2, ceil_mode=True))
            skips.append(x)
        skips.pop()
        context = self.context[0](x)
        *upward, to_top = self.reduce
        for reduce, block, to_hidden in zip(upward, self.decoder[:-1], self.context[1:], strict=True):
            # Adding the skip, reduced while still coarse, halves the cost of the top level against concatenation.
            skip = skips.pop()
            x = block(_doubled(reduce(x), skip) + skip)
            context = _doubled(context, x) + to_hidden(x)
        return _doubled(to_top(x), skips.pop()), context

    def embed(self, features: Features, blocks: Tensor) -> HeadInputs:
        """The heads' input at N blocks, given by their places in the flattened 2 mm grid.

        Features may be in half precision; it would save the heads no time.
        """
        fine = features.fine.flatten(1)[:, blocks].to(self.hidden.weight.dtype)
        context = [
            context.flatten(1)[:, _coarse_blocks(blocks, features.fine.shape[1:], n)]
            for n, context in enumerate(features.contexts)
        ]
        hidden = F.leaky_relu(_on_columns(self.hidden, fine) + mean_of(context), 0.01)
        seen = fine[self.config.widths[0] :].float().reshape(-1, SUBVOXELS, len(blocks))
        return HeadInputs(hidden, torch.cat((seen, seen[:1].square())))

    def tissue_logits(self, embedded: HeadInputs) -> Tensor:
        """Float32 (8, n_tissues, N)."""
        logits = _by_subvoxel(_on_columns(self.tissue_head, embedded.hidden))
        slopes = _on_columns(self.slope_head, embedded.hidden).float()
        for slope, cue in zip(slopes.chunk(len(embedded.cues)), embedded.cues, strict=True):
            logits.addcmul_(slope, cue[:, None])
        return logits

    def side_logits(self, hidden: Tensor) -> Tensor:
        """(head_width, N) -> float32 (8, 1, N): the logit of being on the right."""
        return _by_subvoxel(_on_columns(self.side_head, hidden))

    def parcel_logits(self, hidden: Tensor) -> Tensor:
        """(head_width, N) -> float32 (n_parcels, N), of whole blocks."""
        return _on_columns(self.parcel_head, hidden).float()


def features_of(fine: Tensor, contexts: tuple[Tensor, ...]) -> Features:
    """What ``UNet.body`` makes of B volumes, as that of one: the volumes lie end to end along the first axis.

    Of more than one volume, after one pass only: the other passes' blocks come in again at the end of their own volume.
    """
    assert len(fine) == 1 or len(contexts) == 1
    return Features(_end_to_end(fine), tuple(_end_to_end(context) for context in contexts))


def _end_to_end(x: Tensor) -> Tensor:
    """(B, C, i, j, k) -> (C, B * i, j, k)"""
    return x.transpose(0, 1).flatten(1, 2)


def padded_length(n: int, multiple: int) -> int:
    """How long an axis of n voxels must be made: a multiple, four at least, since norms need more than one voxel."""
    return max(n + -n % multiple, 4 * multiple)


def _doubled(x: Tensor, finer: Tensor) -> Tensor:
    """On the grid of the next finer level, whose last layers pooling may have rounded up."""
    return F.interpolate(x, size=finer.shape[2:], mode="nearest")


def mean_of(tensors: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of one shape; of a single one, itself."""
    return torch.stack(list(tensors)).mean(0) if len(tensors) > 1 else tensors[0]


def _moved(x: Tensor, blocks: int) -> Tensor:
    """Moved along every axis; what leaves at one end, air mostly, comes in at the other."""
    return torch.roll(x, (blocks,) * 3, (2, 3, 4)) if blocks else x


def _coarse_blocks(blocks: Tensor, shape: torch.Size, moved: int) -> Tensor:
    """Places in the flattened 4 mm grid of blocks of the 2 mm grid, given by theirs, after a move of all blocks."""
    ni, nj, nk = shape
    places = (blocks // (nj * nk), blocks // nk % nj, blocks % nk)
    i, j, k = ((place + moved) % n // 2 for place, n in zip(places, (ni, nj, nk), strict=True))
    return (i * (nj // 2) + j) * (nk // 2) + k


def _on_columns(layer: nn.Linear, columns: Tensor) -> Tensor:
    """The layer on columns (C, N) instead of rows."""
    return torch.addmm(layer.bias[:, None], layer.weight, columns)


def _by_subvoxel(logits: Tensor) -> Tensor:
    """(8 * classes, N) -> float32 (8, classes, N)."""
    return logits.float().reshape(SUBVOXELS, logits.shape[0] // SUBVOXELS, logits.shape[1])


def space_to_depth(volume: Tensor) -> Tensor:
    """(B, 1, I, J, K) -> (B, 8, I/2, J/2, K/2); sub-voxel (a, b, c) of a block is channel 4a + 2b + c."""
    batch, _, i, j, k = volume.shape
    blocks = volume.reshape(batch, i // 2, 2, j // 2, 2, k // 2, 2)
    return blocks.permute(0, 2, 4, 6, 1, 3, 5).reshape(batch, SUBVOXELS, i // 2, j // 2, k // 2)
