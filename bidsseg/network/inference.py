"""The forward pass: device choice, memory ladder, probabilities near the brain."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bidsseg.files import reserve
from bidsseg.imaging.arrays import Box, Floats, box_around
from bidsseg.imaging.blocks import SIDE, blocks_along, blocks_of
from bidsseg.imaging.grey import normalise
from bidsseg.labels import N_GYRI, N_PARCELS, TISSUE, TISSUES, gyri_to_parts, lobe_parts
from bidsseg.network.device import autocast, choose_device
from bidsseg.network.unet import SUBVOXELS, Features, HeadInputs, UNet, mean_of, padded_length
from bidsseg.network.weights import Model

logger = logging.getLogger(__name__)

HEAD_THRESHOLD = 0.08
"Normalised grey value above which a voxel may belong to the head."
HEAD_MARGIN_MM = 6
BRAIN_MARGIN_MM = 12
"Width of CSF around the brain: what lies farther off is background."
HALVES_OVERLAP_MM = 32
BLOCKS_AT_ONCE = 32_768
PASSES = 2
"How often the network's coarser levels see the scan."
MORE_LOOKS = 4
"After the first, at most."
SETTLED = 0.8
"Share of what was looked at that is found again, beyond which another look would change little."
LOOK_MM = 4
"Between the places where a first look asks what is there."
SQUEEZED = 0.8
"Brightest grey value of the brain below which the first look may have mistaken some of its border."
ALIGNED = 4
"""Boxes begin at multiples of so many voxels: what the network makes of a border depends on how it falls on the blocks
of its levels, and a box that begins elsewhere by a voxel would change labels."""
BRIDGE_MM = 2
"What hangs on the brain by less than twice this is no part of it."
ISLAND_SHARE = 0.1
"Smaller pieces, against the largest, are no brain."
MOST_BRAIN_MM3 = 2.2e6
"No head holds more; what is taken for more is a brain of a wrong voxel size, or with noise around it, or noise alone."
SURE_OF_NOISE = 0.5
"""Of the most likely tissue, mean over what was taken for brain: in noise alone it is 0.38 to 0.45, in brains amid
noise of 0.4 of their brightest grey value 0.64 and more."""


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
    "Average with the answer to the mirror image: somewhat better, twice the network's time."
    scratch: Path | None = None
    "A folder to keep probabilities in files of, where memory is short; None keeps them in memory."


@dataclass(frozen=True)
class Probabilities:
    """What the network says about a box of the 1 mm grid; float16, every probability 0-1."""

    origin: tuple[int, int, int]
    "The box's first voxel."
    tissue: NDArray[np.float16]
    "(19, I, J, K)"
    right: NDArray[np.float16]
    "(1, I, J, K): on the right rather than the left."
    parcels: NDArray[np.float16]
    """(I/2, J/2, K/2, lobe parts), rounded up, or (..., N_PARCELS) with gyri: of the blocks of 2 mm that the network
    answers for, the first of which begins with the box's first voxel; see ``imaging.blocks``."""

    @property
    def box(self) -> Box:
        """On the 1 mm grid."""
        i, j, k = (slice(o, o + n) for o, n in zip(self.origin, self.tissue.shape[1:], strict=True))
        return i, j, k

    def within(self, box: Box) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
        """Views of tissue, right and parcels in a box of the 1 mm grid, which begins with a block of the own box."""
        i, j, k = (slice(s.start - o, s.stop - o) for s, o in zip(box, self.origin, strict=True))
        return self.tissue[:, i, j, k], self.right[:, i, j, k], self.parcels[blocks_of((i, j, k))]


def background(origin: tuple[int, int, int], shape: tuple[int, int, int], n_parcels: int) -> Probabilities:
    """No brain anywhere in a box."""
    tissue, right = (np.zeros((n, *shape), np.float16) for n in (len(TISSUES), 1))
    tissue[0] = 1
    return Probabilities(origin, tissue, right, np.zeros((*blocks_along(shape), n_parcels), np.float16))


def infer(volume: Floats, model: Model, options: PredictOptions) -> tuple[Probabilities, Floats]:
    """Probabilities over the brain's box of a 1 mm RAS volume, and its grey values as the network saw them, 0-1.

    Where the GPU's memory does not suffice it goes on in two halves, then on the CPU, each with a warning.
    """
    device = choose_device(options.device)
    if device.type != "cpu":
        for how, otherwise in ((_whole, "in two halves"), (_in_halves, "with the CPU")):
            try:
                return how(device, volume, model, options)
            except torch.cuda.OutOfMemoryError:  # named torch.OutOfMemoryError from torch 2.5 on
                logger.warning("not enough memory on %s; going on %s", device, otherwise)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return _whole(torch.device("cpu"), volume, model, options)


def _whole(device: torch.device, volume: Floats, model: Model, options: PredictOptions) -> tuple[Probabilities, Floats]:
    """Look twice: at the head to find the brain, then at the brain as training showed it.

    The second look has the brain in the middle of the image, since neck and shoulders in view would change what the
    network's norms make of it; and its grey values span those of the brain, since a bright scalp would squeeze them.
    Where the brain took but a part of the scale, it is looked for once more on its own scale first. Where much that is
    no brain was taken for it, in noise as bright as tissue, the second look finds less, and another follows.
    """
    net = model.net.to(device)
    with torch.inference_mode():
        grey = normalise(volume)
        look = _look(net, grey, box_around(grey > HEAD_THRESHOLD, HEAD_MARGIN_MM), options.mirror, passes=1)
        if _is_squeezed(grey, look):
            look = _look(net, *_next_view(volume, look), options.mirror, passes=1)
        for _ in range(MORE_LOOKS):
            grey, seen = _next_view(volume, look)
            del look
            look = _look(net, grey, seen, options.mirror, PASSES)
            if _size(look.box_of(box_around(look.near), volume.shape)) > SETTLED * _size(seen):
                break
        window = box_around(look.near)
        *of_voxels, parcels = _heads_near_brain(net, look.features, look.near, window, options)
    box = look.box_of(window, volume.shape)
    padded = look.origin + [2 * s.start for s in window]  # where the channels begin, perhaps beyond the volume
    inside = [slice(s.start - first, s.stop - first) for s, first in zip(box, padded, strict=True)]
    tissue, right = (channel[(slice(None), *inside)] for channel in of_voxels)
    clean_islands(tissue)
    origin = (box[0].start, box[1].start, box[2].start)
    return Probabilities(origin, tissue, right, parcels[blocks_of(inside)]), grey


def coarse_look(volume: Floats, model: Model, options: PredictOptions) -> Floats:
    """A first look alone: tissue probabilities (19, i, j, k), ``LOOK_MM`` apart, of the head in a normalised volume."""
    try:
        return _coarse(choose_device(options.device), volume, model)
    except torch.cuda.OutOfMemoryError:
        return _coarse(torch.device("cpu"), volume, model)


def _coarse(device: torch.device, volume: Floats, model: Model) -> Floats:
    net = model.net.to(device)
    padded, _ = _pad(volume, box_around(volume > HEAD_THRESHOLD, HEAD_MARGIN_MM), net.config.multiple)
    with torch.inference_mode():
        with autocast(device):
            features = net.features(torch.from_numpy(padded).to(device)[None, None])
        return _coarse_tissue(net, features)


def _next_view(volume: Floats, look: _Look) -> tuple[Floats, Box]:
    """What the look after this one sees: grey values that span those of the brain, and the box of what is near it."""
    return normalise(volume, look.brain_in(volume.shape)), look.box_of(box_around(look.near), volume.shape)


def _is_squeezed(grey: Floats, look: _Look) -> bool:
    """Whether something outside the brain, a bright scalp mostly, takes much of the scale of 0-1."""
    inside = grey[look.brain_in(grey.shape)]
    return inside.size > 0 and float(np.percentile(inside, 99.5)) < SQUEEZED


def _size(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


class _Look(NamedTuple):
    """What the network's body makes of a box."""

    features: list[Features]
    "Features of the box, and of its mirror image if asked for."
    brain: NDArray[np.bool_]
    "(I/4, J/4, K/4), rounded up: ``find_brain``."
    near: NDArray[np.bool_]
    "(I/2, J/2, K/2): blocks near it."
    origin: NDArray[np.int64]
    "The padded box's first voxel in the volume, negative where the padding reaches beyond."

    def box_of(self, blocks: Box, shape: tuple[int, ...]) -> Box:
        """A box of blocks in voxels of the volume, without what lies in the padding."""
        i, j, k = (
            slice(max(0, first + 2 * s.start), min(n, first + 2 * s.stop))
            for first, s, n in zip(self.origin.tolist(), blocks, shape, strict=True)
        )
        return i, j, k

    def brain_in(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """The brain as a mask (I, J, K) of the volume, in steps of 4 mm."""
        mask = np.zeros(shape, bool)
        fine = self.brain.repeat(4, 0).repeat(4, 1).repeat(4, 2)
        pairs = [
            (slice(max(0, first), max(0, min(size, first + n))), slice(max(0, -first), max(0, size - first)))
            for first, n, size in zip(self.origin.tolist(), fine.shape, shape, strict=True)
        ]
        mask[tuple(there for there, _ in pairs)] = fine[tuple(here for _, here in pairs)]
        return mask


def _look(net: UNet, volume: Floats, box: Box, mirror: bool, passes: int) -> _Look:
    padded, before = _pad(volume, box, net.config.multiple)
    device = net.hidden.weight.device
    scan = torch.from_numpy(padded).to(device)[None, None]
    with autocast(device):
        features = [net.features(seen, passes) for seen in ((scan, scan.flip(2)) if mirror else (scan,))]
    brain, near = zip(*(find_brain(net, of_view) for of_view in features), strict=True)
    for mirrored in near[1:]:
        near[0][:] |= mirrored[::-1]
    return _Look(features, brain[0], near[0], np.array([s.start for s in box]) - before)


def _in_halves(
    device: torch.device, volume: Floats, model: Model, options: PredictOptions
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
        found, grey_seen = _whole(
            device, volume[_part(volume.shape, axis, start, min(n, last + HALVES_OVERLAP_MM))], model, options
        )
        kept = _part(volume.shape, axis, first, last)
        grey[kept] = grey_seen[_part(volume.shape, axis, first - start, last - start)]
        i, j, k = (o + start * (a == axis) for a, o in enumerate(found.origin))
        found = replace(found, origin=(i, j, k))
        both = _common(found.box, kept)
        for target, values in zip(whole.within(both), found.within(both), strict=True):
            target[:] = values
    return whole, grey


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


def _pad(volume: Floats, box: Box, multiple: int) -> tuple[Floats, NDArray[np.int64]]:
    """A box of the volume padded with zeros to sides that the network divides, as evenly as alignment lets.

    Returns it with the number of zeros before it along each axis.
    """
    pads = []
    for side in box:
        n = side.stop - side.start
        shift = side.start % ALIGNED
        total = padded_length(n + shift, multiple) - n
        even = max(0, total // 2 - shift) // ALIGNED * ALIGNED + shift
        pads.append((even, total - even))
    return np.pad(volume[box], pads), np.array([before for before, _ in pads])


def find_brain(net: UNet, features: Features) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where the brain is, from asking every eighth block: (I/4, J/4, K/4), and blocks (I/2, J/2, K/2) near it.

    Near is within about ``BRAIN_MARGIN_MM``. The rest is background, which saves most of the heads' time, and pieces
    too small to be brain are left out. Noise that fills the image is no brain: labels strewn over all of it would help
    nobody, and cost every later step twice the time of a good scan's.
    """
    tissue = _coarse_tissue(net, features)
    # CSF is no sign of brain: dark air looks like it.
    brain = _large_pieces(tissue[[0, TISSUE["csf"]]].sum(0) < 0.5)
    if np.count_nonzero(brain) * LOOK_MM**3 > MOST_BRAIN_MM3 and tissue.max(0)[brain].mean() < SURE_OF_NOISE:
        brain[:] = False
    grown = (
        ndimage.binary_dilation(brain, np.ones((3, 3, 3)), iterations=BRAIN_MARGIN_MM // 4) if brain.any() else brain
    )
    return brain, grown.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def _coarse_tissue(net: UNet, features: Features) -> Floats:
    """Tissue probabilities (19, i, j, k) of every eighth block, ``LOOK_MM`` apart."""
    shape = features.fine.shape[1:]
    blocks = torch.arange(features.n_blocks, device=features.fine.device).reshape(shape)[::2, ::2, ::2]
    found = [
        net.tissue_logits(net.embed(features, some)).softmax(1).mean(0).cpu()
        for some in torch.split(blocks.flatten(), BLOCKS_AT_ONCE)
    ]
    tissue: Floats = torch.cat(found, 1).reshape(-1, *blocks.shape).detach().numpy()
    return tissue


def _large_pieces(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What remains of a mask without the pieces smaller than ``ISLAND_SHARE`` of the largest.

    Not the largest alone, because a scan may show the brain in two parts.
    """
    components, _ = ndimage.label(mask)
    sizes = np.bincount(components.reshape(-1))
    sizes[0] = 0
    large: NDArray[np.bool_] = (sizes >= max(1, ISLAND_SHARE * sizes.max()))[components] & mask
    return large


def _heads_near_brain(
    net: UNet,
    features: Sequence[Features],
    near: NDArray[np.bool_],
    window: tuple[slice, ...],
    options: PredictOptions,
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
    tissue, right = (
        torch.from_numpy(_zeros((size, voxels.numel()), options.scratch)) for size in (net.config.n_tissues, 1)
    )
    tissue[0] = 1
    n_parcels = net.config.n_parcels if options.gyri else len(lobe_parts())
    parcels = torch.zeros((inside.numel(), n_parcels), dtype=torch.float16)
    numbers = torch.nonzero(inside.flatten())[:, 0]
    for some in torch.split(torch.arange(len(first)), BLOCKS_AT_ONCE) if len(first) else ():
        asked = (there[some].to(features[0].fine.device) for there in blocks)
        views = [net.embed(seen, these) for seen, these in zip(features, asked, strict=True)]
        *of_subvoxels, of_blocks = _heads(net, views, options.gyri)
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


def clean_islands(tissue: NDArray[np.float16]) -> None:
    """In place: make background what is not brain in one solid piece.

    Solid is what survives an erosion by ``BRIDGE_MM``, so that patches of scalp that hang on the brain by a thread go
    too.
    """
    brain = tissue[0] < 0.5
    core = ndimage.binary_erosion(brain, iterations=BRIDGE_MM, border_value=1)
    if not core.any():
        return
    solid = _large_pieces(core)
    kept = ndimage.binary_dilation(solid, iterations=BRIDGE_MM + 2, mask=brain)
    island = brain & ~kept
    tissue[:, island] = 0
    tissue[0, island] = 1
