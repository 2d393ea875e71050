import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray

from bidsseg.errors import FileError
from bidsseg.image import (
    Image,
    along,
    conform,
    correct_bias,
    grid_of,
    load,
    nifti_bytes,
    normalise,
    resampling_matrix,
    save,
    slabs,
    to_native_axes,
)

ORIENTATIONS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)], float)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
IDENTITY = np.eye(4)


def image(data: NDArray[np.float32], affine: NDArray[np.float64] = IDENTITY) -> Image:
    return Image(data.astype(np.float32), affine, nib.Nifti1Header())


def ramp(*shape: int) -> NDArray[np.float32]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def write(path: Path, data: NDArray[np.generic], affine: NDArray[np.float64] | None = IDENTITY) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.mark.parametrize(
    ("centres", "n_in", "width", "expected"),
    [
        # on the samples: the identity
        ([0, 1, 2], 3, 1, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        # half way: linear interpolation, also for a thin output
        ([0.5], 3, 1, [[0.5, 0.5, 0]]),
        ([1.25], 3, 0.2, [[0, 0.75, 0.25]]),
        # two samples wide: covers half, all, half of three neighbours
        ([1], 3, 2, [[0.25, 0.5, 0.25]]),
        ([0.5], 4, 2, [[0.5, 0.5, 0, 0]]),
        # three wide
        ([1], 3, 3, [[1 / 3, 1 / 3, 1 / 3]]),
        # beyond the end the nearest sample counts
        ([-5, 9], 3, 1, [[1, 0, 0], [0, 0, 1]]),
    ],
)
def test_resampling_matrix(centres: list[float], n_in: int, width: float, expected: list[list[float]]) -> None:
    found = resampling_matrix(np.array(centres, float), n_in, width)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_applies_a_matrix_to_one_axis(axis: int) -> None:
    volume, matrix = ramp(2, 3, 4, 5), np.ones((1, (3, 4, 5)[axis]), np.float32)
    np.testing.assert_allclose(along(matrix, volume, axis), volume.sum(axis + 1, keepdims=True))


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


def test_normalise_spans_0_to_1_and_ignores_empty_background() -> None:
    data = np.zeros((10, 10, 10), np.float32)
    data[5:] = np.linspace(100, 200, 500).reshape(5, 10, 10)
    found = normalise(data)
    assert found.min() == 0
    assert found.max() == 1
    assert found[5:].mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(normalise(data * 7), found, atol=1e-5)


def test_normalise_of_a_constant_is_zero() -> None:
    assert not normalise(np.full((3, 3, 3), 4, np.float32)).any()


# ---- bad files ---------------------------------------------------------------------------------------------------


def truncated(path: Path) -> Path:
    whole = path.with_name("whole.nii.gz")
    write(whole, np.random.default_rng(0).integers(0, 999, (20, 20, 20)).astype(np.int16))
    path.write_bytes(whole.read_bytes()[:4000])
    return path


def not_nifti(path: Path) -> Path:
    path.write_bytes(gzip.compress(b"this is no image" * 100))
    return path


def rgb(path: Path) -> Path:
    colours = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    return write(path, colours)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (truncated, "truncated"),
        (not_nifti, "not a readable NIfTI"),
        (rgb, "colour"),
        (lambda path: write(path, np.zeros((5, 5, 5), np.int16)), "every voxel is 0"),
        (lambda path: write(path, ramp(4, 4, 4, 3)), "4D"),
        (lambda path: write(path, np.full((4, 4, 4), np.nan, np.float32)), "every voxel is 0"),
        (lambda path: write(path, np.ones((4, 4, 4), np.complex64)), "complex"),
        (lambda path: path, "no such file"),
    ],
)
def test_unusable_files_get_one_line(make, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "scan.nii.gz")
    with pytest.raises(FileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert says in message
    assert "\n" not in message


def with_header(path: Path, **fields: object) -> Path:
    stored = nib.Nifti1Image(ramp(4, 5, 6), np.diag((2.0, 2.0, 3.0, 1.0)))
    for name, value in fields.items():
        stored.header[name] = value
    # nibabel would rewrite the form codes from the affine it holds, so write header and data by hand
    with gzip.open(path, "wb") as handle:
        stored.header["magic"], stored.header["vox_offset"] = b"n+1", 352
        handle.write(stored.header.binaryblock + b"\0" * 4 + np.asfortranarray(ramp(4, 5, 6)).tobytes("F"))
    return path


ZERO = {"srow_x": 0, "srow_y": 0, "srow_z": 0}


@pytest.mark.parametrize(
    ("fields", "says", "spacing"),
    [
        ({"sform_code": 0, "qform_code": 0}, "left and right are a guess", (2, 2, 3)),
        ({**ZERO, "sform_code": 1, "qform_code": 0}, "not an affine of full rank", (2, 2, 3)),
        ({**ZERO, "sform_code": 1, "qform_code": 1}, "not an affine of full rank", (2, 2, 3)),
        ({"sform_code": 1, "qform_code": 1, "srow_x": (4, 0, 0, 9)}, "disagree", (4, 2, 3)),
    ],
)
def test_headers_are_repaired_and_say_so(
    fields: dict[str, object], says: str, spacing: tuple[float, ...], tmp_path: Path
) -> None:
    found = load(with_header(tmp_path / "scan.nii.gz", **fields))
    assert any(says in warning for warning in found.warnings), found.warnings
    np.testing.assert_allclose(found.spacing_mm, spacing)
    np.testing.assert_array_equal(found.data, ramp(4, 5, 6))


def test_nans_count_as_zero(tmp_path: Path) -> None:
    data = ramp(4, 4, 4)
    data[0, 0, 1] = np.nan
    data[0, 0, 2] = np.inf
    found = load(write(tmp_path / "scan.nii", data))
    assert found.data[0, 0, 1] == found.data[0, 0, 2] == 0
    assert "2 voxels were NaN" in found.warnings[0]


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1), (4, 5)])
def test_one_volume_in_other_dimensions_is_3d(shape: tuple[int, ...], tmp_path: Path) -> None:
    assert load(write(tmp_path / "scan.nii.gz", ramp(*shape))).data.shape == ((*shape, 1)[:3])


def test_a_sheared_affine_is_kept_as_it_is(tmp_path: Path) -> None:
    sheared = np.array([[1, 0.2, 0, 3], [0, 1, 0, 4], [0, 0.1, 3, 5], [0, 0, 0, 1]], float)
    path = write(tmp_path / "scan.nii.gz", ramp(6, 6, 6), sheared)
    found = load(path)
    np.testing.assert_allclose(found.affine, sheared, atol=1e-6)
    save(tmp_path / "out.nii.gz", found.data.astype(np.uint16), found.affine, found)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").affine, nib.load(path).affine)
    assert conform(found)[0].shape == (6, 7, 18)


def test_saved_labels_keep_the_scans_geometry_and_leave_no_rest(tmp_path: Path) -> None:
    scan = nib.Nifti1Image(ramp(4, 5, 6).astype(np.int16), None)
    scan.set_qform(np.diag((2.0, 2.0, 3.0, 1.0)), 1)
    scan.set_sform(np.diag((2.0, 2.0, 3.0, 1.0)), 4)
    scan.header.set_slope_inter(3, 0)
    nib.save(scan, tmp_path / "scan.nii.gz")
    found = load(tmp_path / "scan.nii.gz")
    save(tmp_path / "seg.nii.gz", np.full((4, 5, 6), 4207, np.uint16), found.affine, found)
    stored = nib.load(tmp_path / "seg.nii.gz")
    assert int(stored.header["sform_code"]) == 4
    assert int(stored.header["qform_code"]) == 1
    assert (np.asarray(stored.dataobj) == 4207).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz", "seg.nii.gz"]


def test_bias_correction_flattens_a_field() -> None:
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, 40),) * 3, indexing="ij")
    head = (i**2 + j**2 + k**2 < 0.8).astype(np.float32)
    field = np.exp(0.5 * i).astype(np.float32)
    corrected = correct_bias(image(100 * head * field, np.diag((4.0, 4.0, 4.0, 1.0))))
    inside = head > 0
    spread = [float(data[inside].std() / data[inside].mean()) for data in (100 * field, corrected.data)]
    assert spread[1] < 0.4 * spread[0]


def test_bytes_are_those_of_a_file(tmp_path: Path) -> None:
    data, affine = np.arange(24, dtype=np.uint16).reshape(2, 3, 4), np.diag([1.0, 2, 3, 1])
    save(tmp_path / "image.nii", data, affine)
    assert nifti_bytes(data, affine) == (tmp_path / "image.nii").read_bytes()
