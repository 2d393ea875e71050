"""The probability that each voxel of a scan's own grid is a lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bidsseg.imaging.arrays import Box, Floats
from bidsseg.imaging.grid import SLAB_FLOATS, slabs, to_native_axes
from bidsseg.network.device import choose_device
from bidsseg.network.lesion_model import LesionModel
from bidsseg.network.lesion_net import Contrast, each_voxel, lesion_inputs
from bidsseg.segmentation.pipeline import Answer


@dataclass(frozen=True)
class LesionAnswer:
    """What the lesion network says of a scan."""

    probability: Floats
    "(I, J, K) on the scan's own grid, 0-1; 0 outside the brain."
    contrast: Contrast
    "Of the scan: whether it is a FLAIR shows in it."


def brain_box(found: Answer) -> Box:
    """The box of the 1 mm grid that the answer's probabilities cover."""
    shape = found.probabilities.right.shape[1:]
    i, j, k = (slice(first, first + n) for first, n in zip(found.probabilities.origin, shape, strict=True))
    return i, j, k


def lesion_answer(found: Answer, model: LesionModel, device: str = "auto") -> LesionAnswer:
    """Ask the lesion network about a scan whose tissues the U-Net has found.

    The mean of the answers to the scan and to its mirror image counts.
    """
    box = brain_box(found)
    inputs, contrast = lesion_inputs(found.conformed[box], found.probabilities.tissue)
    place = choose_device(device)
    net = model.net.to(place)
    relative, groups = inputs.relative.to(place)[None], inputs.groups.to(place)[None]
    with torch.inference_mode():
        own = net(relative, groups)[0].sigmoid()
        mirrored = net(relative.flip(2), groups.flip(2))[0].sigmoid().flip(0)
    mean = ((own + mirrored) / 2).cpu()
    inside = each_voxel(inputs.inside)
    i, j, k = found.probabilities.right.shape[1:]
    probability: Floats = (mean * inside)[:i, :j, :k].numpy()
    return LesionAnswer(_on_native_grid(probability, found), contrast)


def _on_native_grid(probability: Floats, found: Answer) -> Floats:
    """At the middle of each voxel: between thick slices the scan, and so the answer, is a mixture of two of them."""
    grid = found.grid
    whole = np.zeros(grid.canonical_shape, np.float32)
    for slab in slabs(probability.shape, found.probabilities.origin, grid, 1, SLAB_FLOATS, at_centres=True):
        whole[slab.window] = slab.of(probability[None])[0]
    native: Floats = to_native_axes(whole, grid)
    return native
