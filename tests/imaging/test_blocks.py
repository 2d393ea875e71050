"""Blocks of two voxels a side, and what lies between them, in numbers that one can work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bidsseg.imaging.blocks import TO_BLOCKS, at_places, at_voxels, between_blocks, blocks_along, blocks_of
from bidsseg.imaging.grid import grid_of, slabs
from tests.imaging.test_upright import rotated


def test_voxels_get_most_of_their_own_block() -> None:
    rows = [[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75], [0, 0, 1]]
    expected = np.array(rows)
    np.testing.assert_allclose(between_blocks(6, 3), expected)
    np.testing.assert_allclose(between_blocks(5, 3), expected[:5])


@pytest.mark.parametrize(("voxel", "block"), [(0, -0.25), (0.5, 0), (1, 0.25), (6.5, 3)])
def test_indices_of_voxels_become_those_of_blocks(voxel: float, block: float) -> None:
    np.testing.assert_allclose(TO_BLOCKS @ [voxel, voxel, voxel, 1], [block, block, block, 1])


@pytest.mark.parametrize(("voxels", "blocks"), [(slice(0, 4), slice(0, 2)), (slice(2, 5), slice(1, 3))])
def test_blocks_cover_a_box_of_voxels(voxels: slice, blocks: slice) -> None:
    assert blocks_of((voxels, voxels, voxels)) == (blocks, blocks, blocks)
    assert blocks_along((5, 4, 1)) == (3, 2, 1)


def test_places_asked_for_get_what_resampling_everything_would_give_them() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.random((3, 4, 5, 2)).astype(np.float32)
    matrices = [between_blocks(2 * n, n) for n in blocks.shape[:3]]
    matrices[2] = matrices[2].reshape(2, 5, 5).mean(1)  # two thick slices
    everything = np.einsum("ijkc,ai,bj,dk->cabd", blocks, *matrices)
    where = rng.random(everything.shape[1:]) < 0.4
    np.testing.assert_allclose(at_places(blocks, matrices, where), everything[:, where], atol=1e-6)
    assert at_places(blocks, matrices, np.zeros_like(where)).shape == (2, 0)


def test_planes_are_those_of_the_whole_box() -> None:
    blocks = np.random.default_rng(1).random((4, 2, 2, 3)).astype(np.float16)
    shape = (7, 4, 3)
    whole = at_voxels(blocks, shape, slice(0, 7), np.ones(shape, bool)).reshape(3, *shape)
    some = at_voxels(blocks, shape, slice(2, 5), np.ones((3, 4, 3), bool)).reshape(3, 3, 4, 3)
    np.testing.assert_array_equal(some, whole[:, 2:5])


@pytest.mark.parametrize("degrees", [0, 30])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 5.0)])
@pytest.mark.parametrize("few", [False, True])
def test_a_slope_across_blocks_is_the_same_slope_on_the_scan(
    degrees: float, spacing: tuple[float, float, float], few: bool
) -> None:
    """Blocks that hold their own position along an axis give scan voxels theirs, in mm."""
    affine = rotated(degrees, mm=spacing)
    grid = grid_of(tuple(round(60 / mm) for mm in spacing), affine)
    assert (grid.turn is not None) == (degrees > 0)
    shape = (26, 24, 22)
    origin = tuple((n - m) // 4 * 2 for n, m in zip(grid.shape, shape, strict=True))
    index = np.stack(
        np.meshgrid(*(2 * np.arange(n) + 0.5 + o for n, o in zip((13, 12, 11), origin, strict=True)), indexing="ij"), -1
    )
    blocks = (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]).astype(np.float32)
    inner = 0
    for slab in slabs(shape, (origin[0], origin[1], origin[2]), grid, 4, 40_000 if few else 16_000_000):
        where = np.ones(tuple(s.stop - s.start for s in slab.window), bool)
        found = slab.of_blocks(blocks, where).reshape(3, *where.shape)
        at = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in slab.window), indexing="ij"))
        expected = np.einsum("ab,bijk->aijk", affine[:3, :3], at.astype(float)) + affine[:3, 3].reshape(3, 1, 1, 1)
        box = np.einsum("ab,bijk->aijk", np.linalg.inv(grid.affine)[:3, :3], expected) + np.linalg.inv(grid.affine)[
            :3, 3
        ].reshape(3, 1, 1, 1)
        deep = np.all([(b > o + 4) & (b < o + n - 5) for b, o, n in zip(box, origin, shape, strict=True)], 0)
        inner += int(np.count_nonzero(deep))
        np.testing.assert_allclose(found[:, deep], expected[:, deep], atol=2e-2)
    assert inner > 100
