"""Channels held for blocks of two voxels a side, channels last, and what lies between the blocks' centres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Box, Floats, resampling_matrix

SIDE = 2
"Of a block, in voxels."
TO_BLOCKS = np.diag((1 / SIDE, 1 / SIDE, 1 / SIDE, 1.0))
TO_BLOCKS[:3, 3] = 1 / (2 * SIDE) - 1 / 2
"4x4, indices of voxels to those of blocks, of which the first begins with the first voxel."


def blocks_along(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of the blocks that cover so many voxels."""
    i, j, k = (-(-n // SIDE) for n in shape)
    return i, j, k


def blocks_of(voxels: Sequence[slice]) -> Box:
    """The blocks that cover a box of voxels, which begins with a block."""
    i, j, k = (slice(side.start // SIDE, -(-side.stop // SIDE)) for side in voxels)
    return i, j, k


def between_blocks(n_voxels: int, n_blocks: int) -> Floats:
    """(voxels, blocks): linear weights along one axis; each voxel gets 3/4 of its block, 1/4 of the nearer neighbour.

    Beyond the outermost blocks the nearest counts.
    """
    return resampling_matrix((np.arange(n_voxels) + 0.5) / SIDE - 0.5, n_blocks, 1 / SIDE)


def at_voxels(blocks: NDArray[Any], shape: Sequence[int], planes: slice, where: NDArray[np.bool_]) -> Floats:
    """Blocks (i, j, k, C) of a box of voxels of this shape, at N voxels of a mask of some of its planes: (C, N)."""
    first, *others = (between_blocks(n, of_axis) for n, of_axis in zip(shape, blocks.shape, strict=False))
    return at_places(blocks, (first[planes], *others), where)


def at_places(blocks: NDArray[Any], matrices: Sequence[Floats], where: NDArray[np.bool_]) -> Floats:
    """Blocks (I, J, K, C) resampled by one matrix per axis, at the N places of a mask (i, j, k) alone: (C, N).

    Plane by plane, each place gathers the few blocks that have a part in it. Matrices that resample all places take
    twice as long for many channels, and several times the memory.
    """
    import torch  # readers of headers, who need a grid, do without
    from torch.nn.functional import embedding_bag

    along_first, *others = matrices
    rows, weights = map(torch.from_numpy, _gathering(*others))
    result = torch.empty((blocks.shape[-1], int(np.count_nonzero(where))))
    done = 0
    for shares, asked in zip(along_first, where.reshape(len(where), -1), strict=True):
        places = torch.from_numpy(np.flatnonzero(asked))
        if len(places) == 0:
            continue
        planes = (torch.from_numpy(blocks[i]).float() * float(shares[i]) for i in np.flatnonzero(shares))
        table = torch.stack(list(planes)).sum(0).flatten(0, 1)
        found = embedding_bag(rows[places], table, per_sample_weights=weights[places], mode="sum")
        result[:, done : done + len(places)] = found.T
        done += len(places)
    gathered: Floats = result.numpy()
    return gathered


def _gathering(one: Floats, other: Floats) -> tuple[NDArray[np.int32], Floats]:
    """For places (i, j), flat, which of flat (I, J) have a part in them by a matrix per axis, and their weights.

    (i * j, n) each, n the most that any place needs.
    """
    (rows, of_rows), (columns, of_columns) = (_taken(matrix) for matrix in (one, other))
    at = rows[:, None, :, None] * other.shape[1] + columns[:, None, :]
    weights = of_rows[:, None, :, None] * of_columns[:, None, :]
    n = at.shape[2] * at.shape[3]
    return at.reshape(-1, n), weights.reshape(-1, n)


def _taken(matrix: Floats) -> tuple[NDArray[np.int32], Floats]:
    """For each row of a matrix its non-zero columns and their weights, each (rows, the most of any row)."""
    most = max(1, int(np.count_nonzero(matrix, 1).max(initial=0)))
    columns = np.argsort(-matrix, 1, kind="stable")[:, :most]
    return columns.astype(np.int32), np.take_along_axis(matrix, columns, 1)
