"""Fuses the contrasts of one session: averages their probabilities and labels the grid of each contrast.

The contrasts are registered rigidly (``imaging.registration``); nothing is resampled but probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bidsseg.imaging.arrays import Box, Floats, box_at
from bidsseg.imaging.blocks import TO_BLOCKS, blocks_along
from bidsseg.imaging.grid import Grid
from bidsseg.imaging.image import Image
from bidsseg.imaging.registration import register_both
from bidsseg.network.probabilities import Probabilities, background

PLACES_AT_ONCE = 16_384
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Listed:
    """Channels place by place, without the places of a box about which they tell nothing."""

    shape: tuple[int, int, int]
    "Of the box, in places: voxels or blocks."
    places: NDArray[np.int32]
    "(N,), flat in the box."
    table: NDArray[np.float16]
    "(N + 1, C): all channels of each place, after a row for the places left out."

    @property
    def rows(self) -> NDArray[np.int32]:
        """(I, J, K): those of the table."""
        rows = np.zeros(self.shape, np.int32)
        rows.reshape(-1)[self.places] = np.arange(1, len(self.table))
        return rows


@dataclass(frozen=True)
class Answered:
    """Probabilities place by place, without what is certain background."""

    origin: tuple[int, int, int]
    "Of the box, on the 1 mm grid."
    voxels: Listed
    "Tissues, and the right side."
    blocks: Listed
    "Parcels."

    @property
    def box(self) -> Box:
        """On the 1 mm grid."""
        return box_at(self.origin, self.voxels.shape)

    @property
    def from_grid(self) -> tuple[Matrix, Matrix]:
        """4x4, indices of the 1 mm grid to those of voxels and of blocks of the box."""
        to_box = np.eye(4)
        to_box[:3, 3] = np.negative(self.origin)
        return to_box, TO_BLOCKS @ to_box


def answered_in(found: Probabilities) -> Answered:
    """The same probabilities place by place."""
    i, j, k = found.tissue.shape[1:]
    voxels = np.flatnonzero(found.tissue[0] < 1).astype(np.int32)
    channels = [torch.from_numpy(field).flatten(1) for field in (found.tissue, found.right)]
    table = np.empty((len(voxels) + 1, sum(map(len, channels))), np.float16)
    table[0] = 0
    table[0, [0, -1]] = 1, 0.5  # background, on neither side
    parts = (torch.split(torch.from_numpy(whole), PLACES_AT_ONCE) for whole in (table[1:], voxels))
    for some, here in zip(*parts, strict=True):
        some[:] = torch.cat([field.index_select(1, here) for field in channels]).T
    parcels = found.parcels.reshape(-1, found.parcels.shape[-1])
    blocks = np.flatnonzero(parcels.any(1)).astype(np.int32)
    of_blocks = np.concatenate((np.zeros_like(parcels[:1]), parcels[blocks]))
    return Answered(found.origin, Listed((i, j, k), voxels, table), Listed(blocks_along((i, j, k)), blocks, of_blocks))


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
        mask[found.box] = found.voxels.table[found.voxels.rows, 0] < 0.5
        return mask


def contrast_of(prepared: Image, conformed: Floats, answered: Answered) -> Contrast:
    """A prepared scan, on any grid, with what the network said of it on the 1 mm grid."""
    grid = prepared.grid
    return Contrast(replace(prepared, data=conformed, affine=grid.affine), grid, answered)


def register(fixed: Contrast, moving: Contrast, threads: int) -> tuple[Matrix, Matrix]:
    """The rigid transforms, 4x4, from RAS mm of one contrast to RAS mm of another, and back."""
    return register_both(fixed.image, moving.image, fixed.brain, max(1, threads))


def fuse(own: Contrast, others: Sequence[tuple[Contrast, Matrix]], threads: int = 0) -> Probabilities:
    """Average a contrast's probabilities with those of others, on its own 1 mm grid.

    Each of the others comes with the transform from RAS mm of ``own`` to its RAS mm. Where another contrast does not
    reach, the rest count alone; where it reaches beyond the box of its brain, it says background. 0 threads take all.
    """
    if threads:
        torch.set_num_threads(threads)
    found = own.answered
    fused = background(found.origin, found.voxels.shape, found.blocks.table.shape[1])
    tissue, right = (torch.from_numpy(field).flatten(1) for field in (fused.tissue, fused.right))
    parcels = torch.from_numpy(fused.parcels).flatten(0, 2)
    of_voxels, of_blocks = (_views(own, others, kind) for kind in range(2))
    for places, mean in _means(found.voxels, of_voxels):
        for field, values in zip((tissue, right), torch.split(mean, [len(tissue), len(right)], 1), strict=True):
            field.index_copy_(1, places, values.T)
    for places, mean in _means(found.blocks, of_blocks):
        parcels.index_copy_(0, places, mean)
    return fused


class _View(NamedTuple):
    """Another contrast, from the places of the own one."""

    listed: Listed
    matrix: Matrix
    "4x4, indices of own places to those of the other's."
    first: NDArray[np.float64]
    last: NDArray[np.float64]
    "Indices (3,) of its places between which its field of view reaches."


def _views(own: Contrast, others: Sequence[tuple[Contrast, Matrix]], kind: int) -> list[_View]:
    """The others' voxels, or their blocks, from one's own."""
    from_own = np.linalg.inv(own.answered.from_grid[kind])
    views = []
    for other, to_other in others:
        to_places = other.answered.from_grid[kind]
        matrix = to_places @ np.linalg.inv(other.grid.affine) @ to_other @ own.grid.affine @ from_own
        ends = np.array([np.full(3, -0.5), np.array(other.grid.shape) - 0.5]) @ to_places[:3, :3].T + to_places[:3, 3]
        views.append(_View((other.answered.voxels, other.answered.blocks)[kind], matrix, *ends))
    return views


def _means(own: Listed, views: Sequence[_View]) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat places (n,) and the mean (n, C) of the contrasts there, wherever one of them has anything to tell.

    A few places at a time, so that a processor's cache holds all of their channels.
    """
    rows = own.rows
    indices = [_indices(view.matrix, own.shape) for view in views]
    told = rows > 0
    for view, there in zip(views, indices, strict=True):
        told |= _told_at(view.listed, there)
    places = np.flatnonzero(told)
    samples = [
        _sample(view, [axis.reshape(-1)[places] for axis in there]) for view, there in zip(views, indices, strict=True)
    ]
    table, own_rows, everywhere = map(torch.from_numpy, (own.table, rows.reshape(-1)[places], places))
    for first in range(0, len(places), PLACES_AT_ONCE):
        some = slice(first, first + PLACES_AT_ONCE)
        total = table.index_select(0, own_rows[some]).float()
        for sample in samples:
            total += sample.of(some)
        total /= 1 + sum(sample.reached[some, None] for sample in samples)
        yield everywhere[some], total.half()


def _indices(matrix: Matrix, shape: tuple[int, int, int]) -> list[Floats]:
    """Where a 4x4 matrix leads the indices of a box, for each axis (I, J, K)."""
    i, j, k = np.ix_(*map(np.arange, shape))
    return [(row[0] * i + row[1] * j + row[2] * k + row[3]).astype(np.float32) for row in matrix[:3]]


def _told_at(listed: Listed, indices: Sequence[Floats]) -> NDArray[np.bool_]:
    """Where sampling at these indices of a box meets any place that is listed."""
    around = np.pad(ndimage.binary_dilation(np.pad(listed.rows > 0, 1), np.ones((3, 3, 3))), 1)
    nearest = [
        np.clip(np.rint(axis).astype(np.int32) + 2, 0, n - 1) for axis, n in zip(indices, around.shape, strict=True)
    ]
    told: NDArray[np.bool_] = around[tuple(nearest)]
    return told


@dataclass(frozen=True)
class _Sample:
    """How to interpolate a contrast's probabilities at M points, trilinear."""

    table: Tensor
    "(N + 1, C), see ``Listed``."
    rows: Tensor
    "(M, 8), of ``table``, for the corners around each point."
    weights: Tensor
    "(M, 8), all 0 where the contrast does not reach."
    reached: Tensor
    "(M,) where it does."

    def of(self, some: slice) -> Tensor:
        """(m, C) at some of the points, 0 where the contrast does not reach."""
        weights = self.weights[some]
        return F.embedding_bag(self.rows[some], self.table, per_sample_weights=weights, mode="sum").float()


def _sample(view: _View, indices: Sequence[Floats]) -> _Sample:
    """Interpolation at indices (M,) of the other contrast's places, given for each axis.

    Between the outermost places and the edge of its field of view, the outermost count.
    """
    listed, reached = view.listed, np.ones(len(indices[0]), bool)
    padded = np.pad(listed.rows, 1)
    inside = []
    for axis, low, high, n in zip(indices, view.first, view.last, padded.shape, strict=True):
        reached &= (axis >= low) & (axis <= high)
        inside.append(np.clip(np.clip(axis, low + 0.5, high - 0.5) + 1, 0, n - 1.001))
    low_corner = [axis.astype(np.int32) for axis in inside]
    shares = [axis - below for axis, below in zip(inside, low_corner, strict=True)]
    rows, weights = np.empty((len(reached), 8), np.int32), np.empty((len(reached), 8), np.float16)
    for corner, steps in enumerate(product((0, 1), repeat=3)):
        rows[:, corner] = padded[tuple(below + step for below, step in zip(low_corner, steps, strict=True))]
        i, j, k = (share if step else 1 - share for share, step in zip(shares, steps, strict=True))
        weights[:, corner] = i * j * k * reached
    return _Sample(*map(torch.from_numpy, (listed.table, rows, weights, reached)))
