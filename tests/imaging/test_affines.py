"""Headers that contradict themselves, and what is taken from them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.affines import placement
from bidsseg.imaging.image import is_same_grid, load, read_geometry, save
from tests.phantoms import ramp

THICK = np.array([[-0.72, 0, 0, 90], [0, 0.72, 0, -80], [0, 0, 4, -40], [0, 0, 0, 1]], float)
"For a scan of 256 x 256 x 20 voxels, a field of view of 184 x 184 x 80 mm."
SHAPE = (256, 256, 20)
COARSE = np.diag((2.0, 2.0, 3.0, 1.0))
COARSE[:3, 3] = -20


def unit_columns(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = affine.copy()
    unit[:3, :3] /= np.linalg.norm(affine[:3, :3], axis=0)
    return unit


def header(
    sizes: tuple[float, ...],
    sform: NDArray[np.float64] | None = None,
    qform: NDArray[np.float64] | None = None,
    unit: str = "mm",
    shape: tuple[int, ...] = SHAPE,
) -> nib.Nifti1Header:
    fields = nib.Nifti1Header()
    fields.set_data_shape(shape)
    fields.set_xyzt_units(unit)
    if qform is not None:
        fields.set_qform(qform, 1)
    fields["pixdim"][1:4] = sizes
    if sform is not None:
        fields["sform_code"] = 1
        fields["srow_x"], fields["srow_y"], fields["srow_z"] = sform[:3]
    return fields


ONE_MM = np.array([[0, 0, 1, -9], [-1, 0, 0, 120], [0, -1, 0, 130], [0, 0, 0, 1]], float)
NUDGED = THICK.copy()
NUDGED[:3, 3] += 3
TRUE_SIZES = (0.72, 0.72, 4.0)
IDENTITY_RESIZED = np.diag((0.72, 0.72, 4.0, 1.0))
METRES = np.diag((1e-3, 1e-3, 1e-3, 1.0)) @ THICK
MICRONS = np.diag((1e3, 1e3, 1e3, 1.0)) @ THICK


@pytest.mark.parametrize(
    ("fields", "affine", "says"),
    [
        pytest.param(header(TRUE_SIZES, THICK), THICK, [], id="sound"),
        pytest.param(header((0.7200001, 0.72, 3.999999), THICK, THICK), THICK, [], id="rounding"),
        pytest.param(header(TRUE_SIZES, None, THICK), THICK, [], id="qform alone"),
        pytest.param(
            header(TRUE_SIZES, unit_columns(THICK), THICK), THICK,
            ["sform gives voxels of 1 x 1 x 1 mm, pixdim 0.72 x 0.72 x 4 mm", "; the qform, which agrees with pixdim,"],
            id="unit columns, qform agrees with pixdim",
        ),
        pytest.param(
            header(TRUE_SIZES, unit_columns(THICK)), THICK,
            ["the sform gives voxels of 1 x 1 x 1 mm, pixdim 0.72 x 0.72 x 4 mm; the size in pixdim was used"],
            id="unit columns, no qform",
        ),
        pytest.param(
            header((1, 1, 1), THICK, np.eye(4)), THICK, ["pixdim 1 x 1 x 1 mm; the sform was used"],
            id="pixdim and qform never filled in",
        ),
        pytest.param(
            header(TRUE_SIZES, np.eye(4)), IDENTITY_RESIZED,
            ["the size in pixdim was used", "left and right are a guess"], id="identity beside a good pixdim",
        ),
        pytest.param(
            header(TRUE_SIZES, np.eye(4), THICK), THICK,
            ["the sform is an identity matrix", "; the qform was used"], id="identity beside a good qform",
        ),
        pytest.param(
            header((1, 1, 1), np.eye(4), ONE_MM), ONE_MM,
            ["the sform is an identity matrix"], id="identity beside a good qform of 1 mm",
        ),
        pytest.param(
            header(TRUE_SIZES, np.eye(4), IDENTITY_RESIZED), IDENTITY_RESIZED,
            ["left and right are a guess"], id="identity beside a qform of voxel sizes alone",
        ),
        pytest.param(
            header((0.9, 0.9, 4.0), THICK), THICK,
            ["the sform gives voxels of 0.72 x 0.72 x 4 mm, pixdim 0.9 x 0.9 x 4 mm; the sform was used; check"],
            id="nothing decides",
        ),
        pytest.param(
            header((0.72, 0.72, 400.0), THICK), THICK, ["pixdim 0.72 x 0.72 x 400 mm; the sform was used"],
            id="pixdim fits no head",
        ),
        pytest.param(
            header((0.0, 0.72, 4.0), THICK), THICK, [], id="pixdim says nothing",
        ),
        pytest.param(header(TRUE_SIZES, THICK, NUDGED), THICK, ["disagree; the sform was used"], id="place"),
        pytest.param(header((1, 1, 1), np.eye(4)), np.eye(4), ["left and right are a guess"], id="header lost"),
        pytest.param(header(TRUE_SIZES, METRES[:], None, "meter"), THICK, ["pixdim"], id="metres, pixdim in mm"),
        pytest.param(header((0.00072, 0.00072, 0.004), METRES, None, "meter"), THICK, [], id="metres"),
        pytest.param(header((720, 720, 4000), MICRONS, None, "micron"), THICK, [], id="microns"),
        pytest.param(header(TRUE_SIZES, THICK, None, "meter"), THICK, ["its unit is metre", "mm"], id="not metres"),
        pytest.param(header(TRUE_SIZES, np.zeros((4, 4)), THICK), THICK,
            ["not an invertible affine"], id="sform of 0"),
        pytest.param(header(TRUE_SIZES, THICK * np.nan, THICK), THICK,
            ["not an invertible affine"], id="sform of NaN"),
    ],
)  # fmt: skip
def test_what_two_agree_on_is_used_and_said(
    fields: nib.Nifti1Header, affine: NDArray[np.float64], says: list[str]
) -> None:
    found = placement(fields, SHAPE)
    np.testing.assert_allclose(found.affine, affine, rtol=1e-5, atol=1e-4)
    warnings = "; ".join(found.warnings)
    assert all(part in warnings for part in says), warnings
    assert bool(warnings) == bool(says), warnings
    assert np.allclose(found.header.get_best_affine(), affine, rtol=1e-5, atol=1e-4)
    assert found.header.get_xyzt_units()[0] == "mm"


def test_without_forms_axes_are_guessed() -> None:
    found = placement(header((2, 2, 3), shape=(4, 5, 6)), (4, 5, 6))
    np.testing.assert_allclose(np.diag(found.affine), (-2, 2, 3, 1))
    assert "left and right are a guess" in found.warnings[0]


@pytest.mark.parametrize(("length", "is_used"), [(0.999999, True), (1.000001, True), (1.004, True), (1.2, False)])
def test_a_quaternion_off_by_rounding_is_read(length: float, is_used: bool) -> None:
    fields = header((2, 2, 3), None, COARSE)
    fields["quatern_b"], fields["quatern_c"], fields["quatern_d"] = 0, length, 0
    found = placement(fields, SHAPE)
    turned = COARSE @ np.diag((-1.0, 1.0, -1.0, 1.0))
    assert np.allclose(found.affine, turned, atol=0.02) == is_used
    assert any("not a rotation" in warning for warning in found.warnings) != is_used


@pytest.mark.parametrize("handedness", [-1, -0.9999, 0, 0.9999, 1])
def test_handedness_is_the_sign_of_pixdim_0(handedness: float) -> None:
    fields = header((2, 2, 3), None, COARSE)
    fields["pixdim"][0] = handedness
    assert np.sign(np.linalg.det(placement(fields, SHAPE).affine)) == (-1 if handedness < 0 else 1)


def test_double_precision_of_nifti_2_beyond_single_is_not_kept() -> None:
    fields = nib.Nifti2Header.from_header(header((2, 2, 3), None, COARSE))
    fields["pixdim"][0] = 1e300
    kept = placement(fields, SHAPE).header
    assert kept["pixdim"][0] == 1
    np.testing.assert_allclose(kept.get_qform(), COARSE, atol=1e-4)


def test_results_lie_where_the_repaired_scan_lies(tmp_path: Path) -> None:
    """What is written for a scan whose sform is wrong has the right one, and is read as the same grid."""
    path = tmp_path / "scan.nii"
    fields = header((2, 2, 3), unit_columns(COARSE), COARSE, shape=(24, 22, 20))
    fields.set_data_dtype(np.float32)
    fields["magic"], fields["vox_offset"] = b"n+1", 352
    path.write_bytes(fields.binaryblock + bytes(4) + ramp(24, 22, 20).tobytes("F"))
    scan = load(path)
    np.testing.assert_allclose(scan.affine, COARSE)
    np.testing.assert_array_equal(scan.data, ramp(24, 22, 20))
    save(tmp_path / "labels.nii.gz", np.ones(scan.data.shape, np.uint8), scan.affine, scan)
    np.testing.assert_allclose(nib.load(tmp_path / "labels.nii.gz").affine, COARSE)
    one, other = read_geometry(path), read_geometry(tmp_path / "labels.nii.gz")
    assert one is not None
    assert other is not None
    assert is_same_grid(one, other)
