import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.errors import FileError
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import load, nifti_bytes, save
from tests.phantoms import IDENTITY, ramp

WIDE = np.diag((20.0, 20.0, 30.0, 1.0))


def write(path: Path, data: NDArray[np.generic], affine: NDArray[np.float64] | None = IDENTITY) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


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
        (not_nifti, "text, not a readable image"),
        (rgb, "colour"),
        (lambda path: write(path, np.zeros((5, 5, 5), np.int16), WIDE), "every voxel has the value 0"),
        (lambda path: write(path, ramp(4, 4, 4, 3)), "4D"),
        (lambda path: write(path, np.full((4, 4, 4), np.nan, np.float32), WIDE), "no voxel has a finite value"),
        (lambda path: write(path, np.ones((4, 4, 4), np.complex64)), "complex"),
        (lambda path: write(path, ramp(4, 4, 4), np.diag((1000.0, 1000.0, 3000.0, 1.0))), "4000 x 4000 x 12000 mm"),
        (lambda path: write(path, ramp(10, 10, 10), np.diag((99.0, 99.0, 99.0, 1.0))), "990 x 990 x 990 mm"),
        (lambda path: write(path, ramp(24, 20, 4), np.diag((1.0, 1.0, 0.6, 1.0))), "24 x 20 x 2.4 mm, too small"),
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


def test_a_name_that_no_result_could_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"sc\\udcffan.nii: a name that is not UTF-8; rename"):
        load(tmp_path / "sc\udcffan.nii")


def test_a_scan_without_permission_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "scan.nii.gz", ramp(4, 4, 4))

    def refused(*_: object) -> None:  # root may read all
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(FileError, match="no permission to read it; ask for access"):
        load(path)


def test_nans_count_as_zero(tmp_path: Path) -> None:
    data = ramp(4, 4, 4)
    data[0, 0, 1] = np.nan
    data[0, 0, 2] = np.inf
    found = load(write(tmp_path / "scan.nii", data, WIDE))
    assert found.data[0, 0, 1] == found.data[0, 0, 2] == 0
    assert "2 voxels were NaN" in found.warnings[0]


@pytest.mark.parametrize("empty", [0.0, np.nan])
@pytest.mark.parametrize(
    ("axis", "lost", "told"),
    [
        (2, [3], "empty slices along the third axis (number 4 of 9)"),
        (0, [2, 3], "empty slices along the first axis (number 3, 4 of 9)"),
        (1, [1, 2, 3, 4, 5, 7], "empty slices along the second axis (number 2, 3, 4, 5, 6, ... of 9)"),
        (2, [0, 1, 8], None),  # at the ends, as where a scan was padded
    ],
)
def test_slices_lost_between_others_are_told(
    axis: int, lost: list[int], told: str | None, empty: float, tmp_path: Path
) -> None:
    data = ramp(9, 9, 9)
    np.moveaxis(data, axis, 0)[lost] = empty
    warnings = [line for line in load(write(tmp_path / "scan.nii", data, WIDE)).warnings if "slices" in line]
    assert [line.split(";")[0] for line in warnings] == ([told] if told else [])


def test_an_empty_slice_among_faint_ones_is_not_lost(tmp_path: Path) -> None:
    """As at the edge of a head whose face was taken away."""
    data = 100 * ramp(9, 9, 9)
    data[:, :4] = 0
    data[3, 0::2, 3] = [1, 1, *data[3, 4::2, 3]]
    assert not [line for line in load(write(tmp_path / "scan.nii", data, WIDE)).warnings if "slices" in line]


def test_an_even_slope_has_lost_no_slices(tmp_path: Path) -> None:
    data = np.broadcast_to(np.arange(8, dtype=np.float32), (8, 8, 8))
    assert not load(write(tmp_path / "scan.nii", data, WIDE)).warnings


@pytest.mark.parametrize(
    ("scale", "divided"), [(1.0, False), (1e-12, False), (1e12, False), (1e30, True), (1e34, True), (1e-30, True)]
)
def test_grey_values_at_the_limits_of_single_precision_are_scaled(scale: float, divided: bool, tmp_path: Path) -> None:
    data = ramp(6, 6, 6) - 100
    found = load(write(tmp_path / "scan.nii", (data * scale).astype(np.float32), WIDE))
    assert any("divided by 2^" in warning for warning in found.warnings) == divided
    peak = float(np.abs(found.data).max())
    assert not divided or 0.5 <= peak < 1
    np.testing.assert_allclose(found.data / peak, data / np.abs(data).max(), atol=1e-6)
    mask = load(tmp_path / "scan.nii", uniform_ok=True)
    np.testing.assert_allclose(mask.data, data * scale, rtol=1e-5)


@pytest.mark.parametrize(("millimetres", "says"), [(15, None), (12, "its field of view is 240 x 240 x 48 mm")])
def test_a_short_field_of_view_is_said(millimetres: float, says: str | None, tmp_path: Path) -> None:
    affine = np.diag((12.0, 12.0, millimetres, 1.0))
    affine[:3, 3] = 5
    found = load(write(tmp_path / "scan.nii", ramp(20, 20, 4), affine))
    assert [warning.partition(";")[0] for warning in found.warnings] == ([says] if says else [])
    assert not load(tmp_path / "scan.nii", uniform_ok=True).warnings  # a mask may be of a slab


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1), (4, 5)])
def test_one_volume_in_other_dimensions_is_3d(shape: tuple[int, ...], tmp_path: Path) -> None:
    assert load(write(tmp_path / "scan.nii.gz", ramp(*shape), WIDE)).data.shape == ((*shape, 1)[:3])


def test_a_sheared_affine_is_kept_as_it_is(tmp_path: Path) -> None:
    sheared = np.array([[1, 0.2, 0, 3], [0, 1, 0, 4], [0, 0.1, 3, 5], [0, 0, 0, 1]], float)
    path = write(tmp_path / "scan.nii.gz", ramp(6, 6, 20), sheared)
    found = load(path)
    np.testing.assert_allclose(found.affine, sheared, atol=1e-6)
    save(tmp_path / "out.nii.gz", found.data.astype(np.uint16), found.affine, found)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").affine, nib.load(path).affine)
    assert conform(found)[0].shape == (6, 7, 60)


def test_saved_labels_keep_the_scans_geometry_and_leave_no_rest(tmp_path: Path) -> None:
    scan = nib.Nifti1Image(ramp(4, 5, 6).astype(np.int16), None)
    scan.set_qform(WIDE, 1)
    scan.set_sform(WIDE, 4)
    scan.header.set_slope_inter(3, 0)
    nib.save(scan, tmp_path / "scan.nii.gz")
    found = load(tmp_path / "scan.nii.gz")
    save(tmp_path / "seg.nii.gz", np.full((4, 5, 6), 4207, np.uint16), found.affine, found)
    stored = nib.load(tmp_path / "seg.nii.gz")
    assert int(stored.header["sform_code"]) == 4
    assert int(stored.header["qform_code"]) == 1
    assert (np.asarray(stored.dataobj) == 4207).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.nii.gz", "seg.nii.gz"]


@pytest.mark.parametrize(("sform_code", "qform_code"), [(2, 0), (0, 1), (1, 1), (0, 0)])
def test_results_have_the_scans_voxel_sizes_whichever_form_has_them(
    sform_code: int, qform_code: int, tmp_path: Path
) -> None:
    scan = nib.Nifti1Image(ramp(4, 5, 6), None)
    scan.set_qform(WIDE, qform_code)
    scan.set_sform(WIDE, sform_code)
    nib.save(scan, tmp_path / "scan.nii.gz")
    found = load(tmp_path / "scan.nii.gz")
    save(tmp_path / "seg.nii.gz", np.zeros((4, 5, 6), np.uint16), found.affine, found)
    np.testing.assert_allclose(nib.load(tmp_path / "seg.nii.gz").header.get_zooms(), found.spacing_mm)


def test_bytes_are_those_of_a_file(tmp_path: Path) -> None:
    data, affine = np.arange(24, dtype=np.uint16).reshape(2, 3, 4), np.diag([1.0, 2, 3, 1])
    save(tmp_path / "image.nii", data, affine)
    assert nifti_bytes(data, affine) == (tmp_path / "image.nii").read_bytes()
