"""Scans and grids: load any NIfTI, conform it to 1 mm RAS, bring results back to its own grid.

Conforming permutes, flips and rescales the axes but never rotates: an oblique scan keeps its own axes, which lie within
45 degrees of RAS and mostly follow the anatomy. So every step is one matrix per axis, flips are exact, and the way back
loses nothing to interpolation across slices. This is the only user of nibabel and SimpleITK.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bidsseg.errors import FileError
from bidsseg.files import whole

SAME_SPACING = 2e-3
"Spacings this close to 1 mm count as 1 mm: over 256 voxels that is a quarter of a voxel at the edge."
MAX_ASPECT = 1e3
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Image:
    """A scan as stored: its own axes, its own affine."""

    data: Floats
    "(I, J, K), finite."
    affine: NDArray[np.float64]
    "4x4, voxel indices to RAS mm."
    header: nib.Nifti1Header
    "Geometry, units and form codes for images written on the same grid."
    warnings: tuple[str, ...] = ()
    "What was found and repaired in the header or the data."

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Distance of neighbouring voxels along each axis, (3,)."""
        return voxel_spacing_mm(self.affine)

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True)
class Grid:
    """The 1 mm RAS grid of a scan, and how its axes come from the scan's."""

    native_shape: tuple[int, int, int]
    native_affine: NDArray[np.float64]
    orientation: NDArray[np.float64]
    "nibabel orientation (3, 2) from the scan's axes to RAS."
    spacing_mm: NDArray[np.float64]
    "The scan's spacing along the RAS axes, (3,)."
    shape: tuple[int, int, int]
    "Of the 1 mm grid."

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """The scan's shape with its axes in RAS order."""
        order = np.argsort(self.orientation[:, 0])
        i, j, k = (self.native_shape[axis] for axis in order)
        return i, j, k

    @property
    def start(self) -> NDArray[np.float64]:
        """Scan index (RAS axis order) of the 1 mm grid's voxel 0; both fields of view share their centre. (3,)"""
        return (np.array(self.canonical_shape) - 1) / 2 - (np.array(self.shape) - 1) / 2 / self.spacing_mm

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, indices of the 1 mm grid to RAS mm."""
        scale = np.diag((*(1 / self.spacing_mm), 1.0))
        scale[:3, 3] = self.start
        canonical = self.native_affine @ inv_ornt_aff(self.orientation, self.native_shape)
        affine: NDArray[np.float64] = canonical @ scale
        return affine


def voxel_spacing_mm(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column norms of the affine, (3,)."""
    spacing: NDArray[np.float64] = np.sqrt((affine[:3, :3] ** 2).sum(0))
    return spacing


def load(path: Path | str, uniform_ok: bool = False) -> Image:
    """Read a NIfTI scan, repairing what can be repaired.

    Raises ``FileError`` for what can't: not NIfTI, truncated, colour or complex values, several volumes, and,
    unless ``uniform_ok`` (a mask may be empty), one value everywhere.
    """
    path = Path(path)
    try:
        stored = nib.load(path)
        if not isinstance(stored, nib.Nifti1Pair):
            raise FileError(path, f"a {type(stored).__name__}, not NIfTI", "convert it to NIfTI")
        data, warnings = _voxels(path, stored)
        if not uniform_ok and data.max() == data.min():
            raise FileError(path, f"every voxel is {data.flat[0]:g}", "check the export")
    except FileNotFoundError:
        raise FileError(path, "no such file", "check the path") from None
    except (ImageFileError, HeaderDataError) as error:
        raise FileError(path, "not a readable NIfTI, or cut short", "copy or export it again") from error
    except (EOFError, OSError, zlib.error, ValueError) as error:
        raise FileError(path, f"damaged or truncated ({_one_line(error)})", "copy or export it again") from error
    affine, affine_warnings = _usable_affine(stored.header, data.shape)
    header = stored.header.copy()
    header.set_data_shape(data.shape)
    return Image(data, affine, header, tuple(warnings + affine_warnings))


def geometry(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]] | None:
    """Shape and affine (4x4, RAS mm) from a scan's header alone; None where it cannot be read."""
    try:
        stored = nib.load(path)
        shape = (*stored.shape, 1, 1)[:3]
        return shape, _usable_affine(stored.header, shape)[0]
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error, ValueError, AttributeError):
        return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _voxels(path: Path, stored: Any) -> tuple[Floats, list[str]]:
    """The volume as finite float32 (I, J, K), and what was repaired."""
    if stored.get_data_dtype().fields is not None or stored.get_data_dtype().kind not in "iuf":
        kind = "colour (RGB)" if stored.get_data_dtype().fields is not None else str(stored.get_data_dtype())
        raise FileError(path, f"{kind} values", "give a scan with one number per voxel")
    shape = stored.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise FileError(path, f"{len(shape)}D with shape {shape}", "give one 3D volume, for instance the mean")
    if min(shape, default=0) < 1 or len(shape) < 2:
        raise FileError(path, f"shape {stored.shape}", "give a 3D volume")
    shape = (*shape, 1)[:3]
    data = np.asarray(stored.dataobj, dtype=np.float32).reshape(shape)
    warnings = []
    bad = ~np.isfinite(data)
    if bad.any():
        warnings.append(f"{int(bad.sum())} voxels were NaN or infinite; they count as 0")
        data = np.where(bad, np.float32(0), data)
    return data, warnings


def _usable_affine(header: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], list[str]]:
    """The first of sform, qform and plain spacings that describes a grid."""
    warnings = []
    sform, sform_code = header.get_sform(coded=True)
    try:
        qform, qform_code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError):
        qform, qform_code = None, 0
        warnings.append("the qform is not a rotation; it was not used")
    named = [("sform", sform, sform_code), ("qform", qform, qform_code)]
    given = [(name, affine) for name, affine, code in named if code and affine is not None]
    usable = [(name, np.asarray(affine, float)) for name, affine in given if is_usable(np.asarray(affine, float))]
    if len(usable) < len(given):
        warnings.append(
            f"the {'/'.join(name for name, _ in given if name not in dict(usable))} is not an affine of full rank"
        )
    if len(usable) == 2 and _corners_apart_mm(usable[0][1], usable[1][1], shape) > 1:
        warnings.append("sform and qform disagree; the sform was used")
    if usable:
        return usable[0][1], warnings
    spacing = np.array([float(z) if np.isfinite(z) and z > 0 else 1.0 for z in header.get_zooms()[:3]] + [1.0] * 3)[:3]
    affine = np.diag((-spacing[0], spacing[1], spacing[2], 1.0))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    warnings.append(
        "no usable orientation in the header; assumed radiological axes (LAS), so left and right are a guess"
    )
    return affine, warnings


def is_usable(affine: NDArray[np.float64]) -> bool:
    """Whether a 4x4 affine is finite, of full rank, and has plausible voxels."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return False
    singular = np.linalg.svd(affine[:3, :3], compute_uv=False)
    return bool(singular[-1] > 1e-4 and singular[0] / singular[-1] < MAX_ASPECT)


def _corners_apart_mm(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    corners = np.array(np.meshgrid(*((0, n - 1) for n in shape))).reshape(3, -1)
    return float(np.abs((a - b)[:3, :3] @ corners + (a - b)[:3, 3:]).max())


def save(
    path: Path, data: NDArray[Any], affine: NDArray[np.float64], like: Image | None = None, slope: float | None = None
) -> None:
    """Write a NIfTI under a temporary name and move it into place; ``like`` gives units and form codes.

    With a ``slope`` the numbers stand for that many times their value.
    """
    with whole(path) as temporary:
        nib.save(_nifti(data, affine, like, slope), temporary)


def nifti_bytes(data: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """An uncompressed NIfTI file, without touching a disk."""
    content: bytes = _nifti(data, affine).to_bytes()
    return content


def _nifti(
    data: NDArray[Any], affine: NDArray[np.float64], like: Image | None = None, slope: float | None = None
) -> nib.Nifti1Image:
    header = like.header.copy() if like is not None else None
    if header is not None:
        header.set_data_dtype(data.dtype)
        header["scl_slope"], header["scl_inter"] = np.nan, np.nan
        header["cal_max"], header["cal_min"] = 0, 0
    image = nib.Nifti1Image(data, affine, header)
    if image.header.get_xyzt_units()[0] == "unknown":
        image.header.set_xyzt_units("mm")
    if data.ndim > 3:  # the fourth axis is no time, but validators ask for its unit
        image.header.set_xyzt_units("mm", "sec")
    if header is None or not (int(header["sform_code"]) or int(header["qform_code"])):
        image.set_sform(affine, 1)
    elif int(header["sform_code"]):
        image.set_sform(affine, int(header["sform_code"]))
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    return image


def grid_of(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """The 1 mm RAS grid over the field of view of a (I, J, K) scan."""
    orientation = io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    spacing = voxel_spacing_mm(affine)[order]
    spacing = np.where(np.abs(spacing - 1) < SAME_SPACING, 1.0, spacing)
    i, j, k = (max(1, int(np.ceil(shape[axis] * mm - 1e-3))) for axis, mm in zip(order, spacing, strict=True))
    return Grid((shape[0], shape[1], shape[2]), affine, orientation, spacing, (i, j, k))


def conform(image: Image) -> tuple[Floats, Grid]:
    """Resample a scan to 1 mm RAS: (I, J, K) float32 and its grid. Thick slices are interpolated linearly."""
    grid = grid_of(image.data.shape, image.affine)
    volume: Floats = np.ascontiguousarray(apply_orientation(image.data, grid.orientation), dtype=np.float32)
    for axis in np.argsort(-grid.spacing_mm)[::-1]:  # finest first: it shrinks the volume
        volume = along(_to_grid(grid, int(axis)), volume, int(axis))
    return volume, grid


def _to_grid(grid: Grid, axis: int) -> Floats | None:
    """(1 mm voxels, scan voxels) of one RAS axis; None where that is the identity."""
    if grid.spacing_mm[axis] == 1:
        return None
    centres = grid.start[axis] + np.arange(grid.shape[axis]) / grid.spacing_mm[axis]
    return resampling_matrix(centres, grid.canonical_shape[axis], 1 / grid.spacing_mm[axis])


def _from_grid(grid: Grid, axis: int) -> Floats:
    """(scan voxels, 1 mm voxels) of one RAS axis."""
    centres = (np.arange(grid.canonical_shape[axis]) - grid.start[axis]) * grid.spacing_mm[axis]
    return resampling_matrix(centres, grid.shape[axis], float(grid.spacing_mm[axis]))


def resampling_matrix(centres: NDArray[np.float64], n_in: int, width: float) -> Floats:
    """Weights (len(centres), n_in) that resample a row of ``n_in`` samples; every row sums to 1.

    Coordinates are in units of input samples. An output sample ``width`` wide takes each input sample by how much of it
    it covers; one no wider than the input's samples covers one sample's width, which is linear interpolation. So one
    rule both averages on the way down and interpolates on the way up. Beyond the ends the nearest sample counts.
    """
    half = max(width, 1.0) / 2
    sample = np.arange(n_in)
    low = np.maximum(centres[:, None] - half, sample - 0.5)
    high = np.minimum(centres[:, None] + half, sample + 0.5)
    weights = np.clip(high - low, 0, None)
    outside = weights.sum(1) < 1e-6
    weights[outside, np.clip(np.rint(centres[outside]), 0, n_in - 1).astype(int)] = 1
    shares: Floats = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return shares


def along(matrix: Floats | None, volume: Floats, axis: int) -> Floats:
    """Apply an (m, n) matrix to one of the last three axes of (..., I, J, K); None is the identity."""
    if matrix is None:
        return volume
    axis, result = axis - 3 + volume.ndim, volume
    if axis == volume.ndim - 1:
        result = np.matmul(volume, matrix.T)
    elif axis == volume.ndim - 2:
        result = np.matmul(matrix, volume)
    else:
        *lead, i, j, k = volume.shape
        result = (matrix @ volume.reshape(*lead, i, j * k)).reshape(*lead, len(matrix), j, k)
    return result


@dataclass(frozen=True)
class Slab:
    """Some slices of the scan's grid, in RAS axis order, and how to resample channels of a 1 mm box to them."""

    window: tuple[slice, slice, slice]
    "Where it lies in the canonical (RAS-ordered) scan."
    matrices: tuple[Floats | None, Floats | None, Floats | None]
    "By axis; None is the identity."
    used: slice
    "Along the box's first axis."

    def of(self, channels: NDArray[Any], where: NDArray[np.bool_] | None = None) -> Floats:
        """Resample channels (C, I, J, K): (C, i, j, k), or (C, N) of the N voxels of the slab asked for."""
        part: Floats = channels[:, self.used]
        if where is not None and all(matrix is None for matrix in self.matrices):
            return part[:, where].astype(np.float32)
        part = part.astype(np.float32)
        for axis in (2, 1, 0):
            part = along(self.matrices[axis], part, axis)
        return part if where is None else part[:, where]


def slabs(
    box: tuple[int, ...], origin: tuple[int, int, int], grid: Grid, channels: int, max_floats: int = 48_000_000
) -> Iterator[Slab]:
    """Ways back from a box (I, J, K) of the 1 mm grid that begins at ``origin`` onto the scan's own grid.

    A scan voxel thicker than 1 mm gets the mean over its thickness. Yields slabs of which so many channels are at most
    about ``max_floats`` numbers; scan voxels that don't touch the box are left out.
    """
    matrices, windows = [], []
    for axis in range(3):
        matrix = _from_grid(grid, axis)[:, origin[axis] : origin[axis] + box[axis]]
        touched = np.flatnonzero(matrix.sum(1) > 0.5)
        if len(touched) == 0:
            return
        windows.append(slice(int(touched[0]), int(touched[-1]) + 1))
        matrices.append(matrix[windows[-1]] / matrix[windows[-1]].sum(1, keepdims=True))
    largest = [max(len(matrix), n) for matrix, n in zip(matrices, box, strict=True)]
    step = max(1, max_floats // (channels * largest[1] * largest[2]))
    identity = [_is_identity(matrix) for matrix in matrices]
    j, k = (None if same else matrix for same, matrix in zip(identity[1:], matrices[1:], strict=True))
    for first in range(0, len(matrices[0]), step):  # along the axis whose slices lie together in memory
        rows = matrices[0][first : first + step]
        hit = np.flatnonzero(rows.any(0))
        used = slice(int(hit[0]), int(hit[-1]) + 1)
        i = None if identity[0] else rows[:, used]
        window = slice(windows[0].start + first, windows[0].start + first + len(rows))
        yield Slab((window, windows[1], windows[2]), (i, j, k), used)


def _is_identity(matrix: Floats) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32))


def to_native_axes(volume: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """(I, J, K) in RAS axis order -> the scan's own axis order and directions."""
    ras = np.array([[0, 1], [1, 1], [2, 1]], float)
    return np.ascontiguousarray(apply_orientation(volume, ornt_transform(ras, grid.orientation)))


def normalise(volume: Floats) -> Floats:
    """Grey values to 0-1: the 0.5th and 99.5th percentile of what is brighter than the darkest value."""
    sample = volume.reshape(-1)[:: max(1, volume.size // 500_000)]
    sample = sample[sample > sample.min()]
    if sample.size == 0:
        return np.zeros(volume.shape, np.float32)
    low, high = np.percentile(sample, (0.5, 99.5))
    scaled: Floats = np.clip((volume - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    return scaled


def correct_bias(image: Image, threads: int = 1) -> Image:
    """N4 bias field correction (Tustison et al. 2010, doi 10.1109/TMI.2010.2046908), fitted at about 4 mm.

    SimpleITK sees spacings but no directions, so that no header can be refused.
    """
    scan = sitk.GetImageFromArray(np.ascontiguousarray((image.data - image.data.min()).T))
    scan.SetSpacing([float(mm) for mm in image.spacing_mm])
    factors = [max(1, min(int(4 // mm), n // 4 or 1)) for mm, n in zip(image.spacing_mm, image.data.shape, strict=True)]
    small = sitk.Shrink(scan, factors)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(threads)
    n4.SetMaximumNumberOfIterations([30, 20, 10])
    if min(small.GetSize()) < 4:  # fewer samples than the spline has control points
        return image
    n4.Execute(small, sitk.OtsuThreshold(small, 0, 1))
    field = np.exp(_enlarged(n4.GetLogBiasFieldAsImage(small), scan))
    return Image((image.data / np.maximum(field, 1e-3)).astype(np.float32), image.affine, image.header, image.warnings)


def _enlarged(small: sitk.Image, scan: sitk.Image) -> Floats:
    """A smooth image, shrunk from a scan, on the scan's grid (I, J, K); linear, which is as good as the spline here."""
    field: Floats = sitk.GetArrayFromImage(small).T.astype(np.float32)
    for axis, (n, mm) in enumerate(zip(scan.GetSize(), scan.GetSpacing(), strict=True)):
        centres = (np.arange(n) * mm + scan.GetOrigin()[axis] - small.GetOrigin()[axis]) / small.GetSpacing()[axis]
        field = along(resampling_matrix(centres, field.shape[axis], mm / small.GetSpacing()[axis]), field, axis)
    return field
