"""Fuses the contrasts of one session: averages their probabilities and labels the grid of each contrast.

The contrasts are registered rigidly (``imaging.registration``); nothing is resampled but probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

VOXELS_AT_ONCE = 16_384
Matrix = NDArray[np.float64]
TableIn = Callable[[tuple[int, int], type[np.float16]], NDArray[np.float16]]


@dataclass(frozen=True)
class Answered:
    """Probabilities voxel by voxel, without those voxels of their box that are certain background in every respect."""

    origin: tuple[int, int, int]
    "Of the box, on the 1 mm grid."
    shape: tuple[int, int, int]
    "Of the box."
    sizes: tuple[int, int, int]
    "Channels of tissue, right side and parcels."
    voxels: NDArray[np.int32]
    "(N,), flat in the box."
    table: NDArray[np.float16]
    "(N + 1, C): all channels of each voxel, after a row of certain background."

    @property
    def background(self) -> NDArray[np.float16]:
        """(I, J, K): its probability."""
        return np.asarray(self.table[self.rows, 0])

    @property
    def rows(self) -> NDArray[np.int32]:
        """(I, J, K): those of the table."""
        rows = np.zeros(self.shape, np.int32)
        rows.reshape(-1)[self.voxels] = np.arange(1, len(self.table))
        return rows


def answered_in(found: Probabilities, table_in: TableIn = np.empty) -> Answered:
    """The same probabilities voxel by voxel; ``table_in`` makes the array that takes them, of a shape and type."""
    i, j, k = found.tissue.shape[1:]
    tissue, right, parcels = fields = _flat(found)
    voxels = np.flatnonzero((found.tissue[0] < 1) | (found.right[0] > 0) | found.parcels.any(0)).astype(np.int32)
    table = table_in((len(voxels) + 1, sum(map(len, fields))), np.float16)
    table[0] = 0
    table[0, 0] = 1
    rows = torch.from_numpy(table)[1:]
    parts = (torch.split(whole, VOXELS_AT_ONCE) for whole in (rows, torch.from_numpy(voxels)))
    for some, here in zip(*parts, strict=True):
        some[:] = torch.cat([field.index_select(1, here) for field in fields]).T
    return Answered(found.origin, (i, j, k), (len(tissue), len(right), len(parcels)), voxels, table)


def _flat(found: Probabilities) -> list[Tensor]:
    """Its fields as (C, N)."""
    return [torch.from_numpy(field).flatten(1) for field in (found.tissue, found.right, found.parcels)]


@dataclass(frozen=True)
class Contrast:
    """One scan of a session, and what the network says of it; see ``contrast_of``."""

    image: Image
    "On the 1 mm grid."
    grid: Grid
    answered: Answered

    @property
    def brain(self) -> NDArray[np.bool_]:
        """Where the brain is, (I, J, K) on the 1 mm grid."""
        found = self.answered
        mask = np.zeros(self.grid.shape, bool)
        mask[tuple(slice(o, o + n) for o, n in zip(found.origin, found.shape, strict=True))] = found.background < 0.5
        return mask


def contrast_of(prepared: Image, conformed: Floats, answered: Answered) -> Contrast:
    """A prepared scan, on any grid, with what the network said of it on the 1 mm grid."""
    grid = prepared.grid
    return Contrast(replace(prepared, data=conformed, affine=grid.affine), grid, answered)


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
    found, rows = own.answered, own.answered.rows
    indices, uncertain = [], found.background < 1
    for other, to_other in others:
        matrix = np.linalg.inv(other.grid.affine) @ to_other @ own.grid.affine
        indices.append(_indices(matrix, found))
        uncertain |= _uncertain_at(other.answered, indices[-1])
    voxels = np.flatnonzero(uncertain | (rows > 0))
    counted = uncertain.reshape(-1)[voxels]
    samples = [
        _sample(other, [axis.reshape(-1)[voxels] for axis in there], counted)
        for (other, _), there in zip(others, indices, strict=True)
    ]
    tissue, right, parcels = (np.zeros((size, *found.shape), np.float16) for size in found.sizes)
    tissue[0] = 1
    fused = Probabilities(found.origin, tissue, right, parcels)
    own_rows = torch.from_numpy(rows.reshape(-1)[voxels])
    _average(_flat(fused), torch.from_numpy(voxels), torch.from_numpy(found.table), own_rows, samples)
    return fused


def _average(fields: Sequence[Tensor], voxels: Tensor, table: Tensor, rows: Tensor, samples: Sequence[_Sample]) -> None:
    """Write the means of rows (M,) of a table and samples of M points to voxels (M,) of fields (C, N).

    A few voxels at a time, so that a processor's cache holds all of their channels.
    """
    sizes = [len(field) for field in fields]
    for first in range(0, len(voxels), VOXELS_AT_ONCE):
        some = slice(first, first + VOXELS_AT_ONCE)
        total = table.index_select(0, rows[some]).float()
        for sample in samples:
            total += sample.of(some)
        total /= 1 + sum(sample.reached[some, None] for sample in samples)
        for field, mean in zip(fields, torch.split(total.half(), sizes, 1), strict=True):
            field.index_copy_(1, voxels[some], mean.T)


def _indices(matrix: Matrix, found: Answered) -> list[Floats]:
    """Indices on another 1 mm grid, for each of its axes (I, J, K), of the voxels of a box."""
    i, j, k = np.ix_(*(np.arange(n) + o for o, n in zip(found.origin, found.shape, strict=True)))
    return [(row[0] * i + row[1] * j + row[2] * k + row[3]).astype(np.float32) for row in matrix[:3]]


def _uncertain_at(found: Answered, indices: Sequence[Floats]) -> NDArray[np.bool_]:
    """Where sampling a contrast at these indices of its 1 mm grid meets anything but certain background."""
    around = np.pad(ndimage.binary_dilation(np.pad(found.background < 1, 1), np.ones((3, 3, 3))), 1)
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
    "(N + 1, C), see ``Answered``."
    rows: Tensor
    "(M, 8), of ``table``, for the corners around each point."
    weights: Tensor
    "(M, 8), all 0 where the contrast does not count."
    reached: Tensor
    "(M,) where the contrast counts."

    def of(self, some: slice) -> Tensor:
        """(m, C) at some of the points, 0 where it does not count."""
        weights = self.weights[some]
        return F.embedding_bag(self.rows[some], self.table, per_sample_weights=weights, mode="sum").float()


def _sample(contrast: Contrast, indices: Sequence[Floats], counted: NDArray[np.bool_]) -> _Sample:
    """Interpolation at indices (M,) of the contrast's 1 mm grid, given for each axis.

    It counts where its field of view reaches, at those points that are ``counted``, (M,).
    """
    found, reached = contrast.answered, counted.copy()
    for axis, n in zip(indices, contrast.grid.shape, strict=True):
        reached &= (axis >= -0.5) & (axis <= n - 0.5)
    padded = np.pad(found.rows, 1)
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
    return _Sample(*map(torch.from_numpy, (found.table, rows, weights, reached)))
