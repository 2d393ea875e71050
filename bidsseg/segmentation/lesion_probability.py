"""The probability that each voxel of a scan's own grid is a lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import SLAB_FLOATS, Grid, slabs, to_ras_order
from bidsseg.network.device import autocast, choose_device, computing_type
from bidsseg.network.lesion_model import LesionModel
from bidsseg.network.lesion_net import Contrast, lesion_inputs, tissue_box
from bidsseg.segmentation.pipeline import Answer


@dataclass(frozen=True)
class LesionAnswer:
    """What the lesion network says of a scan."""

    probability: Floats
    "(I, J, K) on the scan's own grid, 0-1; 0 outside the brain."
    contrast: Contrast
    "Of the scan: whether it is a FLAIR shows in it."


def lesion_answer(found: Answer, model: LesionModel, device: str = "auto") -> LesionAnswer:
    """Ask the lesion network about a scan whose tissues the U-Net has found, within the box of its tissue."""
    box = found.probabilities.box
    inner = tissue_box(found.probabilities.tissue)
    grey, tissue = found.conformed[box][inner], found.probabilities.tissue[(slice(None), *inner)]
    inputs, contrast = lesion_inputs(grey, tissue)
    place = choose_device(device)
    half = computing_type(place)
    relative, groups = (part.to(place, half)[None] for part in (inputs.relative, inputs.groups))
    with torch.inference_mode(), autocast(place):
        probable = model.net.to(place)(relative, inputs.white.to(place)[None], groups)[0].float().sigmoid().cpu()
    i, j, k = grey.shape
    probability: Floats = probable[:i, :j, :k].numpy()
    first_i, first_j, first_k = (outer.start + side.start for outer, side in zip(box, inner, strict=True))
    return LesionAnswer(_on_native_grid(probability, (first_i, first_j, first_k), found.grid), contrast)


def _on_native_grid(probability: Floats, origin: tuple[int, int, int], grid: Grid) -> Floats:
    """At the middle of each voxel: between thick slices the scan, and so the answer, is a mixture of two of them.

    ``origin`` is the first voxel of the 1 mm grid that the probability is known at.
    """
    native = np.zeros(grid.native_shape, np.float32)
    whole = to_ras_order(native, grid)
    for slab in slabs(probability.shape, origin, grid, 1, SLAB_FLOATS, at_centres=True):
        whole[slab.window] = slab.of(probability[None])[0]
    return native
