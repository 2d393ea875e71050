"""Fuses the contrasts of one session: averages their probabilities and labels the grid of each contrast.

The contrasts are registered rigidly (``imaging.registration``); nothing is resampled but probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import Grid
from bidsseg.imaging.image import Image
from bidsseg.imaging.registration import rigid_transform
from bidsseg.network.inference import Probabilities
from bidsseg.segmentation.pipeline import Answer

VOXELS_AT_ONCE = 16_384
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """One scan of a session, and what the network says of it; see ``contrast_of``."""

    image: Image
    "On the 1 mm grid."
    grid: Grid
    probabilities: Probabilities

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Where the brain is, (I, J, K) on the 1 mm grid."""
        found = self.probabilities
        mask = np.zeros(self.grid.shape, bool)
        window = tuple(slice(o, o + n) for o, n in zip(found.origin, found.tissue.shape[1:], strict=True))
        mask[window] = found.tissue[0] < 0.5
        return mask


def contrast_of(prepared: Image, answered: Answer) -> Contrast:
    """A prepared scan, on any grid, with what the network said of it."""
    on_grid = replace(prepared, data=answered.conformed, affine=answered.grid.affine)
    return Contrast(on_grid, answered.grid, answered.probabilities)


def register(fixed: Contrast, moving: Contrast, threads: int) -> Matrix:
    """The rigid transform, 4x4, from RAS mm of one contrast to RAS mm of another."""
    return rigid_transform(fixed.image, moving.image, fixed.brain, max(1, threads))


def fuse(own: Contrast, others: Sequence[tuple[Contrast, Matrix]], threads: int = 0) -> Probabilities:
    """Average a contrast's probabilities with those of others, on its own 1 mm grid.

    Each of the others comes with the transform from RAS mm of ``own`` to its RAS mm. Where another contrast does not
    reach, the rest count alone; where it reaches beyond the box of its brain, it says background. 0 threads take all.
    """
    if threads:
        torch.set_num_threads(threads)
    found = own.probabilities
    indices = []
    uncertain = found.tissue[0] < 1
    for other, to_other in others:
        matrix = np.linalg.inv(other.grid.affine) @ to_other @ own.grid.affine
        indices.append(_indices(matrix, found))
        uncertain |= _uncertain_at(other.probabilities, indices[-1])
    voxels = np.flatnonzero(uncertain)
    samples = [
        _sample(other, [axis.reshape(-1)[voxels] for axis in there])
        for (other, _), there in zip(others, indices, strict=True)
    ]
    tissue, right, parcels = fields = [field.copy() for field in (found.tissue, found.right, found.parcels)]
    _average([torch.from_numpy(field).flatten(1) for field in fields], samples, torch.from_numpy(voxels))
    return Probabilities(found.origin, tissue, right, parcels)


def _average(fields: Sequence[Tensor], samples: Sequence[_Sample], voxels: Tensor) -> None:
    """Average fields (C, N) in place, at some of their voxels (M,), with samples of M points.

    A few voxels at a time, so that a processor's cache holds all of their channels.
    """
    sizes = [len(field) for field in fields]
    for first in range(0, len(voxels), VOXELS_AT_ONCE):
        some = slice(first, first + VOXELS_AT_ONCE)
        here = voxels[some]
        total = torch.cat([field.index_select(1, here) for field in fields]).float()
        for sample in samples:
            total += sample.of(some).T
        total /= 1 + sum(sample.reached[some] for sample in samples)
        for field, mean in zip(fields, total.half().split(sizes), strict=True):
            field.index_copy_(1, here, mean)


def _indices(matrix: Matrix, found: Probabilities) -> list[Floats]:
    """Indices on another 1 mm grid, for each of its axes (I, J, K), of the voxels of a box."""
    i, j, k = np.ix_(*(np.arange(n) + o for o, n in zip(found.origin, found.tissue.shape[1:], strict=True)))
    return [(row[0] * i + row[1] * j + row[2] * k + row[3]).astype(np.float32) for row in matrix[:3]]


def _uncertain_at(found: Probabilities, indices: Sequence[Floats]) -> NDArray[np.bool_]:
    """Where sampling a contrast at these indices of its 1 mm grid meets anything but certain background."""
    around = np.pad(ndimage.binary_dilation(np.pad(found.tissue[0] < 1, 1), np.ones((3, 3, 3))), 1)
    nearest = [
        np.clip(np.rint(axis).astype(np.int32) - o + 2, 0, n - 1)
        for axis, o, n in zip(indices, found.origin, around.shape, strict=True)
    ]
    uncertain: NDArray[np.bool_] = around[tuple(nearest)]
    return uncertain


@dataclass(frozen=True)
class _Sample:
    """How to interpolate a contrast's probabilities at M points, trilinear."""

    table: Tensor
    "(N + 1, C): all channels at the N voxels that say more than certain background, after those of all others."
    rows: Tensor
    "(M, 8), of ``table``, for the corners around each point."
    weights: Tensor
    "(M, 8), all 0 where the contrast does not reach."
    reached: Tensor
    "(M,) 1 where the contrast's field of view reaches, 0 elsewhere."

    def of(self, some: slice) -> Tensor:
        """(m, C) at some of the points, 0 where it does not reach."""
        weights = self.weights[some]
        return F.embedding_bag(self.rows[some], self.table, per_sample_weights=weights, mode="sum").float()


def _table(found: Probabilities, answered: Tensor) -> Tensor:
    """All channels of some voxels, (N + 1, C), voxel by voxel; the first row is certain background."""
    fields = [torch.from_numpy(field).flatten(1) for field in (found.tissue, found.right, found.parcels)]
    table = torch.empty((len(answered) + 1, sum(map(len, fields))), dtype=torch.float16)
    table[0] = 0
    table[0, 0] = 1
    for first in range(0, len(answered), VOXELS_AT_ONCE):
        here = answered[first : first + VOXELS_AT_ONCE]
        table[first + 1 : first + 1 + len(here)] = torch.cat([field.index_select(1, here) for field in fields]).T
    return table


def _sample(contrast: Contrast, indices: Sequence[Floats]) -> _Sample:
    """Interpolation at indices (M,) of the contrast's 1 mm grid, given for each axis."""
    found = contrast.probabilities
    reached = np.ones(len(indices[0]), bool)
    for axis, n in zip(indices, contrast.grid.shape, strict=True):
        reached &= (axis >= -0.5) & (axis <= n - 0.5)
    answered = np.flatnonzero((found.tissue[0] < 1) | (found.right[0] > 0))
    row_of = np.zeros(found.tissue[0].size, np.int32)
    row_of[answered] = np.arange(1, len(answered) + 1)
    padded = np.pad(row_of.reshape(found.tissue.shape[1:]), 1)
    inside = [
        np.clip(axis - o + 1, 0, n - 1.001) for axis, o, n in zip(indices, found.origin, padded.shape, strict=True)
    ]
    low = [axis.astype(np.int32) for axis in inside]
    shares = [axis - below for axis, below in zip(inside, low, strict=True)]
    rows, weights = np.empty((len(reached), 8), np.int32), np.empty((len(reached), 8), np.float16)
    for corner, steps in enumerate(product((0, 1), repeat=3)):
        rows[:, corner] = padded[tuple(below + step for below, step in zip(low, steps, strict=True))]
        i, j, k = (share if step else 1 - share for share, step in zip(shares, steps, strict=True))
        weights[:, corner] = i * j * k * reached
    table = _table(found, torch.from_numpy(answered))
    return _Sample(table, torch.from_numpy(rows), torch.from_numpy(weights), torch.from_numpy(reached))
