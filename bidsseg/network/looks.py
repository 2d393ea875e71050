"""Looks at a scan: the network's body on a box of it, and where the brain is in what it saw."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import Box, Floats, box_around
from bidsseg.imaging.pieces import large_pieces
from bidsseg.labels import TISSUE
from bidsseg.network.device import autocast
from bidsseg.network.heads import BLOCKS_AT_ONCE
from bidsseg.network.unet import Features, UNet, padded_length

HEAD_THRESHOLD = 0.08
"Normalised grey value above which a voxel may belong to the head."
HEAD_MARGIN_MM = 6
BRAIN_MARGIN_MM = 12
"Width of CSF around the brain: what lies farther off is background."
LOOK_MM = 4
"Between the places where a first look asks what is there."
SQUEEZED = 0.8
"Brightest grey value of the brain below which the first look may have mistaken some of its border."
ALIGNED = 4
"""Boxes begin at multiples of so many voxels: what the network makes of a border depends on how it falls on the blocks
of its levels, and a box that begins elsewhere by a voxel would change labels."""
ISLAND_SHARE = 0.1
"Smaller pieces, against the largest, are no brain. Not all others, because a scan may show the brain in two parts."
MOST_BRAIN_MM3 = 2.2e6
"No head holds more; what is taken for more is a brain of a wrong voxel size, or with noise around it, or noise alone."
SURE_OF_NOISE = 0.5
"""Of the most likely tissue, mean over what was taken for brain: in noise alone it is 0.38 to 0.45, in brains amid
noise of 0.4 of their brightest grey value 0.64 and more."""


LEAST_SURE = 0.75
"""Of the certainty of the surest piece: what is less sure is no part of a brain that lies in several. Noise as bright
as tissue has 0.5 to 0.73 of the brain's beside it, and may be as large; the parts of one brain differ by 0.05."""
AROUND = 5
"Steps of ``LOOK_MM`` over which the certainty around a place is averaged."


OnScaleOf = Callable[[NDArray[np.bool_]], Floats]
"From the brain (I, J, K) to the scan with the brain's grey values at 0-1."


class Look(NamedTuple):
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


def head_in(volume: Floats) -> Box:
    """The box of the head in a normalised volume."""
    return box_around(volume > HEAD_THRESHOLD, HEAD_MARGIN_MM)


def look_at(net: UNet, volume: Floats, box: Box, mirror: bool, passes: int) -> Look:
    """Look at a box of a normalised volume, and at its mirror image if asked to."""
    surrounded, before = padded(volume, box, net.config.multiple)
    device = net.hidden.weight.device
    scan = torch.from_numpy(surrounded).to(device)[None, None]
    with autocast(device):
        features = [net.features(seen, passes) for seen in ((scan, scan.flip(2)) if mirror else (scan,))]
    brain, near = zip(*(find_brain(net, of_view) for of_view in features), strict=True)
    for mirrored in near[1:]:
        near[0][:] |= mirrored[::-1]
    return Look(features, brain[0], near[0], np.array([s.start for s in box]) - before)


def next_view(on_scale_of: OnScaleOf, look: Look, brain: NDArray[np.bool_]) -> tuple[Floats, Box]:
    """What the look after this one sees: grey values that span those of the brain (I, J, K) that it found, and the box
    of what is near it."""
    return on_scale_of(brain), look.box_of(box_around(look.near), brain.shape)


def is_squeezed(inside: Floats) -> bool:
    """Whether something outside the brain, a bright scalp mostly, takes much of the scale of 0-1.

    ``inside`` has the normalised grey values (N,) of the brain.
    """
    return inside.size > 0 and float(np.percentile(inside, 99.5)) < SQUEEZED


def size_of(box: Box) -> int:
    return math.prod(side.stop - side.start for side in box)


def coarse_look_at(net: UNet, volume: Floats) -> Floats:
    """Tissue probabilities (19, i, j, k), ``LOOK_MM`` apart, of the head in a normalised volume."""
    surrounded, _ = padded(volume, head_in(volume), net.config.multiple)
    device = net.hidden.weight.device
    with autocast(device):
        features = net.features(torch.from_numpy(surrounded).to(device)[None, None])
    return _coarse_tissue(net, features)


def padded(volume: Floats, box: Box, multiple: int) -> tuple[Floats, NDArray[np.int64]]:
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
    too small or too unsure to be brain are left out. Noise that fills the image is no brain: labels strewn over all of
    it would help nobody, and cost every later step twice the time of a good scan's.
    """
    tissue = _coarse_tissue(net, features)
    certainty: Floats = tissue.max(0)
    # CSF is no sign of brain: dark air looks like it.
    brain = _sure_pieces(tissue[[0, TISSUE["csf"]]].sum(0) < 0.5, certainty)
    if _is_too_large(brain):
        brain = _sure_pieces(_sure_parts(brain, certainty), certainty)
    if _is_too_large(brain) and certainty[brain].mean() < SURE_OF_NOISE:
        brain[:] = False
    grown = (
        ndimage.binary_dilation(brain, np.ones((3, 3, 3)), iterations=BRAIN_MARGIN_MM // 4) if brain.any() else brain
    )
    return brain, grown.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def _is_too_large(brain: NDArray[np.bool_]) -> bool:
    return bool(np.count_nonzero(brain) * LOOK_MM**3 > MOST_BRAIN_MM3)


def _sure_parts(mask: NDArray[np.bool_], certainty: Floats) -> NDArray[np.bool_]:
    """Of a mask (I, J, K) that is far less sure than its surest part, what is nearly as sure as that: a brain without
    the noise that hangs on it. Other masks as they are, such as a brain with a wrong voxel size."""
    share = ndimage.uniform_filter(mask.astype(np.float32), AROUND, mode="constant")
    around = ndimage.uniform_filter(np.where(mask, certainty, 0), AROUND, mode="constant")[mask] / share[mask]
    least = LEAST_SURE * around.max()
    if certainty[mask].mean() >= least:
        return mask
    sure = mask.copy()
    sure[mask] = around >= least
    return sure


def _sure_pieces(mask: NDArray[np.bool_], certainty: Floats) -> NDArray[np.bool_]:
    """The large pieces of a mask (I, J, K) whose mean certainty comes near that of the surest."""
    mask = large_pieces(mask, least_share=ISLAND_SHARE)
    pieces, n = ndimage.label(mask)
    mean = np.zeros(n + 1)
    mean[1:] = ndimage.mean(certainty, pieces, range(1, n + 1))
    sure: NDArray[np.bool_] = (mean >= LEAST_SURE * mean.max())[pieces] & mask
    return sure


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
