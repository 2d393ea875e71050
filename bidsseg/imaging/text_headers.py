"""Images whose header is text: NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd), as 3D Slicer and ITK write them.

NRRD is described at teem.sourceforge.net/nrrd/format.html, MetaImage in ITK's wiki under MetaIO. The voxels follow the
header, or lie in a file beside it; a header may not lead to a file in another folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import FileError
from bidsseg.imaging.affines import Affine, Placement, axes_affine, is_usable, placed_at, to_ras
from bidsseg.imaging.stored import Block, Packing, Shape, Stored, check_is_file, checked_shape, content, one_line

Fields = dict[str, str]
Known = TypeVar("Known")
LONGEST_HEADER = 1 << 20
LONGEST_LINE = 1 << 16
NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
NRRD_PACKINGS: dict[str, Packing] = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("gz", "gzip"), "gzip"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
}
NRRD_SPACES: dict[str, Callable[[Affine], Affine]] = {
    **dict.fromkeys(("left-posterior-superior", "lps"), to_ras),
    **dict.fromkeys(("right-anterior-superior", "ras"), np.array),
    **dict.fromkeys(("left-anterior-superior", "las"), lambda affine: np.diag((-1.0, 1.0, 1.0, 1.0)) @ affine),
}
"From the space that a header names to right, anterior, superior."
META_TYPES = {
    "met_char": "i1", "met_uchar": "u1", "met_short": "i2", "met_ushort": "u2", "met_int": "i4", "met_uint": "u4",
    "met_long_long": "i8", "met_ulong_long": "u8", "met_float": "f4", "met_double": "f8",
}  # fmt: skip
GUESS = "no orientation in its header; the axes were assumed to be LAS, so left and right are a guess"


def is_nrrd(head: bytes) -> bool:
    return head.startswith(b"NRRD00")


def is_metaimage(head: bytes) -> bool:
    """Whether a text that names a type of object, or the count of dimensions first, begins a MetaImage."""
    start = head[:512].decode("latin-1")
    return re.match(r"ObjectType\s*=", start) is not None or re.match(r"NDims\s*=", start) is not None


def read_nrrd(path: Path) -> Stored:
    """Describe an NRRD image; ``FileError`` for what it leaves out, and for voxels as text."""
    fields, end = _header(path, ":", lambda line, _: line == "")
    with _plain(path):
        sizes = [int(word) for word in _required(path, fields, "sizes").split()]
        directions = _vectors(fields.get("space directions", ""))
        sizes = [n for n, axis in zip(sizes, directions or sizes, strict=True) if axis is not None or n != 1]
        shape = checked_shape(path, sizes)
        packing = _chosen(path, fields, "encoding", NRRD_PACKINGS)
        kind = _chosen(path, fields, "type", NRRD_TYPES)
        detached = fields.get("data file", fields.get("datafile"))
        skip = int(fields.get("byte skip", fields.get("byteskip", "0")))
        lines = int(fields.get("line skip", fields.get("lineskip", "0")))
        placed = _placed_nrrd(fields, [axis for axis in directions if axis is not None], shape)
    dtype = np.dtype(kind).newbyteorder(">" if fields.get("endian") == "big" else "<")
    if lines != 0 or skip < 0 or (skip > 0 and packing != "raw"):
        raise FileError(path, "an NRRD image that skips a part of its data file", "save it again, in one file")
    if detached is None:
        return Stored(path, shape, placed, Block(path, dtype, end + skip, packing))
    whole_file: Packing = "raw" if packing == "gzip" else packing  # gzip around a whole file is undone in any case
    return Stored(path, shape, placed, Block(_beside(path, detached), dtype, skip, whole_file))


def read_metaimage(path: Path) -> Stored:
    """Describe a MetaImage; ``FileError`` for what it leaves out, and for voxels as text or in many files."""
    fields, end = _header(path, "=", lambda _, key: key == "ElementDataFile")
    with _plain(path):
        shape = checked_shape(path, [int(word) for word in _required(path, fields, "DimSize").split()])
        kind = _chosen(path, fields, "ElementType", META_TYPES)
        skip = int(fields.get("HeaderSize", "0"))
        placed = _placed_metaimage(path, fields, shape)
    if fields.get("ObjectType", "Image") != "Image" or not _is_true(fields, "BinaryData", "True"):
        raise FileError(path, "a MetaImage without binary voxels", "save it in binary form")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise FileError(path, "several values per voxel", "give a scan with one number per voxel")
    named = _required(path, fields, "ElementDataFile")
    if named.split()[0].upper() == "LIST" or "%" in named or skip < 0:
        raise FileError(path, "a MetaImage whose voxels are in several files", "save it again, in one file")
    high_first = _is_true(fields, "ElementByteOrderMSB", fields.get("BinaryDataByteOrderMSB", "False"))
    dtype = np.dtype(kind).newbyteorder(">" if high_first else "<")
    local = named.upper() == "LOCAL"
    packing: Packing = "zlib" if _is_true(fields, "CompressedData", "False") else "raw"
    before = (end if local else 0) + skip
    return Stored(path, shape, placed, Block(path if local else _beside(path, named), dtype, before, packing))


def _placed_nrrd(fields: Fields, directions: list[NDArray[np.float64]], shape: Shape) -> Placement:
    space = fields.get("space", "").lower()
    if len(directions) == 3 and space in NRRD_SPACES:
        affine = np.eye(4)
        affine[:3, :3] = np.stack(directions, 1)
        origin = _vectors(fields.get("space origin", ""))
        if origin and origin[0] is not None:
            affine[:3, 3] = origin[0]
        return placed_at(NRRD_SPACES[space](affine), shape)
    spacings = [float(np.linalg.norm(axis)) for axis in directions]
    return _guess(spacings or [float(word) for word in fields.get("spacings", "").split()], shape)


def _placed_metaimage(path: Path, fields: Fields, shape: Shape) -> Placement:
    """By ``TransformMatrix``, whose every three numbers are the direction of an axis, and ``Offset``, in LPS."""
    spacing = [float(word) for word in fields.get("ElementSpacing", fields.get("ElementSize", "")).split()]
    matrix = _first_of(fields, "TransformMatrix", "Rotation", "Orientation")
    offset = _first_of(fields, "Offset", "Position", "Origin")
    if matrix is None or not spacing:
        return _guess(spacing, shape)
    directions = [float(word) for word in matrix.split()]
    size = round(len(directions) ** 0.5)
    if len(directions) != size**2 or size not in (3, 4) or len(spacing) != size:
        raise FileError(
            path, "a TransformMatrix or ElementSpacing that does not fit the dimensions of its image", "save it again"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(directions, (size, size))[:3, :3].T * spacing[:3]
    if offset is not None:
        affine[:3, 3] = [float(word) for word in offset.split()][:3]
    return placed_at(to_ras(affine), shape)


def _guess(spacings: list[float], shape: Shape) -> Placement:
    sizes = np.abs((*spacings, 1.0, 1.0, 1.0)[:3])
    known = sizes if is_usable(np.diag((*sizes, 1.0))) else np.ones(3)
    return placed_at(axes_affine("LAS", known, shape), shape, (GUESS,))


def _header(path: Path, separator: str, is_last: Callable[[str, str], bool]) -> tuple[Fields, int]:
    """The fields of a text header, and at which byte the voxels may begin."""
    fields: Fields = {}
    with one_line(path), content(path) as (stream, _):
        end = 0
        while end < LONGEST_HEADER:
            line, size = _next_line(stream)
            if size == 0:
                return fields, end
            end += size
            key, found, value = line.partition(separator)
            if found and not line.startswith("#") and not value.startswith("="):  # := is metadata
                fields.setdefault(key.strip(), value.strip())
            if is_last(line, key.strip()):
                return fields, end
    raise FileError(path, "a header without an end", "copy or export it again")


def _next_line(stream: BinaryIO) -> tuple[str, int]:
    """A line without its end, and its length with it."""
    line = stream.readline(LONGEST_LINE)
    return line.rstrip(b"\r\n").decode("utf-8", "replace"), len(line)


@contextmanager
def _plain(path: Path) -> Iterator[None]:
    """Words that should be numbers become one line."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise FileError(path, f"a header that cannot be read ({error})", "save it again") from None


def _vectors(text: str) -> list[NDArray[np.float64] | None]:
    """The vectors of ``none (1,0,0) (0,1,0)``; None for an axis that is no axis of space."""
    found: list[NDArray[np.float64] | None] = []
    for word in re.findall(r"none|\([^)]*\)", text):
        numbers = [float(number) for number in word.strip("()").split(",")] if word != "none" else None
        if numbers is not None and len(numbers) != 3:
            raise ValueError(f"{word} does not have three numbers")
        found.append(None if numbers is None else np.array(numbers))
    return found


def _required(path: Path, fields: Fields, key: str) -> str:
    if not fields.get(key):
        raise FileError(path, f"a header without {key}", "copy or export it again")
    return fields[key]


def _chosen(path: Path, fields: Fields, key: str, known: dict[str, Known]) -> Known:
    value = _required(path, fields, key)
    if value.lower() not in known:
        raise FileError(path, f"{key} {value}", "save it as numbers, one per voxel, raw or compressed with gzip")
    return known[value.lower()]


def _is_true(fields: Fields, key: str, default: str) -> bool:
    return fields.get(key, default).lower() in ("true", "t", "1", "yes")


def _first_of(fields: Fields, *keys: str) -> str | None:
    return next((fields[key] for key in keys if key in fields), None)


def _beside(path: Path, name: str) -> Path:
    """The file with the voxels, which must lie in the folder of its header."""
    if Path(name).name != name:
        raise FileError(path, f"its header refers to voxels in {name}", "put both files into one folder")
    file = path.with_name(name)
    check_is_file(file)
    return file
