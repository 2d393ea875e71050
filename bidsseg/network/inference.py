"""The forward pass: device choice, memory ladder, probabilities near the brain."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import Box, Floats, box_around
from bidsseg.imaging.blocks import SIDE, blocks_of
from bidsseg.imaging.grey import normalise
from bidsseg.imaging.pieces import large_pieces
from bidsseg.labels import N_PARCELS, lobe_parts
from bidsseg.network.device import choose_device
from bidsseg.network.heads import heads_near_brain
from bidsseg.network.looks import (
    ISLAND_SHARE,
    OnScaleOf,
    coarse_look_at,
    head_in,
    is_squeezed,
    look_at,
    next_view,
    size_of,
)
from bidsseg.network.probabilities import Probabilities, background
from bidsseg.network.weights import Model

logger = logging.getLogger(__name__)

HALVES_OVERLAP_MM = 32
PASSES = 2
"How often the network's coarser levels see the scan."
MORE_LOOKS = 4
"After the first, at most."
SETTLED = 0.8
"Share of what was looked at that is found again, beyond which another look would change little."
BRIDGE_MM = 2
"What hangs on the brain by less than twice this is no part of it."


@dataclass(frozen=True)
class PredictOptions:
    """How to run a model."""

    device: str = "auto"
    "auto, cpu, cuda, cuda:N or mps."
    threads: int = 0
    "CPU threads; 0 takes all."
    gyri: bool = False
    "Also parcellate the cortex, for the gyri scheme."
    mirror: bool = False
    "Average with the answer to the mirror image: somewhat better, 1.5 times the network's time."
    scratch: Path | None = None
    "A folder to keep probabilities in files of, where memory is short; None keeps them in memory."


def infer(
    volume: Floats, model: Model, options: PredictOptions, on_scale_of: OnScaleOf | None = None
) -> tuple[Probabilities, Floats]:
    """Probabilities over the brain's box of a 1 mm RAS volume, and its grey values as the network saw them, 0-1.

    Once a brain is found, ``on_scale_of`` gives the volume on its scale; ``normalise`` if there is none.
    Where the GPU's memory does not suffice it goes on in two halves, then on the CPU, each with a warning.
    """
    rest = (volume, model, options, on_scale_of or partial(normalise, volume))
    device = choose_device(options.device)
    if device.type != "cpu":
        for how, otherwise in ((_whole, "in two halves"), (_in_halves, "with the CPU")):
            try:
                return how(device, *rest)
            except torch.cuda.OutOfMemoryError:  # named torch.OutOfMemoryError from torch 2.5 on
                logger.warning("not enough memory on %s; going on %s", device, otherwise)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return _whole(torch.device("cpu"), *rest)


def _whole(
    device: torch.device, volume: Floats, model: Model, options: PredictOptions, on_scale_of: OnScaleOf
) -> tuple[Probabilities, Floats]:
    """Look twice: at the head to find the brain, then at the brain as training showed it.

    The second look has the brain in the middle of the image, since neck and shoulders in view would change what the
    network's norms make of it; and its grey values span those of the brain, since a bright scalp would squeeze them.
    Where the brain took but a part of the scale, it is looked for once more on its own scale first. Where much that is
    no brain was taken for it, in noise as bright as tissue, the second look finds less, and another follows.
    """
    net = model.net.to(device)
    with torch.inference_mode():
        grey = normalise(volume)
        look = look_at(net, grey, head_in(grey), mirror=False, passes=1)
        brain = look.brain_in(volume.shape)
        if is_squeezed(grey[brain]):
            look = look_at(net, *next_view(on_scale_of, look, brain), mirror=False, passes=1)
            brain = look.brain_in(volume.shape)
        for _ in range(MORE_LOOKS):
            grey, seen = next_view(on_scale_of, look, brain)
            del look
            look = look_at(net, grey, seen, options.mirror, PASSES)
            if size_of(look.box_of(box_around(look.near), volume.shape)) > SETTLED * size_of(seen):
                break
            brain = look.brain_in(volume.shape)
        window = box_around(look.near)
        *of_voxels, parcels = heads_near_brain(net, look.features, look.near, window, options.gyri, options.scratch)
    box = look.box_of(window, volume.shape)
    padded = look.origin + [2 * s.start for s in window]  # where the channels begin, perhaps beyond the volume
    inside = [slice(s.start - first, s.stop - first) for s, first in zip(box, padded, strict=True)]
    tissue, right = (channel[(slice(None), *inside)] for channel in of_voxels)
    clean_islands(tissue)
    origin = (box[0].start, box[1].start, box[2].start)
    return Probabilities(origin, tissue, right, parcels[blocks_of(inside)]), grey


def coarse_look(volume: Floats, model: Model, options: PredictOptions) -> Floats:
    """A first look alone: tissue probabilities (19, i, j, k), ``LOOK_MM`` apart, of the head in a normalised volume."""
    with torch.inference_mode():
        try:
            return coarse_look_at(model.net.to(choose_device(options.device)), volume)
        except torch.cuda.OutOfMemoryError:
            return coarse_look_at(model.net.to("cpu"), volume)


def _in_halves(
    device: torch.device, volume: Floats, model: Model, options: PredictOptions, on_scale_of: OnScaleOf
) -> tuple[Probabilities, Floats]:
    """Two halves of the longest axis one after the other, each with ``HALVES_OVERLAP_MM`` of the other in view."""
    axis = int(np.argmax(volume.shape))
    n = volume.shape[axis]
    i, j, k = volume.shape
    whole = background((0, 0, 0), (i, j, k), N_PARCELS if options.gyri else len(lobe_parts()))
    grey = np.empty_like(volume)
    middle = n // (2 * SIDE) * SIDE  # no block lies in both halves
    for first, last in ((0, middle), (middle, n)):
        start = max(0, first - HALVES_OVERLAP_MM)
        seen = _part(volume.shape, axis, start, min(n, last + HALVES_OVERLAP_MM))
        found, grey_seen = _whole(
            device, volume[seen], model, options, partial(_on_scale_of_part, on_scale_of, volume.shape, seen)
        )
        kept = _part(volume.shape, axis, first, last)
        grey[kept] = grey_seen[_part(volume.shape, axis, first - start, last - start)]
        i, j, k = (o + start * (a == axis) for a, o in enumerate(found.origin))
        found = replace(found, origin=(i, j, k))
        both = _common(found.box, kept)
        for target, values in zip(whole.within(both), found.within(both), strict=True):
            target[:] = values
    return whole, grey


def _on_scale_of_part(on_scale_of: OnScaleOf, shape: tuple[int, ...], part: Box, brain: NDArray[np.bool_]) -> Floats:
    """A part of a volume, of which (I, J, K) is the brain within that part alone."""
    in_volume = np.zeros(shape, bool)
    in_volume[part] = brain
    return on_scale_of(in_volume)[part]


def _common(one: Box, other: Box) -> Box:
    """What two boxes of a volume share; without voxels where that is nothing."""
    i, j, k = (
        slice(low := max(a.start, b.start), max(low, min(a.stop, b.stop))) for a, b in zip(one, other, strict=True)
    )
    return i, j, k


def _part(shape: tuple[int, ...], axis: int, first: int, last: int) -> Box:
    """Of a volume, some planes along an axis."""
    i, j, k = (slice(first, last) if a == axis else slice(0, n) for a, n in enumerate(shape))
    return i, j, k


def clean_islands(tissue: NDArray[np.float16]) -> None:
    """In place: make background what is not brain in one solid piece.

    Solid is what survives an erosion by ``BRIDGE_MM``, so that patches of scalp that hang on the brain by a thread go
    too.
    """
    brain = tissue[0] < 0.5
    core = ndimage.binary_erosion(brain, iterations=BRIDGE_MM, border_value=1)
    if not core.any():
        return
    solid = large_pieces(core, least_share=ISLAND_SHARE)
    kept = ndimage.binary_dilation(solid, iterations=BRIDGE_MM + 2, mask=brain)
    island = brain & ~kept
    tissue[:, island] = 0
    tissue[0, island] = 1
