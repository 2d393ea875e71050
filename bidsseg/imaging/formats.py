"""The only reader of images: recognises a file by its first bytes and reads NIfTI files to their last byte.

Headers are taken as other readers take them: what is merely off by rounding, or left empty, is no error. Whatever the
memory would not hold is refused from the header alone, before any voxel is read.
"""

from __future__ import annotations

import errno
import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import FileError

Floats = NDArray[np.float32]

GZIP = b"\x1f\x8b"
MOST_LAYERS = 2
"A file may be compressed by gzip twice by accident, but not more often."
MOST_DEFLATED = 1040
"Bytes that one byte of a gzip file can stand for; deflate reaches 1032."
HEAD_BYTES = 1024
MOST_VOXELS = 160_000_000
"A scan of 512 x 512 x 512 voxels has 134 million."
LONGEST_SIDE = 32_767
"Voxels: NIfTI-1, which results are written in, has no more."
FOLLOWS_AT_MOST = 64 << 20
"Bytes after the voxels that are read to reach the checksum; more is no image."
CHUNK = 1 << 20
"Voxels that are converted to float32 at once."

SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (128, b"DICM", "a DICOM file", "convert its series to NIfTI, for instance by dcm2niix"),
    (0, b"NRRD", "an NRRD image", "convert it to NIfTI"),
    (0, b"\x89HDF", "an HDF5 or MINC file", "convert it to NIfTI"),
    (0, b"CDF\x01", "a MINC file", "convert it to NIfTI"),
    (0, b"\0\0\0\1\0\0", "a FreeSurfer MGH image", "convert it to NIfTI, for instance by mri_convert"),
    (0, b"ObjectType", "a MetaImage", "convert it to NIfTI"),
    (
        0,
        b"/annex/objects/",
        "a git-annex pointer: the image is not downloaded",
        "fetch it, for instance by datalad get",
    ),
    (0, b"version https://git-lfs", "a Git LFS pointer: the image is not downloaded", "fetch it by git lfs pull"),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (0, b"BZh", "compressed by bzip2", "unpack it, or compress it by gzip"),
    (0, b"\xfd7zXZ", "compressed by xz", "unpack it, or compress it by gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it, or compress it by gzip"),
    (0, b"\x89PNG", "a PNG picture", "give the scan as NIfTI"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "give the scan as NIfTI"),
    (0, b"%PDF", "a PDF", "give the scan as NIfTI"),
)
"Where a signature lies, its bytes, what has it, and what to do about it."


@dataclass(frozen=True)
class Format:
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


FORMATS = (Format(nib.Nifti1Header, 348, 344, b"n+1\0"), Format(nib.Nifti2Header, 540, 4, b"n+2\0"))


@dataclass(frozen=True)
class Stored:
    """An image in a file, as its header describes it."""

    path: Path
    voxels_in: Path
    "The file itself, or the .img of a pair."
    fields: Any
    "nibabel's header, unchecked."
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    "The type of one voxel, with its byte order."
    offset: int
    "Bytes before the first voxel."
    slope: float
    intercept: float
    warnings: tuple[str, ...] = ()
    "Faults of the header, and the values that were used instead."

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> Stored:
    """Describe an image from its first bytes.

    Raises ``FileError``, which says what the file really is, for all that is no NIfTI image of one volume of real
    numbers, or that is larger than ``MOST_VOXELS``.
    """
    named = _header_file(path)
    head = _head(named)
    if not head:
        raise FileError(path, "an empty file", "copy or export it again")
    version = _version(named, head)
    order = _byte_order(head, version)
    fields = version.header(head[: version.size], endianness=order, check=False)
    shape = _shape(path, fields)
    dtype = _dtype(path, int(fields["datatype"]), order)
    slope, intercept, warnings = _scaling(fields)
    single = head[version.magic_at :][:4] == version.single
    offset, more = _offset(path, fields, head, version) if single else (_pair_offset(fields), [])
    voxels_in = named if single else _voxel_file(named)
    return Stored(path, voxels_in, fields, shape, dtype, offset, slope, intercept, tuple(warnings + more))


def read_voxels(stored: Stored) -> tuple[Floats, list[str]]:
    """The scaled voxels as float32, in Fortran order, and what is odd about them.

    The file is read to its end, so that the checksum of a compressed one is compared. Raises ``FileError`` for one that
    is damaged or cut short.
    """
    with _one_line(stored.path), _content(stored.voxels_in) as (stream, layers):
        _check_size(stored, layers)
        _skip(stream, stored.offset)
        values = np.empty(stored.count, np.float32)
        for start in range(0, stored.count, CHUNK):
            count = min(CHUNK, stored.count - start)
            raw = np.frombuffer(_exactly(stream, count * stored.dtype.itemsize), stored.dtype)
            values[start : start + count] = _scaled(raw, stored.slope, stored.intercept)
        follows = _drain(stream)
    if follows > FOLLOWS_AT_MOST:
        raise FileError(stored.path, "far more bytes than its header says", "check the shape in its header")
    one_slice = stored.dtype.itemsize * math.prod(stored.shape[:2])
    odd = [f"{follows} bytes follow the image; check the shape in its header"] if follows >= one_slice else []
    return values.reshape(stored.shape, order="F"), odd


def _head(path: Path) -> bytes:
    """The first bytes, decompressed."""
    _check_is_file(path)
    with _one_line(path), _content(path) as (stream, _):
        return stream.read(HEAD_BYTES)


def _check_is_file(path: Path) -> None:
    """Raise ``FileError`` for what can't be read as a file; a pipe would block, a device never end."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileError(path, "a link that leads back to itself", "mend the link") from None
        if os.path.islink(path):
            raise FileError(
                path, "a link to content that is not here", "fetch it, for instance by datalad get"
            ) from None
        if isinstance(error, PermissionError):
            raise FileError(path, "no permission to read it", "ask for access") from None
        if error.errno == errno.ENAMETOOLONG:
            raise FileError(path, "a name that is too long", "check the path") from None
        raise FileError(path, "no such file", "check the path") from None
    except ValueError:  # a zero byte in the name
        raise FileError(path, "no such file", "check the path") from None
    if path.is_dir():
        raise FileError(path, "a folder", "give one NIfTI file")
    if not path.is_file():
        raise FileError(path, "neither a file nor a folder", "give one NIfTI file")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Tell what is wrong with a file's bytes in one line."""
    try:
        yield
    except PermissionError:
        raise FileError(path, "no permission to read it", "ask for access") from None
    except EOFError as error:
        raise FileError(path, f"damaged or truncated (cut short: {error})", "copy or export it again") from error
    except (OSError, zlib.error, ValueError, struct.error) as error:
        reason = str(error).rpartition("decompressing data: ")[2]
        raise FileError(path, f"damaged or truncated ({reason})", "copy or export it again") from error


@contextmanager
def _content(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file with all gzip layers undone; yields the stream and the number of layers."""
    with path.open("rb") as file:
        stream, layers = file, 0
        while stream.peek(2)[:2] == GZIP:
            layers += 1
            if layers > MOST_LAYERS:
                raise ValueError("compressed again and again")
            stream = io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"))
        yield stream, layers


def _check_size(stored: Stored, layers: int) -> None:
    """Raise ``EOFError`` for a file too short for its voxels, before memory is taken for them."""
    needed = stored.offset + stored.count * stored.dtype.itemsize
    size = stored.voxels_in.stat().st_size
    if needed > size * MOST_DEFLATED**layers:
        raise EOFError(f"{size} bytes hold fewer voxels than {_times(stored.shape)}")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise EOFError("it ends before its last voxel")
    return found


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        size -= len(_exactly(stream, min(size, CHUNK)))


def _drain(stream: BinaryIO) -> int:
    """Read on to the end, though not much further than ``FOLLOWS_AT_MOST``; how many bytes there were."""
    total = 0
    while total <= FOLLOWS_AT_MOST and (found := stream.read(CHUNK)):
        total += len(found)
    return total


def _scaled(raw: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    with np.errstate(all="ignore"):  # what overflows becomes infinite, and is counted by who asked
        values = raw if (slope, intercept) == (1, 0) else raw.astype(np.float64) * slope + intercept
        return values.astype(np.float32)


def _header_file(path: Path) -> Path:
    """The file with the header: the .hdr where a pair's .img is given."""
    if _ending(path) not in (".img", ".img.gz"):
        return path
    return _sibling(path, "hdr") or path


def _voxel_file(header: Path) -> Path:
    found = _sibling(header, "img")
    if found is None:
        raise FileError(header, "its voxels are missing, the .img of the pair", "copy both files")
    _check_is_file(found)
    return found


def _ending(path: Path) -> str:
    name = path.name.lower()
    return "".join(Path(name).suffixes[-2:]) if name.endswith(".gz") else path.suffix.lower()


def _sibling(path: Path, kind: str) -> Path | None:
    """The other file of a pair, compressed or not, in lower or upper case."""
    stem = path.name[: len(path.name) - len(_ending(path))]
    names = (f"{stem}{ending}" for end in (f".{kind}", f".{kind}.gz") for ending in (end, end.upper()))
    return next((path.with_name(name) for name in names if os.path.lexists(path.with_name(name))), None)


def _version(path: Path, head: bytes) -> Format:
    for version in FORMATS:
        magic = head[version.magic_at :][:4]
        if len(head) >= version.size and magic in (version.single, version.pair):
            return version
    raise FileError(path, *_other_kind(head))


def _other_kind(head: bytes) -> tuple[str, str]:
    """Name the format of a file that is not NIfTI, and what to do about it."""
    for start, signature, what, advice in SIGNATURES:
        if head[start:].startswith(signature):
            return what, advice
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<!--")):
        return "a web page, not a readable NIfTI", "download it again; a login may be needed"
    if len(head) >= 348 and head[:4] in (struct.pack("<i", 348), struct.pack(">i", 348)):
        return "an Analyze image, whose header has no orientation", "convert it to NIfTI"
    if not any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        return "text, not a readable NIfTI", "check the path"
    return "not a readable NIfTI, or cut short", "copy or export it again"


def _byte_order(head: bytes, version: Format) -> str:
    """By the header's size, which is its first number, else by the count of dimensions."""
    dimensions, at = ("h", 40) if version.size == 348 else ("q", 16)
    for order in "<>":
        if struct.unpack_from(f"{order}i", head)[0] == version.size:
            return order
    for order in "<>":
        if 1 <= struct.unpack_from(order + dimensions, head, at)[0] <= 7:
            return order
    return "<"


def _shape(path: Path, fields: Any) -> tuple[int, int, int]:
    """The shape of the single volume; axes beyond the third that are 0 count as 1, as in other readers."""
    dimensions, *sizes = (int(n) for n in fields["dim"])
    if not 2 <= dimensions <= 7:
        raise FileError(path, f"{dimensions} dimensions in its header", "give a 3D volume")
    sizes = sizes[:dimensions]
    while len(sizes) > 3 and sizes[-1] in (0, 1):
        sizes.pop()
    if min(sizes) < 1:
        raise FileError(path, f"shape {_times(sizes)} in its header", "give a 3D volume")
    if len(sizes) > 3:
        raise FileError(path, f"{len(sizes)}D, {_times(sizes)}", "give one 3D volume, for instance the mean")
    i, j, k = (*sizes, 1)[:3]
    if max(i, j, k) > LONGEST_SIDE or i * j * k > MOST_VOXELS:
        raise FileError(
            path, f"{_times((i, j, k))} voxels", f"check its shape, or resample to {MOST_VOXELS:.0e} at most"
        )
    return i, j, k


def _times(sizes: Any) -> str:
    return " x ".join(str(n) for n in sizes)


def _dtype(path: Path, code: int, order: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(nib.nifti1.data_type_codes.dtype[code])
    except (KeyError, TypeError):
        raise FileError(path, f"datatype {code} in its header, which NIfTI does not have", "export it again") from None
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


def _offset(path: Path, fields: Any, head: bytes, version: Format) -> tuple[int, list[str]]:
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
