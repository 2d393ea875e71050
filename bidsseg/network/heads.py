"""What the network's heads say of the blocks near the brain, brought to their voxels."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.files import reserve
from bidsseg.imaging.blocks import SIDE
from bidsseg.labels import N_GYRI, gyri_to_parts, lobe_parts
from bidsseg.network.unet import SUBVOXELS, Features, HeadInputs, UNet, mean_of

BLOCKS_AT_ONCE = 32_768


def heads_near_brain(
    net: UNet,
    features: Sequence[Features],
    near: NDArray[np.bool_],
    window: tuple[slice, ...],
    gyri: bool,
    scratch: Path | None,
) -> list[NDArray[np.float16]]:
    """Tissue, side and parcel probabilities (C, I, J, K) of a window of blocks.

    Features are the scan's, and its mirror image's where that is to be averaged with.

    Each chunk of answers goes straight to its voxels: there are no second copies, since these are most of the memory.
    Parcels stay at blocks (i, j, k, C).
    """
    inside = torch.from_numpy(np.ascontiguousarray(near[window]))
    everywhere = torch.arange(features[0].n_blocks).reshape(features[0].fine.shape[1:])
    blocks = [(everywhere.flip(0) if mirrored else everywhere)[window][inside] for mirrored in range(len(features))]
    shape = [SIDE * n for n in inside.shape]
    voxels = torch.arange(math.prod(shape)).reshape(shape)
    first = voxels[::2, ::2, ::2][inside]
    to_subvoxels = voxels[:2, :2, :2].flatten().tolist()  # in the order of ``space_to_depth``
    tissue, right = (torch.from_numpy(_zeros((size, voxels.numel()), scratch)) for size in (net.config.n_tissues, 1))
    tissue[0] = 1
    n_parcels = net.config.n_parcels if gyri else len(lobe_parts())
    parcels = torch.zeros((inside.numel(), n_parcels), dtype=torch.float16)
    numbers = torch.nonzero(inside.flatten())[:, 0]
    for some in torch.split(torch.arange(len(first)), BLOCKS_AT_ONCE) if len(first) else ():
        asked = (there[some].to(features[0].fine.device) for there in blocks)
        views = [net.embed(seen, these) for seen, these in zip(features, asked, strict=True)]
        *of_subvoxels, of_blocks = _heads(net, views, gyri)
        for output, values in zip((tissue, right), of_subvoxels, strict=True):
            for step, subvoxel in zip(to_subvoxels, values.to(torch.float16).cpu(), strict=True):
                output.index_copy_(1, first[some] + step, subvoxel)
        parcels.index_copy_(0, numbers[some], of_blocks.to(torch.float16).cpu().T)
    whole = [output.numpy().reshape(len(output), *shape) for output in (tissue, right)]
    return [*whole, parcels.numpy().reshape(*inside.shape, n_parcels)]


def _zeros(shape: tuple[int, int], scratch: Path | None) -> NDArray[np.float16]:
    """In memory, or in an unnamed file."""
    if scratch is None:
        return np.zeros(shape, np.float16)
    with tempfile.TemporaryFile(dir=scratch) as file:  # lives as long as the mapping
        reserve(file, math.prod(shape) * np.dtype(np.float16).itemsize, scratch)
        return np.memmap(file, np.float16, "w+", shape=shape)


def _heads(net: UNet, views: Sequence[HeadInputs], gyri: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of tissue (8, tissues, N), of the right side (8, 1, N) and of parcels (parcels, N) at N blocks.

    They are the mean over the views of the blocks: the scan's, and its mirror image's if given.
    """
    tissue = [net.tissue_logits(view).softmax(1) for view in views]
    right, *of_mirror_image = (net.side_logits(view.hidden).sigmoid() for view in views)
    parcels = mean_of([net.parcel_logits(view.hidden).softmax(0) for view in views])
    if not gyri:
        parcels = torch.from_numpy(gyri_to_parts()).to(parcels) @ parcels[:N_GYRI]
    return (
        _average_with_mirror(tissue),
        _average_with_mirror([right, *(1 - other for other in of_mirror_image)]),
        parcels,
    )


def _average_with_mirror(answers: Sequence[Tensor]) -> Tensor:
    """Of (8, classes, N): the scan's alone, or with the mirror image's, whose sub-voxels lie the other way round."""
    own, *mirrored = answers
    for other in mirrored:
        own = (own + other.roll(SUBVOXELS // 2, 0)) / 2  # their first axis is the slowest
    return own
