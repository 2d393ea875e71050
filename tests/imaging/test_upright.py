"""Grids of scans whose axes are turned against the world: geometry that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsseg.imaging.arrays import Floats, sampled
from bidsseg.imaging.grid import (
    TURNED_DEG,
    Grid,
    conform,
    grid_of,
    restored,
    slabs,
    tilt_deg,
    to_native_axes,
    turned_back,
)
from tests.phantoms import image

Affine = NDArray[np.float64]
HOUSE = np.array([[1, 0.5, 0], [0, 1, 0.5], [0.5, 0, 1]])


def rotated(degrees: float, axis: tuple[float, float, float] = (1, 0, 0), mm: tuple[float, ...] = (1, 1, 1)) -> Affine:
    """The affine of a grid turned about an axis through its first voxel."""
    affine = np.eye(4)
    unit = np.array(axis) / np.linalg.norm(axis)
    affine[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * unit).as_matrix() * mm
    return affine


def at_centre(affine: Affine, shape: tuple[int, ...]) -> Affine:
    """The same, moved so that the middle of the field of view lies at 0 mm."""
    moved = affine.copy()
    moved[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return moved


def smooth(shape: tuple[int, ...], affine: Affine) -> Floats:
    """A lopsided smooth body around 0 mm, some 15 mm wide."""
    points = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    body: Floats = (100 * np.exp(-((points @ HOUSE.T) ** 2).sum(-1) / 100)).astype(np.float32)
    return body


def back_on_scan(volume: Floats, grid: Grid, max_floats: int = 10**8) -> Floats:
    found = np.full(grid.canonical_shape, np.nan, np.float32)
    for slab in slabs(volume.shape, (0, 0, 0), grid, 1, max_floats):
        found[slab.window] = slab.of(volume[None])[0]
    assert not np.isnan(found).any()
    return np.asarray(to_native_axes(found, grid))


@pytest.mark.parametrize("degrees", [0, 5, TURNED_DEG - 0.1, 90, 180, 95, -85])
def test_what_lies_along_the_axes_or_almost_is_not_turned(degrees: float) -> None:
    grid = grid_of((30, 40, 50), rotated(degrees))
    assert grid.turn is None
    assert grid.along_scan is grid


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
@pytest.mark.parametrize("degrees", [26, -30, 44])
def test_tilt_is_the_angle_of_the_rotation(degrees: float, axis: tuple[float, float, float]) -> None:
    affine = rotated(degrees, axis, (0.9, 1.2, 5))
    grid = grid_of((30, 40, 50), affine)
    assert tilt_deg(grid.along_scan.affine) == pytest.approx(abs(degrees))
    assert tilt_deg(grid.affine) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(grid.affine[:3, :3], np.eye(3), atol=1e-9)


def test_a_cube_turned_by_45_degrees_stands_on_its_edge() -> None:
    # 100 mm wide; turned about x, its diagonal of 141.4 mm lies along y and along z
    grid = grid_of((100, 100, 100), at_centre(rotated(45), (100, 100, 100)))
    assert grid.shape == (100, 142, 142)
    # of 1 mm voxels around 0 mm in x, and of 142 mm around 0 in y and z
    np.testing.assert_allclose(grid.affine[:3, 3], (-49.5, -70.5, -70.5), atol=1e-9)


def test_a_corner_of_the_upright_grid_is_covered_by_no_slice_and_dark() -> None:
    shape = (100, 100, 100)
    volume, _ = conform(
        image(np.full(shape, 7, np.float32) - np.eye(100, dtype=np.float32)[0], at_centre(rotated(45), shape))
    )
    assert volume[:, 70, 70] == pytest.approx(7, abs=1e-4)  # the middle
    assert (volume[:, 0, 0] == 6).all()
    # along the middle row the cube ends 70.7 mm from the middle; the corner beyond is empty
    assert (volume[50, 5:137, 71] > 6.5).all()
    assert (volume[50, :30, 30] == 6).all()


@pytest.mark.parametrize("turn", [(0, 1), (1, 2), (2, 0)])
def test_a_quarter_turn_is_a_permutation(turn: tuple[int, int]) -> None:
    data = np.random.default_rng(0).random((5, 6, 7), np.float32)
    expected = np.rot90(data, 1, turn)
    matrix = np.eye(4)
    a, b = turn
    matrix[[a, b], [a, b]] = 0
    matrix[a, b], matrix[b, a] = 1, -1  # what lies at (a, b) of the result comes from (b, n - 1 - a)
    matrix[b, 3] = data.shape[b] - 1
    found = sampled(data[None], matrix, expected.shape, np.zeros(1))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_beyond_the_outer_faces_lies_what_was_asked_for() -> None:
    data = np.ones((2, 3, 3, 3), np.float16)
    moved = np.eye(4)
    moved[0, 3] = 2.4
    found = sampled(data, moved, (2, 3, 3), np.array([5, 0]))
    assert found[0, :, 0, 0].tolist() == [1, 5]
    assert found[1, :, 0, 0].tolist() == [1, 0]
    only = np.zeros((2, 3, 3), bool)
    only[0, 0, 0] = True
    assert sampled(data, moved, (2, 3, 3), np.array([5, 0]), only)[0].sum() == 1 + 17 * 5


@pytest.mark.parametrize(
    ("mm", "shape", "tolerance"),
    [((1, 1, 1), (60, 62, 64), 2.0), ((0.7, 0.7, 0.7), (90, 90, 90), 2.0), ((0.8, 0.8, 4), (80, 80, 16), 8.0)],
)
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (1, 1, 1)])
@pytest.mark.parametrize("max_floats", [10**8, 20_000])
def test_there_and_back_a_smooth_body_stays_the_same(
    mm: tuple[float, ...], shape: tuple[int, ...], tolerance: float, axis: tuple[float, float, float], max_floats: int
) -> None:
    affine = at_centre(rotated(40, axis, mm), shape)
    scan = image(smooth(shape, affine), affine)
    volume, grid = conform(scan)
    assert grid.turn is not None
    np.testing.assert_allclose(volume, smooth(grid.shape, grid.affine), atol=tolerance)  # of 100
    np.testing.assert_allclose(back_on_scan(volume, grid, max_floats), scan.data, atol=2 * tolerance)


def test_only_what_is_asked_for_comes_back_the_same() -> None:
    shape = (40, 40, 9)
    affine = at_centre(rotated(30, mm=(1, 1, 5)), shape)
    volume, grid = conform(image(smooth(shape, affine), affine))
    for slab in slabs(volume.shape, (0, 0, 0), grid, 1, 20_000):
        whole = slab.of(volume[None])
        where = whole[0] > 30
        np.testing.assert_allclose(slab.of(volume[None], where), whole[:, where], atol=1e-5)


def test_a_box_comes_back_where_it_lay() -> None:
    shape = (60, 60, 60)
    affine = at_centre(rotated(35, (0, 1, 1)), shape)
    volume, grid = conform(image(smooth(shape, affine), affine))
    box, origin = volume[20:70, 15:60, 10:62], (20, 15, 10)
    whole = back_on_scan(volume, grid)
    found = np.zeros_like(whole)
    for slab in slabs(box.shape, origin, grid, 1):
        found[slab.window] = slab.of(box[None])[0]
    inside = whole > 50
    np.testing.assert_allclose(found[inside], whole[inside], atol=0.5)


def test_faces_of_a_turned_field_of_view() -> None:
    """A body that the lowest slices cut shows on the lowest face, and on no other."""
    shape = (60, 60, 30)
    affine = at_centre(rotated(30), shape)
    affine[:3, 3] += affine[:3, 2] * 15  # the middle of the body lies in the lowest slice
    volume, grid = conform(image(smooth(shape, affine), affine))
    masks, origin = turned_back((volume > 50)[None], (0, 0, 0), grid)
    assert masks.dtype == bool
    assert origin == (0, 0, 0)
    assert masks[0].shape == shape
    true = smooth(shape, affine) > 50
    assert masks[0][:, :, 0].sum() == pytest.approx(true[:, :, 0].sum(), rel=0.05)
    assert not masks[0][:, :, -1].any()
    assert (masks[0] == true).mean() > 0.99


def test_a_volume_on_the_upright_grid_comes_back_along_the_scan() -> None:
    shape = (50, 50, 50)
    affine = at_centre(rotated(25), shape)
    scan = image(smooth(shape, affine), affine)
    volume, grid = conform(scan)
    np.testing.assert_allclose(restored(volume, grid), scan.data, atol=4)
    straight = replace(grid, turn=None)
    assert restored(volume, straight) is volume


@pytest.mark.parametrize(("slices", "is_turned"), [(1, False), (3, False), (5, True)])
def test_a_single_slice_and_few_slices_keep_their_axes(slices: int, is_turned: bool) -> None:
    assert (grid_of((200, 200, slices), rotated(40, mm=(1, 1, 5))).turn is not None) == is_turned


def test_a_field_of_view_too_large_to_turn_keeps_its_axes() -> None:
    assert grid_of((400, 400, 250), rotated(45, (1, 1, 0))).turn is None
    assert grid_of((256, 256, 256), rotated(44)).turn is not None
