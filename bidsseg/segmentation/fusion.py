"""Several contrasts of one session: one answer from the averaged probabilities, and how much single answers agree.

Scans of a session are registered rigidly (``imaging.registration``); nothing is resampled but probabilities and labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.imaging.arrays import as_float32
from bidsseg.imaging.grid import Grid, conform
from bidsseg.imaging.image import Image
from bidsseg.imaging.registration import rigid_transform
from bidsseg.network.inference import PredictOptions, Probabilities
from bidsseg.network.weights import Model
from bidsseg.segmentation.pipeline import answer

CHANNELS_AT_ONCE = 8


def fuse(
    image: Image, found: Probabilities, grid: Grid, others: Sequence[Image], model: Model, options: PredictOptions
) -> Probabilities:
    """Average the probabilities of a scan with those of other contrasts of the same head, on the scan's own 1 mm grid.

    Where another scan does not reach, the rest count alone.
    """
    means = [as_float32(part) for part in _parts(found)]
    count = np.ones(found.tissue.shape[1:], np.float32)
    fixed, mask = _at_1mm(image, found, grid)
    for other in others:
        of_other = answer(other, model, options)
        to_other = rigid_transform(fixed, other, mask, max(1, options.threads))
        voxels = np.linalg.inv(of_other.grid.affine) @ to_other @ grid.affine
        places = _places(voxels, found)
        reached = _within(places, of_other.grid.shape)
        count += reached
        answered = of_other.probabilities
        for mean, part in zip(means, _parts(answered), strict=True):
            outside = 1.0 if part is answered.tissue else 0.0  # beyond the box of its brain a scan says background
            _add(mean, part, answered.origin, places, reached, outside)
    tissue, right, parcels = ((mean / count).astype(np.float16) for mean in means)
    return Probabilities(found.origin, tissue, right, parcels)


def _parts(found: Probabilities) -> tuple[NDArray[np.float16], ...]:
    return found.tissue, found.right, found.parcels


def _at_1mm(image: Image, found: Probabilities, grid: Grid) -> tuple[Image, NDArray[np.bool_]]:
    """The scan on its 1 mm grid, and where its brain is."""
    mask = np.zeros(grid.shape, bool)
    window = tuple(slice(o, o + n) for o, n in zip(found.origin, found.tissue.shape[1:], strict=True))
    mask[window] = found.tissue[0] < 0.5
    return replace(image, data=conform(image)[0], affine=grid.affine), mask


def _places(voxels: NDArray[np.float64], found: Probabilities) -> Tensor:
    """Indices (I, J, K, 3) on the other 1 mm grid of the voxels of the box."""
    axes = [torch.arange(n, dtype=torch.float32) + o for o, n in zip(found.origin, found.tissue.shape[1:], strict=True)]
    own = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    matrix = torch.from_numpy(voxels.astype(np.float32))
    return own @ matrix[:3, :3].T + matrix[:3, 3]


def _within(places: Tensor, shape: Sequence[int]) -> NDArray[np.float32]:
    """1 where a place is within a grid of this shape, 0 elsewhere."""
    last = torch.tensor([n - 0.5 for n in shape])
    inside: NDArray[np.float32] = ((places >= -0.5) & (places <= last)).all(-1).float().numpy()
    return inside


def _add(
    mean: NDArray[np.float32],
    part: NDArray[np.float16],
    origin: tuple[int, int, int],
    places: Tensor,
    reached: NDArray[np.float32],
    outside: float,
) -> None:
    """Add the channels (C, i, j, k) of another scan's box, trilinear, where it reaches.

    Beyond its box the first channel is ``outside``, the others 0.
    """
    size = torch.tensor(part.shape[1:], dtype=torch.float32)
    unit = ((places - torch.tensor(origin, dtype=torch.float32)) * 2 + 1) / size - 1
    where = unit.flip(-1)[None]  # grid_sample wants the last axis first
    for first in range(0, len(part), CHANNELS_AT_ONCE):
        chunk = torch.from_numpy(as_float32(part[first : first + CHANNELS_AT_ONCE]))[None]
        if first == 0:
            chunk[:, 0] -= outside
        sampled = F.grid_sample(chunk, where, mode="bilinear", padding_mode="zeros", align_corners=False)[0].numpy()
        if first == 0:
            sampled[0] += outside
        mean[first : first + CHANNELS_AT_ONCE] += sampled * reached
