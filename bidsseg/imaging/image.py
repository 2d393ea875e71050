"""Scans in files: load any NIfTI, repair what can be repaired, save results with the scan's geometry."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from bidsseg.authorship import voxels_mark
from bidsseg.errors import FileError
from bidsseg.files import whole
from bidsseg.imaging.arrays import Floats, voxel_volume_mm3

Geometry = tuple[tuple[int, ...], NDArray[np.float64]]
"Shape of a volume, and its affine: 4x4, to RAS mm."
SAME_MM = 0.1
MAX_ASPECT = 1e3
MAX_EXTENT_MM = 1000
"Of a field of view; a larger one has its voxel size in other units, and no memory would hold it at 1 mm."


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
    def geometry(self) -> Geometry:
        return self.data.shape, self.affine

    @property
    def voxel_volume_mm3(self) -> float:
        return voxel_volume_mm3(self.affine)


def voxel_spacing_mm(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column norms of the affine, (3,)."""
    spacing: NDArray[np.float64] = np.sqrt((affine[:3, :3] ** 2).sum(0))
    return spacing


def load(path: Path | str, uniform_ok: bool = False) -> Image:
    """Read a NIfTI scan, repairing what can be repaired.

    Raises ``FileError`` for what can't: no permission, not NIfTI, truncated, colour or complex values, several volumes,
    a field of view beyond ``MAX_EXTENT_MM``, and, unless ``uniform_ok`` (a mask may be empty), one value everywhere.
    """
    path = Path(path)
    if os.path.exists(path) and not os.access(path, os.R_OK):  # nibabel would take it for no NIfTI
        raise FileError(path, "no permission to read it", "ask for access")
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
    longest = max(voxel_spacing_mm(affine) * data.shape)
    if longest > MAX_EXTENT_MM:
        raise FileError(path, f"its field of view is {longest:.0f} mm long", "check the voxel size in its header")
    header = stored.header.copy()
    header.set_data_shape(data.shape)
    return Image(data, affine, header, tuple(warnings + affine_warnings))


def is_same_grid(one: Geometry, other: Geometry) -> bool:
    """Whether two volumes have one grid, to a tenth of a millimetre at every corner."""
    return one[0] == other[0] and corners_apart_mm(one[1], other[1], one[0]) < SAME_MM


def geometry(path: Path) -> Geometry | None:
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
    if len(usable) == 2 and corners_apart_mm(usable[0][1], usable[1][1], shape) > 1:
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


def corners_apart_mm(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """How far two affines, 4x4, put a corner of a volume apart at most, along any axis of the world."""
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
    image.header["descrip"] = voxels_mark(data)
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
