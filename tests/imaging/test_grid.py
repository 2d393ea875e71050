import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray

from bidsseg.imaging.grid import conform, grid_of, slabs, to_native_axes
from tests.phantoms import ORIENTATIONS, image, ramp


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_conforms_to_the_same_volume_and_comes_back(orientation: NDArray[np.float64]) -> None:
    data, affine = ramp(11, 7, 5), np.diag((0.7, 1.9, 3.1, 1.0))
    reference, reference_grid = conform(image(data, affine))
    turned = np.ascontiguousarray(apply_orientation(data, orientation))
    volume, grid = conform(image(turned, affine @ inv_ornt_aff(orientation, data.shape)))
    np.testing.assert_array_equal(volume, reference)
    np.testing.assert_allclose(grid.affine, reference_grid.affine, atol=1e-9)
    np.testing.assert_array_equal(to_native_axes(data, grid), turned)


@pytest.mark.parametrize(
    ("spacing", "shape", "expected"),
    [
        ((1, 1, 1), (5, 6, 7), (5, 6, 7)),
        ((0.5, 1, 2), (8, 8, 8), (4, 8, 16)),
        ((10, 1.0005, 0.9), (2, 9, 10), (20, 9, 9)),
    ],
)
def test_conformed_shape(spacing: tuple[float, ...], shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert conform(image(ramp(*shape), np.diag((*spacing, 1.0))))[0].shape == expected


def test_conforming_1_mm_changes_nothing() -> None:
    data = ramp(4, 5, 6)
    np.testing.assert_array_equal(conform(image(data))[0], data)


def test_thick_slices_are_interpolated_between_their_centres() -> None:
    # slices 4 mm apart with values 0 and 8: a rise of 2 per mm between the centres, flat beyond them
    data = np.zeros((1, 1, 2), np.float32)
    data[..., 1] = 8
    volume, grid = conform(image(data, np.diag((1.0, 1.0, 4.0, 1.0))))
    np.testing.assert_allclose(volume[0, 0, 2:6], [1, 3, 5, 7])
    np.testing.assert_allclose(grid.affine @ (0, 0, 0, 1), (0, 0, -1.5, 1))


@pytest.mark.parametrize("angle_deg", [0, 10, 30])
def test_world_coordinates_survive_an_oblique_affine(angle_deg: float) -> None:
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    affine = np.array([[c, -s, 0, 7], [s, c, 0, -3], [0, 0, 1, 1], [0, 0, 0, 1]]) @ np.diag((2.0, 2.0, 2.0, 1.0))
    grid = grid_of((10, 12, 14), affine)
    native_centre = affine @ (4.5, 5.5, 6.5, 1)
    conformed_centre = grid.affine @ (*((np.array(grid.shape) - 1) / 2), 1)
    np.testing.assert_allclose(conformed_centre, native_centre, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(grid.affine[:3, :3], axis=0), 1)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 0.5), (0.9, 0.9, 3), (2, 5, 1)])
@pytest.mark.parametrize("max_floats", [10**9, 500])
def test_restored_probabilities_find_the_block_they_came_from(spacing: tuple[float, ...], max_floats: int) -> None:
    shape = tuple(int(40 / mm) for mm in spacing)
    grid = grid_of(shape, np.diag((*spacing, 1.0)))
    block = np.zeros((1, *grid.shape), np.float32)
    block[0, 10:30, 5:35, 20:] = 1
    found = np.full(grid.canonical_shape, np.nan)
    for slab in slabs(grid.shape, (0, 0, 0), grid, 1, max_floats):
        found[slab.window] = slab.of(block)[0]
    assert not np.isnan(found).any()
    volume = (found > 0.5).sum() * np.prod(spacing)
    assert volume == pytest.approx(20 * 30 * (grid.shape[2] - 20), rel=0.06)
    assert found.sum() * np.prod(spacing) == pytest.approx(block.sum(), rel=0.02)


def test_restoring_a_box_equals_restoring_the_whole() -> None:
    grid = grid_of((30, 30, 9), np.diag((0.7, 0.7, 3.0, 1.0)))
    whole = np.zeros((2, *grid.shape), np.float32)
    whole[:, 4:15, 6:16, 5:20] = np.random.default_rng(0).random((2, 11, 10, 15))
    results = []
    for box, origin in ((whole, (0, 0, 0)), (whole[:, 2:17, 4:18, 3:22], (2, 4, 3))):
        result = np.zeros((2, *grid.canonical_shape), np.float32)
        for slab in slabs(box.shape[1:], origin, grid, 2):
            result[(slice(None), *slab.window)] = slab.of(box)
        results.append(result)
    inside = results[1] != 0
    np.testing.assert_allclose(results[0][inside], results[1][inside], atol=1e-5)
