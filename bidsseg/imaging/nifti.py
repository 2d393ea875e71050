"""Headers of NIfTI-1, NIfTI-2 and Analyze 7.5 images, single files and pairs.

Headers are taken as other readers take them: what is merely off by rounding, or left empty, is no error.
"""

from __future__ import annotations

import io
import math
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bidsseg.errors import FileError
from bidsseg.imaging.affines import Affine, Placement, axes_affine, is_usable, placed_at, placement
from bidsseg.imaging.stored import Block, Shape, Stored, check_is_file, checked_shape

ANALYZE_AXES = {0: "LAS", 1: "LSA", 2: "ASL", 3: "LPS", 4: "LIA", 5: "ASR"}
"""Where the axes of an Analyze image lead, by its code of orientation: transverse, coronal, sagittal, and the same
flipped. As ITK 4 reads them, after the Analyze 7.5 format of the Mayo Clinic."""
ANALYZE_ORIENT_AT, ANALYZE_SIZE = 252, 348
MOST_MAT_BYTES = 100_000


@dataclass(frozen=True)
class Version:
    """One version of NIfTI."""

    header: Any
    "nibabel's class of its headers."
    size: int
    "Bytes of the header, which are also its first number."
    magic_at: int
    single: bytes
    "The magic of a file that holds the voxels too; that of a pair begins with ``ni``."

    @property
    def pair(self) -> bytes:
        return b"ni" + self.single[2:]


VERSIONS = (Version(nib.Nifti1Header, 348, 344, b"n+1\0"), Version(nib.Nifti2Header, 540, 4, b"n+2\0"))


def header_file(path: Path) -> Path:
    """The file with the header: the .hdr where a pair's .img is given."""
    if _ending(path) not in (".img", ".img.gz"):
        return path
    return _sibling(path, "hdr") or path


def version_of(head: bytes) -> Version | None:
    """Which NIfTI a file is that begins with these bytes; None for anything else."""
    found = (v for v in VERSIONS if len(head) >= v.size and head[v.magic_at :][:4] in (v.single, v.pair))
    return next(found, None)


def is_analyze(head: bytes) -> bool:
    """Whether an image without NIfTI's magic has the header of Analyze 7.5."""
    sizes = (struct.pack("<i", ANALYZE_SIZE), struct.pack(">i", ANALYZE_SIZE))
    return len(head) >= ANALYZE_SIZE and head[:4] in sizes


def read_nifti(path: Path, named: Path, head: bytes, version: Version) -> Stored:
    """Describe a NIfTI image; ``named`` is the file that holds the header, and begins with ``head``."""
    order = _byte_order(head, version)
    fields = version.header(head[: version.size], endianness=order, check=False)
    shape = _shape(path, fields)
    dtype = _dtype(path, int(fields["datatype"]), order)
    slope, intercept, warnings = _scaling(fields)
    single = head[version.magic_at :][:4] == version.single
    offset, more = _offset(path, fields, head, version) if single else (_pair_offset(fields), [])
    voxels_in = named if single else _voxel_file(named)
    block = Block(voxels_in, dtype, offset, slope=slope, intercept=intercept)
    return Stored(path, shape, placement(fields, shape), block, tuple(warnings + more))


def read_analyze(path: Path, named: Path, head: bytes) -> Stored:
    """Describe an Analyze image, whose header knows which way the slices were taken, but neither place nor side."""
    order = _byte_order(head, VERSIONS[0])
    fields = nib.Nifti1Header(head[:ANALYZE_SIZE], endianness=order, check=False)
    shape = _shape(path, fields)
    dtype = _dtype(path, int(fields["datatype"]), order)
    slope, _, warnings = _scaling(fields)  # SPM's; what NIfTI calls the intercept is unused
    block = Block(_voxel_file(named), dtype, _pair_offset(fields), slope=slope)
    return Stored(path, shape, _placed_analyze(named, fields, shape, head[ANALYZE_ORIENT_AT]), block, tuple(warnings))


def _placed_analyze(named: Path, fields: Any, shape: Shape, orient: int) -> Placement:
    """By the .mat that SPM writes beside a pair, else by the code of orientation."""
    known = _sibling(named, "mat")
    affine = None if known is None else _affine_of_mat(known)
    if affine is not None:
        return placed_at(affine, shape)
    spacing = np.abs(np.asarray(fields["pixdim"][1:4], np.float64))
    sizes = spacing if is_usable(np.diag((*spacing, 1.0))) else np.ones(3)
    axes = ANALYZE_AXES.get(orient, ANALYZE_AXES[0])
    found = placed_at(axes_affine(axes, sizes, shape), shape)
    warning = (
        f"an Analyze image: its header does not say where left and right are; the axes were assumed to be {axes}, "
        "so left and right are a guess"
    )
    return replace(found, warnings=(warning,))


def _affine_of_mat(path: Path) -> Affine | None:
    """The affine in a .mat file of SPM, from voxels counted from 0; None where there is none that can be used."""
    from scipy.io import loadmat  # a fifth of a second, for files that hardly any image has

    try:
        if path.stat().st_size > MOST_MAT_BYTES:
            return None
        found = loadmat(io.BytesIO(path.read_bytes()))
        flipped = found["mat"] if "mat" in found else np.diag((-1, 1, 1, 1)) @ found["M"]
        from_one = np.eye(4)
        from_one[:3, 3] = 1
        affine: Affine = np.asarray(flipped, np.float64) @ from_one
    except Exception:  # of many kinds; the image is read without it
        return None
    return affine if is_usable(affine) else None


def _voxel_file(header: Path) -> Path:
    found = _sibling(header, "img")
    if found is None:
        raise FileError(header, "the .img file with its voxels is missing", "copy both files")
    check_is_file(found)
    return found


def _ending(path: Path) -> str:
    name = path.name.lower()
    return "".join(Path(name).suffixes[-2:]) if name.endswith(".gz") else path.suffix.lower()


def _sibling(path: Path, kind: str) -> Path | None:
    """The other file of a pair, compressed or not, in lower or upper case."""
    stem = path.name[: len(path.name) - len(_ending(path))]
    names = (f"{stem}{ending}" for end in (f".{kind}", f".{kind}.gz") for ending in (end, end.upper()))
    return next((path.with_name(name) for name in names if os.path.lexists(path.with_name(name))), None)


def _byte_order(head: bytes, version: Version) -> str:
    """By the header's size, which is its first number, else by the count of dimensions."""
    dimensions, at = ("h", 40) if version.size == 348 else ("q", 16)
    for order in "<>":
        if struct.unpack_from(f"{order}i", head)[0] == version.size:
            return order
    for order in "<>":
        if 1 <= struct.unpack_from(order + dimensions, head, at)[0] <= 7:
            return order
    return "<"


def _shape(path: Path, fields: Any) -> Shape:
    """The shape of the single volume, by the count of dimensions and their sizes."""
    dimensions, *sizes = (int(n) for n in fields["dim"])
    if not 2 <= dimensions <= 7:
        raise FileError(path, f"{dimensions} dimensions in its header", "give a 3D volume")
    return checked_shape(path, sizes[:dimensions])


def _dtype(path: Path, code: int, order: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(nib.nifti1.data_type_codes.dtype[code])
    except (KeyError, TypeError):
        raise FileError(
            path, f"datatype {code} in its header, which NIfTI does not define", "export it again"
        ) from None
    if dtype.fields is not None:
        raise FileError(path, "colour (RGB) values", "give a scan with one number per voxel")
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise FileError(path, f"{dtype.name} values", "give a scan with one number per voxel")
    ordered: np.dtype[Any] = dtype.newbyteorder("<" if order == "<" else ">")
    return ordered


def _scaling(fields: Any) -> tuple[float, float, list[str]]:
    """Slope, intercept and warnings; a slope of 0 or none means that there is no scaling."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0, []
    if not math.isfinite(intercept):
        return slope, 0.0, [f"scl_inter is {intercept}; it was not used"]
    return slope, intercept, []


def _offset(path: Path, fields: Any, head: bytes, version: Version) -> tuple[int, list[str]]:
    """Where the voxels begin in a file that holds header and voxels, and warnings."""
    given, least = float(fields["vox_offset"]), version.size + 4
    if math.isfinite(given) and least <= round(given):
        return round(given), []
    if head[version.size : least][:1] not in (b"\0", b""):
        raise FileError(path, f"vox_offset {given:g} in its header, though extensions follow it", "export it again")
    return least, [f"vox_offset is {given:g}; the voxels were read from byte {least}, where the header ends"]


def _pair_offset(fields: Any) -> int:
    given = float(fields["vox_offset"])
    return int(given) if math.isfinite(given) and given > 0 else 0
