"""Fuses the contrasts of one session: averages their probabilities and labels the grid of each contrast.

The contrasts are registered rigidly (``imaging.registration``); nothing is resampled but probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

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


@dataclass(frozen=True)
class _View:
    """Another contrast, from the places of the own one."""

    table: Tensor
    "(N + 1, C), see ``Listed``."
    rows: NDArray[np.int32]
    "(I + 2, J + 2, K + 2): those of its places, with a margin."
    told: NDArray[np.bool_]
    "(I + 4, J + 4, K + 4): where a place, or a neighbour of it, is listed."
    matrix: Matrix
    "4x4, indices of own places to those of the other's."
    first: NDArray[np.float64]
    last: NDArray[np.float64]
    "Indices (3,) of its places between which its field of view reaches."

    def tells_at(self, indices: Sequence[Floats]) -> NDArray[np.bool_]:
        """Where sampling at these indices of its places, given for each axis, meets any that is listed."""
        nearest = [
            np.clip(np.rint(axis).astype(np.int32) + 2, 0, n - 1)
            for axis, n in zip(indices, self.told.shape, strict=True)
        ]
        told: NDArray[np.bool_] = self.told[tuple(nearest)]
        return told

    def sample(self, indices: Sequence[Floats]) -> tuple[Tensor, Tensor]:
        """Its channels (M, C) at indices (M,) of its places, trilinear, 0 where it does not reach; and where it does.

        Between the outermost places and the edge of its field of view, the outermost count.
        """
        reached, corner = np.ones(len(indices[0]), bool), np.zeros(len(indices[0]), np.int32)
        shares = []
        for axis, low, high, n in zip(indices, self.first, self.last, self.rows.shape, strict=True):
            reached &= (axis >= low) & (axis <= high)
            inside = np.clip(np.clip(axis, low + 0.5, high - 0.5) + 1, 0, n - 1.001)
            below = inside.astype(np.int32)
            shares.append(inside - below)
            corner = corner * n + below
        _, of_j, of_k = self.rows.shape
        rows, weights = np.empty((len(reached), 8), np.int32), np.empty((len(reached), 8), np.float16)
        for number, steps in enumerate(product((0, 1), repeat=3)):
            rows[:, number] = self.rows.reshape(-1)[corner + ((steps[0] * of_j + steps[1]) * of_k + steps[2])]
            i, j, k = (share if step else 1 - share for share, step in zip(shares, steps, strict=True))
            weights[:, number] = i * j * k * reached
        around, of_each = torch.from_numpy(rows), torch.from_numpy(weights)
        found = F.embedding_bag(around, self.table, per_sample_weights=of_each, mode="sum")
        return found.float(), torch.from_numpy(reached)


def _views(own: Contrast, others: Sequence[tuple[Contrast, Matrix]], kind: int) -> list[_View]:
    """The others' voxels, or their blocks, from one's own."""
    from_own = np.linalg.inv(own.answered.from_grid[kind])
    views = []
    for other, to_other in others:
        to_places = other.answered.from_grid[kind]
        matrix = to_places @ np.linalg.inv(other.grid.affine) @ to_other @ own.grid.affine @ from_own
        ends = np.array([np.full(3, -0.5), np.array(other.grid.shape) - 0.5]) @ to_places[:3, :3].T + to_places[:3, 3]
        listed = (other.answered.voxels, other.answered.blocks)[kind]
        rows = np.pad(listed.rows, 1)
        told = np.pad(ndimage.binary_dilation(rows > 0, np.ones((3, 3, 3))), 1)
        views.append(_View(torch.from_numpy(listed.table), rows, told, matrix, *ends))
    return views


def _means(own: Listed, views: Sequence[_View]) -> Iterator[tuple[Tensor, Tensor]]:
    """Flat places (n,) and the mean (n, C) of the contrasts there, wherever one of them has anything to tell.

    Plane by plane, so that a processor's cache holds all of their channels.
    """
    table = torch.from_numpy(own.table)
    for number, rows in enumerate(own.rows):
        there = [_indices(view.matrix, number, rows.shape) for view in views]
        told = np.logical_or.reduce([rows > 0, *(view.tells_at(at) for view, at in zip(views, there, strict=True))])
        places = np.flatnonzero(told)
        total = table.index_select(0, torch.from_numpy(rows.reshape(-1)[places])).float()
        known = torch.ones(len(places))
        for view, at in zip(views, there, strict=True):
            found, reached = view.sample([axis.reshape(-1)[places] for axis in at])
            total += found
            known += reached
        yield torch.from_numpy(places + number * rows.size), (total / known[:, None]).half()


def _indices(matrix: Matrix, i: int, shape: tuple[int, ...]) -> list[Floats]:
    """Where a 4x4 matrix leads the indices of plane ``i`` of a box, for each axis (J, K)."""
    j, k = np.ix_(*map(np.arange, shape))
    return [(row[0] * i + row[1] * j + row[2] * k + row[3]).astype(np.float32) for row in matrix[:3]]
