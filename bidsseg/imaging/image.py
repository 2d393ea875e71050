"""Scans in files: load any NIfTI, repair what can be repaired, save results with the scan's geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bidsseg.authorship import voxels_mark
from bidsseg.errors import FileError
from bidsseg.files import whole
from bidsseg.imaging.affines import (
    LONGEST_HEAD_MM,
    SHORTEST_HEAD_MM,
    corners_apart_mm,
    in_mm,
    voxel_spacing_mm,
)
from bidsseg.imaging.arrays import Floats, first_axis_fastest, voxel_volume_mm3
from bidsseg.imaging.formats import read_header, read_voxels
from bidsseg.imaging.grid import Grid, grid_of
from bidsseg.imaging.mgh import save_mgz

GridGeometry = tuple[tuple[int, ...], NDArray[np.float64]]
"Shape of a volume, and its affine: 4x4, to RAS mm."
SAME_MM = 0.1
SHORT_SIDE_MM = 60.0
"A field of view with a shorter side may be a slab, or have a wrong voxel size."
LARGEST_FIELD_MM3 = 40e6
"The largest field of view, 342 mm cubed; if all of it is tissue, the network takes 4 GB at 1 mm."
FAINT = 0.02
"Of the contrast that most slices have: what has less is the edge of a scan, or was taken away from it."
LOST_NAMED = 5
"Lost slices that a warning gives the numbers of."

LARGEST_EXPONENT = 64
"Grey values beyond this power of two, up or down, are scaled: sums and products of them would leave single precision."


@dataclass(frozen=True)
class Image:
    """A scan as stored: its own axes, its own affine."""

    data: Floats
    "(I, J, K), finite."
    affine: NDArray[np.float64]
    "4x4, voxel indices to RAS mm."
    header: nib.Nifti1Header = field(default_factory=nib.Nifti1Header)
    "Geometry, units and form codes for images written on the same grid."
    warnings: tuple[str, ...] = ()
    "What was found and repaired in the header or the data."
    slices: tuple[Path, ...] = ()
    "The files that it was read from, in the order of the third axis, where it is a DICOM series."

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Distance of neighbouring voxels along each axis, (3,)."""
        return voxel_spacing_mm(self.affine)

    @cached_property
    def grid(self) -> Grid:
        """The 1 mm RAS grid over the scan's field of view, which the network sees."""
        return grid_of(self.data.shape, self.affine)

    @property
    def geometry(self) -> GridGeometry:
        return self.data.shape, self.affine

    @property
    def voxel_volume_mm3(self) -> float:
        return voxel_volume_mm3(self.affine)


def at_1mm(data: Floats) -> Image:
    """Grey values (I, J, K) made by a program, on the 1 mm RAS grid whose first voxel lies at 0."""
    return Image(data, np.eye(4))


def in_mni(data: NDArray[Any], affine: NDArray[np.float64]) -> Image:
    """Grey values (I, J, K) on the grid of an MNI152 template; the header says so."""
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape)
    header.set_sform(affine, "mni")
    return Image(data.astype(np.float32, copy=False), affine, header)


def load(path: Path | str, uniform_ok: bool = False, series: str | None = None) -> Image:
    """Read a scan, repairing what can be repaired: a NIfTI, Analyze, MGH, NRRD or MetaImage file, or a DICOM folder.

    ``series`` chooses among several DICOM series in a folder, by number or UID. Raises ``FileError`` for what can't be
    repaired: no permission, no image, damaged or cut short, colour or complex values, several volumes, slices that are
    missing, a field of view that is too large. Unless ``uniform_ok`` (a mask may be empty, and small), also for
    one value everywhere and for a field of view too small for a brain.
    """
    path = Path(path)
    stored = read_header(path, series)
    placed = stored.placed
    warnings = [*stored.warnings, *placed.warnings, *_check_extent(path, stored.shape, placed.affine, uniform_ok)]
    data, odd = read_voxels(stored)
    bad = ~np.isfinite(data)
    if not uniform_ok and bad.all():
        raise FileError(path, "no voxel has a finite value", "check the export")
    if bad.any():
        odd.append(f"{int(bad.sum())} voxels were NaN or infinite; they were set to 0")
        data[bad] = 0
    if not uniform_ok and data.max() == data.min():
        raise FileError(path, f"every voxel has the value {data.flat[0]:g}", "check the export")
    exponent = _exponent(data)
    if not uniform_ok and abs(exponent) > LARGEST_EXPONENT:
        data = np.ldexp(data, -exponent)
        odd.append(f"grey values near the limits of single precision; they were divided by 2^{exponent}")
    if not uniform_ok:
        odd += _lost_slices(data)
    return Image(data, placed.affine, placed.header, (*odd, *warnings), stored.slices)


def _lost_slices(data: Floats) -> list[str]:
    """A warning for each axis of a scan (I, J, K) on which slices of one value everywhere lie between others."""
    warnings = []
    for axis in range(3):
        rest = tuple(other for other in range(3) if other != axis)
        contrast = data.max(axis=rest) - data.min(axis=rest)
        usual = np.median(contrast[contrast > 0]) if contrast.any() else 0
        shown = np.flatnonzero(contrast > FAINT * usual)
        between = (number for before, after in pairwise(shown) for number in range(before + 1, after))
        lost = [number + 1 for number in between if not contrast[number]]
        if lost:
            named = ", ".join(map(str, lost[:LOST_NAMED])) + (", ..." if len(lost) > LOST_NAMED else "")
            warnings.append(
                f"empty slices along the {('first', 'second', 'third')[axis]} axis (number {named} of "
                f"{data.shape[axis]}); what is found in them is a guess"
            )
    return warnings


def _exponent(data: Floats) -> int:
    """The power of two just above the largest magnitude."""
    return int(np.frexp(max(abs(float(data.max())), abs(float(data.min()))))[1])


def _check_extent(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64], any_small: bool) -> tuple[str, ...]:
    """Raise ``FileError`` for a field of view that holds no head or that memory would not hold; warn of a short one."""
    extent = voxel_spacing_mm(affine) * shape
    found, advice = f"its field of view is {in_mm(extent)}", "check the voxel size in its header"
    if extent.max() > LONGEST_HEAD_MM or extent.prod() > LARGEST_FIELD_MM3:
        raise FileError(path, found, advice)
    if any_small or extent.min() >= SHORT_SIDE_MM:
        return ()
    if extent.max() < SHORTEST_HEAD_MM:
        raise FileError(path, f"{found}, too small for a brain", advice)
    return (f"{found}; {advice}",)


def is_same_grid(one: GridGeometry, other: GridGeometry) -> bool:
    """Whether two volumes have one grid, to a tenth of a millimetre at every corner."""
    return one[0] == other[0] and corners_apart_mm(one[1], other[1], one[0]) < SAME_MM


def has_voxels_of(one: GridGeometry, other: GridGeometry) -> bool:
    """Whether the voxels of a volume are those of another, to a tenth of a millimetre at every corner.

    Their axes may have another order and direction, and either field of view may be larger.
    """
    steps = np.rint(np.linalg.inv(other[1]) @ one[1])
    turn = np.abs(steps[:3, :3])
    one_to_one = bool((turn.sum(0) == 1).all() and (turn.sum(1) == 1).all())
    return one_to_one and corners_apart_mm(one[1], other[1] @ steps, one[0]) < SAME_MM


def read_geometry(path: Path) -> GridGeometry | None:
    """Shape and affine (4x4, RAS mm) from a scan's header alone; None where it cannot be read."""
    try:
        stored = read_header(path)
    except FileError:
        return None
    return stored.shape, stored.placed.affine


def save(
    path: Path, data: NDArray[Any], affine: NDArray[np.float64], like: Image | None = None, slope: float | None = None
) -> None:
    """Write an image under a temporary name and move it into place; ``like`` gives units and form codes.

    A name that ends in .mgz makes it FreeSurfer's format, all others NIfTI; of NIfTI with a ``slope`` the numbers stand
    for that many times their value.
    """
    with whole(path) as temporary:
        if path.name.endswith(".mgz"):
            save_mgz(temporary, data, affine)
            return
        ordered = first_axis_fastest(data) if data.ndim == 3 else data
        nib.save(_nifti(ordered, affine, like, slope), temporary)


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
    if not int(image.header["qform_code"]):  # a qform comes with its voxel sizes, a sform does not
        image.header["pixdim"][1:4] = voxel_spacing_mm(affine)
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    return image
