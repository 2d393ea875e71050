"""An image in a file, as its header describes it, and the one way to its voxels: a stream that is read to its end.

Formats differ in their headers. Behind it, all that are read here but DICOM hold one block of numbers, the first axis
fastest, plain or compressed.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import FileError
from bidsseg.imaging.affines import Placement

Floats = NDArray[np.float32]
Shape = tuple[int, int, int]
Packing = Literal["raw", "gzip", "bzip2", "zlib"]

GZIP = b"\x1f\x8b"
MOST_LAYERS = 2
"A file may be compressed by gzip twice by accident, but not more often."
MOST_DEFLATED = 1040
"Bytes that one byte of a gzip file can stand for; deflate reaches 1032."
MOST_BZIPPED = 50_000
"Bytes that one byte of a bzip2 file can stand for; bzip2 reaches 45,900."
HEAD_BYTES = 1024
MOST_VOXELS = 160_000_000
"A scan of 512 x 512 x 512 voxels has 134 million."
LONGEST_SIDE = 32_767
"Voxels: NIfTI-1, which results are written in, has no more."
FOLLOWS_AT_MOST = 64 << 20
"Bytes after the voxels that are read to reach the checksum; more is no image."
CHUNK = 1 << 20
"Voxels that are converted to float32 at once."


class Voxels(Protocol):
    """Where the voxels of an image are, and how they are read."""

    def read(self, path: Path, shape: Shape) -> tuple[Floats, list[str]]:
        """The scaled voxels as float32, in Fortran order, and what is odd about them.

        Raises ``FileError``, which names ``path``, where they are damaged or cut short.
        """
        ...


@dataclass(frozen=True)
class Stored:
    """An image in a file, or in a folder, as its header describes it."""

    path: Path
    shape: Shape
    placed: Placement
    "The affine, and warnings about it."
    voxels: Voxels
    warnings: tuple[str, ...] = ()
    "Other faults of the header, and the values that were used instead."
    slices: tuple[Path, ...] = ()
    "The files of a DICOM series, in the order of the third axis."


@dataclass(frozen=True)
class Block:
    """Voxels that follow each other in one file."""

    file: Path
    dtype: np.dtype[Any]
    "The type of one voxel, with its byte order."
    offset: int
    "Bytes before the first voxel, or before what is packed."
    packing: Packing = "raw"
    "How the voxels are compressed behind the header; of a file compressed as a whole, raw."
    slope: float = 1.0
    intercept: float = 0.0
    has_more: bool = False
    "Something else may follow the voxels."

    def read(self, path: Path, shape: Shape) -> tuple[Floats, list[str]]:
        """See ``Voxels``: the file is read to its end, so that the checksum of a compressed one is compared."""
        count = math.prod(shape)
        with one_line(path), content(self.file) as (stream, layers):
            self._check_size(shape, layers)
            _skip(stream, self.offset)
            stream = _unpacked(stream, self.packing)
            values = np.empty(count, np.float32)
            for start in range(0, count, CHUNK):
                size = min(CHUNK, count - start)
                raw = np.frombuffer(_exactly(stream, size * self.dtype.itemsize), self.dtype)
                values[start : start + size] = self._scaled(raw)
            follows = _drain(stream)
        if follows > FOLLOWS_AT_MOST:
            raise FileError(path, "far more bytes than its header says", "check the shape in its header")
        is_odd = not self.has_more and follows >= self.dtype.itemsize * math.prod(shape[:2])
        odd = [f"{follows} bytes follow the image; check the shape in its header"] if is_odd else []
        return values.reshape(shape, order="F"), odd

    def _check_size(self, shape: Shape, layers: int) -> None:
        """Raise ``EOFError`` for a file too short for its voxels, before memory is taken for them."""
        needed = self.offset + math.prod(shape) * self.dtype.itemsize
        size = self.file.stat().st_size
        most = {"raw": 1, "gzip": MOST_DEFLATED, "zlib": MOST_DEFLATED, "bzip2": MOST_BZIPPED}[self.packing]
        if needed > size * most * MOST_DEFLATED**layers:
            raise EOFError(f"{size} bytes are too few for {times(shape)} voxels")

    def _scaled(self, raw: NDArray[Any]) -> NDArray[Any]:
        plain = (self.slope, self.intercept) == (1, 0)
        with np.errstate(all="ignore"):  # what overflows becomes infinite, and is counted by who asked
            values = raw if plain else raw.astype(np.float64) * self.slope + self.intercept
            return values.astype(np.float32)


def head_of(path: Path) -> bytes:
    """The first bytes, decompressed. Raises ``FileError`` for what can't be read."""
    check_is_file(path)
    with one_line(path), content(path) as (stream, _):
        return stream.read(HEAD_BYTES)


def check_is_there(path: Path) -> None:
    """Raise ``FileError`` for what is neither a file nor a folder that one may look into."""
    try:
        str(path).encode()  # as results and messages have to
        path.stat()
    except UnicodeEncodeError:
        raise FileError(path, "a name that is not UTF-8", "rename the file or its folder") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileError(path, "a link that leads back to itself", "repair the link") from None
        if os.path.islink(path):
            raise FileError(
                path, "a link to content that is missing", "fetch it, for instance with datalad get"
            ) from None
        if isinstance(error, PermissionError):
            raise FileError(path, "no permission to read it", "ask for access") from None
        if error.errno == errno.ENAMETOOLONG:
            raise FileError(path, "a name that is too long", "check the path") from None
        raise FileError(path, "no such file", "check the path") from None
    except ValueError:  # a zero byte in the name
        raise FileError(path, "no such file", "check the path") from None


def check_is_file(path: Path) -> None:
    """Raise ``FileError`` for what can't be read as a file; a pipe would block, a device never end."""
    check_is_there(path)
    if path.is_dir():
        raise FileError(path, "a folder", "give one image file")
    if not path.is_file():
        raise FileError(path, "neither a file nor a folder", "give one image file, or a folder with a DICOM series")


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Tell what is wrong with a file's bytes in one line."""
    try:
        yield
    except PermissionError:
        raise FileError(path, "no permission to read it", "ask for access") from None
    except EOFError as error:
        raise FileError(path, f"damaged or truncated ({error})", "copy or export it again") from error
    except (OSError, zlib.error, ValueError, struct.error) as error:
        reason = str(error).rpartition("decompressing data: ")[2]
        raise FileError(path, f"damaged or truncated ({reason})", "copy or export it again") from error


@contextmanager
def content(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file with all gzip layers undone; yields the stream and the number of layers."""
    with path.open("rb") as file:
        stream, layers = file, 0
        while stream.peek(2)[:2] == GZIP:
            layers += 1
            if layers > MOST_LAYERS:
                raise ValueError("compressed too many times")
            stream = io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"))
        yield stream, layers


def checked_shape(path: Path, sizes: list[int]) -> Shape:
    """The shape of the single volume; axes beyond the third that are 0 or 1 do not count.

    Raises ``FileError`` for what is no volume, or larger than ``MOST_VOXELS``.
    """
    while len(sizes) > 3 and sizes[-1] in (0, 1):
        sizes = sizes[:-1]
    if not sizes or min(sizes) < 1:
        raise FileError(path, f"shape {times(sizes)} in its header", "give a 3D volume")
    if len(sizes) > 3:
        raise FileError(path, f"{len(sizes)}D, {times(sizes)}", "give one 3D volume, for instance the mean")
    i, j, k = (*sizes, 1, 1)[:3]
    if max(i, j, k) > LONGEST_SIDE or i * j * k > MOST_VOXELS:
        raise FileError(
            path, f"{times((i, j, k))} voxels", f"check its shape, or resample it to at most {MOST_VOXELS:,}"
        )
    return i, j, k


def times(sizes: Any) -> str:
    return " x ".join(str(n) for n in sizes)


def _unpacked(stream: BinaryIO, packing: Packing) -> BinaryIO:
    openers: dict[Packing, Callable[[BinaryIO], Any]] = {
        "raw": lambda packed: packed,
        "gzip": lambda packed: io.BufferedReader(gzip.GzipFile(fileobj=packed, mode="rb")),
        "bzip2": lambda packed: io.BufferedReader(bz2.BZ2File(packed)),
        "zlib": lambda packed: io.BufferedReader(_Inflated(packed), CHUNK),
    }
    opened: BinaryIO = openers[packing](stream)
    return opened


class _Inflated(io.RawIOBase):
    """What a zlib stream holds; its checksum is compared at its end, and what follows it is left alone."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed, self._inflate = packed, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._packed.read(CHUNK)
            if not packed:
                raise EOFError("it ends before its last voxel")
            found = self._inflate.decompress(packed, len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)
        return 0


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
