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

from bidsseg.imaging.arrays import Box, Floats, along, resampling_matrix
from bidsseg.labels import TISSUE
from bidsseg.network.lesion_config import LesionNetConfig
from bidsseg.network.unet import SUBVOXELS, space_to_depth

GROUPS = (
    ("lateral-ventricle", "inferior-lateral-ventricle", "third-ventricle", "fourth-ventricle"),
    ("white-matter",),
    ("cortex",),
    ("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala", "accumbens"),
    ("cerebellum-white-matter",),
    ("cerebellum-cortex",),
    ("ventral-dc", "brainstem"),
)
"Tissues told apart, of all but CSF and air: confusions differ between them, within them they do not."
CERTAIN = 0.8
"Probability above which a voxel shows a tissue's grey value rather than a mixture."
USUAL_SPREADS = (-3.0, 2.0)
"White matter within so many spreads of its median is normal-appearing; lesions are brighter."
FIELD_MM = 8
"Grid on which the shading around a voxel is known."
FIELD_STEPS = 3
"How often that is averaged with its neighbours, where little white matter lies near."
PRIOR_SHARE = 0.01
"Weight of no shading at all, where no white matter lies near."
SPREADS_TO_1 = 4.0
"So many spreads are 1 for the network."
RANGE = (-2.0, 4.0)
"In these units: darker and brighter values are alike."
FARTHEST = 1000.0
"In spreads: half floats hold it, where the grey value of an artefact may be too large for them."
EVERY = 2
"Of voxels along each axis: so many are enough for medians and for the shading."
LEAST_VOXELS = 125
"Of these; with less cortex in view its spread is not known."
PRESENT = 0.05
"Probability of all but CSF and air above which a voxel or block is tissue."
NEVER = -30.0
"Logit where there is none."
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
    "(1, I, J, K), float32, sides multiples of ``ALIGNED_MM``: spreads of cortex above the median of cortex."
    white: Tensor
    "(2,): factor and summand that make of these the spreads of white matter above the median of white matter."
    groups: Tensor
    "(groups, I/2, J/2, K/2), float32 0-1: probabilities of ``GROUPS``."


class LesionNet(nn.Module):
    """Two levels: 2 mm for borders, 4 mm for what lies within 30 mm. No norms, since its inputs are normalised.

    Channels come last in memory, which takes half of the time for so few.
    """

    def __init__(self, config: LesionNetConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse = config.fine_width, config.coarse_width
        self.stem = nn.Conv3d(SUBVOXELS + 1 + len(GROUPS), fine, 3, padding=1)
        self.down = nn.Conv3d(fine, coarse, 3, padding=1)
        self.context = nn.ModuleList(nn.Conv3d(coarse, coarse, 3, padding=2, dilation=2) for _ in range(2))
        self.up = nn.Conv3d(coarse, fine, 1)
        self.mix = nn.Conv3d(fine, fine, 3, padding=1)
        self.head = nn.Conv3d(2 * fine, SUBVOXELS + 4, 1)
        nn.init.zeros_(self.head.weight)
        rare = torch.tensor([-4.0] * SUBVOXELS + [0.0] * 4)
        self.head.bias = nn.Parameter(rare)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, relative: Tensor, white: Tensor, groups: Tensor) -> Tensor:
        """(B, 1, I, J, K), (B, 2), (B, groups, I/2, J/2, K/2), as in ``LesionInputs`` -> logits (B, I, J, K).

        They are ``NEVER`` where there is CSF or air alone. White matter's spreads are read as means of blocks, since
        sub-voxels differ by those of cortex alike.
        """
        grey = space_to_depth(relative / SPREADS_TO_1)
        factor, summand = white.T[:, :, None, None, None, None]
        block = (grey.mean(1, keepdim=True) * factor + summand / SPREADS_TO_1).clamp(*RANGE).to(grey.dtype)
        grey = grey.clamp(*RANGE)
        seen = torch.cat((grey, block, groups), 1).contiguous(memory_format=torch.channels_last_3d)
        fine = F.leaky_relu_(self.stem(seen), 0.01)
        coarse = F.leaky_relu_(self.down(sum_of_blocks(fine) / SUBVOXELS), 0.01)
        for layer in self.context:
            coarse = coarse + F.leaky_relu_(layer(coarse), 0.01)
        mixed = F.leaky_relu_(self.mix(fine + F.interpolate(self.up(coarse), scale_factor=2.0)), 0.01)
        answer = self.head(torch.cat((mixed, fine), 1))
        logits, slope, curvature, of_block, of_square = torch.split(answer, [SUBVOXELS, 1, 1, 1, 1], 1)
        offset = (of_block * block + of_square * block.square()).masked_fill(~may_hold_lesion(groups), NEVER)
        return depth_to_space(logits + offset + grey * (slope + curvature * grey))


def may_hold_lesion(groups: Tensor) -> Tensor:
    """Blocks (B, 1, I/2, J/2, K/2) where anything but CSF and air is seen, by their groups."""
    return groups.sum(1, keepdim=True) > PRESENT


def sum_of_blocks(values: Tensor) -> Tensor:
    """(..., I, J, K) -> (..., I/2, J/2, K/2), in the order of memory that they have."""
    values = values[..., ::2, :, :] + values[..., 1::2, :, :]
    values = values[..., ::2, :] + values[..., 1::2, :]
    return values[..., ::2] + values[..., 1::2]


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

    Sides grow at their ends to multiples of ``ALIGNED_MM``.
    """
    pads = [pad for n in reversed(grey.shape) for pad in (0, -n % ALIGNED_MM)]
    relative, white, contrast = _relative(grey, tissue)
    groups = torch.stack([_of_blocks(tissue, names, pads) for names in GROUPS])
    return LesionInputs(_grown(torch.from_numpy(relative), pads)[None], torch.tensor(white), groups), contrast


def _of_blocks(tissue: NDArray[np.float16], names: Sequence[str], pads: Sequence[int]) -> Tensor:
    """(I/2, J/2, K/2) float32: the probability of these tissues together, as the mean of every block's voxels.

    Half floats add up to eight with an error of 0.004 at most; in single ones it takes twice the time.
    """
    together, *others = (torch.from_numpy(tissue[TISSUE[name]]) for name in names)
    for other in others:
        together = together + other
    return sum_of_blocks(_grown(together, pads)).float() / SUBVOXELS


def _grown(values: Tensor, pads: Sequence[int]) -> Tensor:
    """With zeros at the ends of its axes; without a copy where there are none to add."""
    return F.pad(values, pads) if any(pads) else values


def _relative(grey: Floats, tissue: NDArray[np.float16]) -> tuple[Floats, tuple[float, float], Contrast]:
    """Spreads above cortex, after the shading of white matter is taken out; ``white`` of inputs; the scan's contrast.

    Where no cortex is seen, white matter takes its place.
    """
    some = grey[::EVERY, ::EVERY, ::EVERY]
    seen = {name: some[_certain(tissue, name)] for name in ("white-matter", "cortex", "lateral-ventricle")}
    white, white_spread = _median_and_spread(seen["white-matter"])
    if not white_spread > 0:  # no white matter, or white matter without noise: nothing can stand out from it
        return np.zeros_like(grey), (1.0, 0.0), Contrast(np.nan, np.nan)
    low, high = (white + spreads * white_spread for spreads in USUAL_SPREADS)
    normal = _certain(tissue, "white-matter") & (some > low) & (some < high)
    shading = _shading(some, normal, white, 2 * white_spread, grey.shape)
    cortex, spread = _median_and_spread(seen["cortex"])
    contrast = Contrast(*((_median_and_spread(seen[name])[0] - white) / white_spread for name in list(seen)[1:]))
    if not (spread > 0 and seen["cortex"].size >= LEAST_VOXELS):
        cortex, spread = white, white_spread
    relative = np.subtract(grey, shading, out=shading)
    relative -= np.float32(cortex)
    relative /= np.float32(spread)
    np.clip(relative, -FARTHEST, FARTHEST, out=relative)
    return relative, (spread / white_spread, (cortex - white) / white_spread), contrast


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


def _shading(some: Floats, normal: NDArray[np.bool_], median: float, most: float, shape: tuple[int, ...]) -> Floats:
    """By how much the normal-appearing white matter around each voxel (I, J, K) is brighter than the scan's median.

    At most by ``most`` either way, and not at all far from any. ``some`` and ``normal`` are every second voxel.
    """
    pads = [pad for n in reversed(some.shape) for pad in (0, -n % (FIELD_MM // EVERY))]
    weight = torch.from_numpy(normal.astype(np.float32))
    sums = torch.stack(((torch.from_numpy(np.ascontiguousarray(some)) - median) * weight, weight))
    sums = F.avg_pool3d(F.pad(sums, pads), FIELD_MM // EVERY)
    for _ in range(FIELD_STEPS):
        sums = F.avg_pool3d(F.pad(sums[None], [1] * 6, mode="replicate"), 3, 1)[0]
    shading: Floats = (sums[0] / (sums[1] + PRIOR_SHARE)).clamp(-most, most).numpy()
    for axis, n in enumerate(shape):
        centres = (np.arange(n) + 0.5) / FIELD_MM - 0.5
        shading = along(resampling_matrix(centres, shading.shape[axis], 1 / FIELD_MM), shading, axis)
    return shading
