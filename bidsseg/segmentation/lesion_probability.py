"""The probability that each voxel of a scan's own grid is a lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import SLAB_FLOATS, Grid, slabs, to_native_axes
from bidsseg.network.device import autocast, choose_device
from bidsseg.network.lesion_model import LesionModel
from bidsseg.network.lesion_net import Contrast, each_voxel, lesion_inputs, tissue_box
from bidsseg.segmentation.pipeline import Answer


@dataclass(frozen=True)
class LesionAnswer:
    """What the lesion network says of a scan."""

    probability: Floats
    "(I, J, K) on the scan's own grid, 0-1; 0 outside the brain."
    contrast: Contrast
    "Of the scan: whether it is a FLAIR shows in it."


def lesion_answer(found: Answer, model: LesionModel, device: str = "auto") -> LesionAnswer:
    """Ask the lesion network about a scan whose tissues the U-Net has found, within the box of its tissue.

    The mean of the answers to the scan and to its mirror image counts.
    """
    box = found.probabilities.box
    inner = tissue_box(found.probabilities.tissue)
    grey, tissue = found.conformed[box][inner], found.probabilities.tissue[(slice(None), *inner)]
    inputs, contrast = lesion_inputs(grey, tissue)
    place = choose_device(device)
    net = model.net.to(place)
    relative, groups = inputs.relative.to(place)[None], inputs.groups.to(place)[None]
    with torch.inference_mode(), autocast(place):
        own = net(relative, groups)[0].float().sigmoid()
        mirrored = net(relative.flip(2), groups.flip(2))[0].float().sigmoid().flip(0)
    probable = ((own + mirrored) / 2).cpu() * each_voxel(inputs.inside)
    i, j, k = grey.shape
    probability: Floats = probable[:i, :j, :k].numpy()
    first_i, first_j, first_k = (outer.start + side.start for outer, side in zip(box, inner, strict=True))
    return LesionAnswer(_on_native_grid(probability, (first_i, first_j, first_k), found.grid), contrast)


def _on_native_grid(probability: Floats, origin: tuple[int, int, int], grid: Grid) -> Floats:
    """At the middle of each voxel: between thick slices the scan, and so the answer, is a mixture of two of them.

    ``origin`` is the first voxel of the 1 mm grid that the probability is known at.
    """
    whole = np.zeros(grid.canonical_shape, np.float32)
    for slab in slabs(probability.shape, origin, grid, 1, SLAB_FLOATS, at_centres=True):
        whole[slab.window] = slab.of(probability[None])[0]
    native: Floats = to_native_axes(whole, grid)
    return native
