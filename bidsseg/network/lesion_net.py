"""A small network that finds lesions in a FLAIR, from grey values and the tissues that the U-Net has found.

It stands beside the U-Net rather than being a class of its tissue head: the regions stay what they are to the last
voxel, the U-Net can be trained anew without it, and it can be trained in minutes, since what it reads can be kept. It
reads no features of the U-Net, but what these mean: by how many spreads a voxel is brighter than cortex, and than
white matter, and probabilities of groups of tissues. So no scanner's scale and no coil's shading reaches it, and where
a lesion may be is known from the start. Raters agree best on the distance from cortex; that from white matter tells
contrasts apart.

Like the U-Net it works at 2 mm and answers at 1 mm, and a sub-voxel's logit is quadratic in its own grey value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bidsseg.imaging.arrays import Box, Floats
from bidsseg.labels import TISSUE
from bidsseg.network.lesion_config import LesionNetConfig
from bidsseg.network.unet import SUBVOXELS, space_to_depth

GROUPS = (
    ("csf",),
    ("lateral-ventricle", "inferior-lateral-ventricle", "third-ventricle", "fourth-ventricle"),
    ("white-matter",),
    ("cortex",),
    ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "accumbens"),
    ("cerebellum-white-matter",),
    ("cerebellum-cortex",),
    ("ventral-dc", "brainstem"),
)
"Tissues told apart: confusions differ between them, within them they do not."
CERTAIN = 0.8
"Probability above which a voxel shows a tissue's grey value rather than a mixture."
USUAL_SPREADS = (-3.0, 2.0)
"White matter within so many spreads of its median is normal-appearing; lesions are brighter."
FIELD_MM = 8
"Grid on which the level of normal-appearing white matter around a voxel is known."
FIELD_STEPS = 3
"How often that level is averaged with its neighbours, where little white matter lies near."
PRIOR_SHARE = 0.01
"Weight of the scan's own median in the level around a voxel, where no white matter lies near."
SCALES = 2
"Cortex and white matter."
SPREADS_TO_1 = 4.0
"So many spreads are 1 for the network."
RANGE = (-2.0, 4.0)
"In these units: darker and brighter values are alike."
EVERY = 2
"Of voxels along each axis: so many are enough for medians and for the shading."
LEAST_VOXELS = 125
"Of these; with less cortex in view its spread is not known."
PRESENT = 0.05
"Probability of all but CSF and air above which a voxel is tissue, for the box that the network sees."
MARGIN_MM, ALIGNED_MM = 4, 4
"Of what lies around, in that box; it begins and ends where blocks of the coarser level do."


@dataclass(frozen=True)
class Contrast:
    """Where other tissues lie on the scale whose 0 is the white matter's median, and whose 1 is its robust spread."""

    cortex: float
    fluid: float
    "Ventricles; not a number where none are seen."


@dataclass(frozen=True)
class LesionInputs:
    """What the network reads."""

    relative: Tensor
    """(2, I, J, K), float32, even sides: spreads of cortex above the median of cortex, and spreads of white matter
    above the median of white matter."""
    groups: Tensor
    "(groups, I/2, J/2, K/2), float32 0-1: probabilities of ``GROUPS``."

    @property
    def inside(self) -> Tensor:
        """Blocks (I/2, J/2, K/2) of the brain."""
        return self.groups.sum(0) > 0.5


class LesionNet(nn.Module):
    """Two levels: 2 mm for borders, 4 mm for what lies within 30 mm. No norms, since its inputs are normalised."""

    def __init__(self, config: LesionNetConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.fine_width, config.coarse_width
        self.stem = nn.Conv3d(SCALES * SUBVOXELS + len(GROUPS), fine, 3, padding=1)
        self.down = nn.Conv3d(fine, coarse, 3, padding=1)
        self.context = nn.ModuleList(nn.Conv3d(coarse, coarse, 3, padding=2, dilation=2) for _ in range(2))
        self.up = nn.Conv3d(coarse, fine, 1)
        self.mix = nn.Conv3d(fine, fine, 3, padding=1)
        self.head = nn.Conv3d(2 * fine, SUBVOXELS + 2 * SCALES, 1)
        nn.init.zeros_(self.head.weight)
        rare = torch.tensor([-4.0] * SUBVOXELS + [0.0] * 2 * SCALES)
        self.head.bias = nn.Parameter(rare)

    def forward(self, relative: Tensor, groups: Tensor) -> Tensor:
        """(B, 2, I, J, K) and (B, groups, I/2, J/2, K/2), as in ``LesionInputs`` -> logits (B, I, J, K)."""
        grey = [space_to_depth(scale) for scale in torch.split((relative / SPREADS_TO_1).clamp(*RANGE), 1, 1)]
        fine = F.leaky_relu(self.stem(torch.cat((*grey, groups), 1)), 0.01)
        coarse = F.leaky_relu(self.down(F.avg_pool3d(fine, 2, ceil_mode=True)), 0.01)
        for layer in self.context:
            coarse = coarse + F.leaky_relu(layer(coarse), 0.01)
        above = F.interpolate(self.up(coarse), size=fine.shape[2:], mode="nearest")
        mixed = F.leaky_relu(self.mix(fine + above), 0.01)
        answer = self.head(torch.cat((mixed, fine), 1))
        logits, *factors = torch.split(answer, [SUBVOXELS] + [1] * 2 * SCALES, 1)
        for values, slope, curvature in zip(grey, factors[::2], factors[1::2], strict=True):
            logits = logits + slope * values + curvature * values.square()
        return depth_to_space(logits)


def each_voxel(blocks: Tensor) -> Tensor:
    """(..., I/2, J/2, K/2) -> (..., I, J, K): what a block has, for each of its sub-voxels."""
    for axis in (-3, -2, -1):
        blocks = blocks.repeat_interleave(2, axis)
    return blocks


def depth_to_space(blocks: Tensor) -> Tensor:
    """(B, 8, I/2, J/2, K/2) -> (B, I, J, K): the inverse of ``space_to_depth``."""
    batch, _, i, j, k = blocks.shape
    return blocks.reshape(batch, 2, 2, 2, i, j, k).permute(0, 4, 1, 5, 2, 6, 3).reshape(batch, 2 * i, 2 * j, 2 * k)


def tissue_box(tissue: NDArray[np.float16]) -> Box:
    """The box (I, J, K) of all that is neither CSF nor air, and ``MARGIN_MM`` around it."""
    seen = tissue[:, ::EVERY, ::EVERY, ::EVERY]
    present = seen[TISSUE["background"]] + seen[TISSUE["csf"]] < 1 - PRESENT
    sides = []
    for axis, n in enumerate(tissue.shape[1:]):
        planes = np.flatnonzero(present.any(tuple(other for other in range(3) if other != axis)))
        first, last = (EVERY * int(planes[end]) if len(planes) else 0 for end in (0, -1))
        start = max(0, first - MARGIN_MM) // ALIGNED_MM * ALIGNED_MM
        stop = -(-(last + EVERY + MARGIN_MM) // ALIGNED_MM) * ALIGNED_MM
        sides.append(slice(start, min(n, stop)))
    i, j, k = sides
    return i, j, k


def lesion_inputs(grey: Floats, tissue: NDArray[np.float16]) -> tuple[LesionInputs, Contrast]:
    """Grey values (I, J, K) of a box of the 1 mm grid, on any scale, and tissue probabilities (19, I, J, K).

    Odd sides grow by one voxel at their end.
    """
    pads = [pad for n in reversed(grey.shape) for pad in (0, n % 2)]
    relative, contrast = _relative(grey, tissue)
    groups = torch.stack([_of_blocks(tissue, names, pads) for names in GROUPS])
    return LesionInputs(F.pad(torch.from_numpy(relative), pads), groups), contrast


def _of_blocks(tissue: NDArray[np.float16], names: Sequence[str], pads: Sequence[int]) -> Tensor:
    """(I/2, J/2, K/2) float32: the probability of these tissues together, as the mean of every block's voxels.

    Half floats add up to eight with an error of 0.004 at most; in single ones it takes twice the time.
    """
    together, *others = (torch.from_numpy(tissue[TISSUE[name]]) for name in names)
    for other in others:
        together = together + other
    if any(pads):
        together = F.pad(together, pads)
    for axis in range(3):
        shape = together.shape
        even, odd = together.reshape(*shape[:axis], -1, 2, *shape[axis + 1 :]).unbind(axis + 1)
        together = even + odd
    return together.float() / SUBVOXELS


def _relative(grey: Floats, tissue: NDArray[np.float16]) -> tuple[Floats, Contrast]:
    """Spreads above cortex and above white matter, after the shading of white matter is taken out; scan's contrast.

    Where no cortex is seen, white matter takes its place.
    """
    some = grey[::EVERY, ::EVERY, ::EVERY]
    seen = {name: some[_certain(tissue, name)] for name in ("white-matter", "cortex", "lateral-ventricle")}
    white, white_spread = _median_and_spread(seen["white-matter"])
    if not white_spread > 0:  # no white matter, or white matter without noise: nothing can stand out from it
        return np.zeros((SCALES, *grey.shape), np.float32), Contrast(np.nan, np.nan)
    low, high = (white + spreads * white_spread for spreads in USUAL_SPREADS)
    normal = _certain(tissue, "white-matter") & (some > low) & (some < high)
    shading = _level_around(some, normal, white, grey.shape)
    shading = np.clip(shading - white, -2 * white_spread, 2 * white_spread)
    cortex, spread = _median_and_spread(seen["cortex"])
    contrast = Contrast(*((_median_and_spread(seen[name])[0] - white) / white_spread for name in list(seen)[1:]))
    if not (spread > 0 and seen["cortex"].size >= LEAST_VOXELS):
        cortex, spread = white, white_spread
    even = np.subtract(grey, shading, out=shading)
    relative = np.empty((SCALES, *grey.shape), np.float32)
    for scale, (middle, unit) in zip(relative, ((cortex, spread), (white, white_spread)), strict=True):
        np.subtract(even, np.float32(middle), out=scale)
        scale /= np.float32(unit)
    return relative, contrast


def _certain(tissue: NDArray[np.float16], name: str) -> NDArray[np.bool_]:
    """Which of the voxels that medians are taken of show this tissue."""
    certain: NDArray[np.bool_] = tissue[TISSUE[name], ::EVERY, ::EVERY, ::EVERY].astype(np.float32) > CERTAIN
    return certain


def _median_and_spread(values: Floats) -> tuple[float, float]:
    """The median, and the standard deviation that a normal distribution of this median absolute deviation has."""
    if not values.size:
        return np.nan, np.nan
    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(values - median)))


def _level_around(some: Floats, normal: NDArray[np.bool_], median: float, shape: tuple[int, ...]) -> Floats:
    """The mean of the normal-appearing white matter around each voxel; far from any, the scan's median.

    ``some`` and ``normal`` are every second voxel of a grid of this shape (I, J, K).
    """
    pads = [pad for n in reversed(some.shape) for pad in (0, -n % (FIELD_MM // EVERY))]
    weight = torch.from_numpy(normal.astype(np.float32))
    sums = torch.stack((torch.from_numpy(np.ascontiguousarray(some)) * weight, weight))
    sums = F.avg_pool3d(F.pad(sums, pads), FIELD_MM // EVERY)
    for _ in range(FIELD_STEPS):
        sums = F.avg_pool3d(F.pad(sums[None], [1] * 6, mode="replicate"), 3, 1)[0]
    level = (sums[:1] + PRIOR_SHARE * median) / (sums[1:] + PRIOR_SHARE)
    fine = F.interpolate(level[None], scale_factor=FIELD_MM, mode="trilinear", align_corners=False)[0, 0]
    i, j, k = shape
    found: Floats = fine[:i, :j, :k].numpy()
    return found
