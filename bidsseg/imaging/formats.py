"""The only reader of images: recognises a file by its first bytes, and a folder by the DICOM series in it.

Whatever the memory would not hold is refused from the header alone, before any voxel is read.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from bidsseg.errors import FileError
from bidsseg.imaging.affines import Affine, is_usable
from bidsseg.imaging.mgh import MGH_MAGIC, read_mgh
from bidsseg.imaging.nifti import header_file, is_analyze, read_analyze, read_nifti, version_of
from bidsseg.imaging.stored import Floats, Stored, check_is_there, head_of
from bidsseg.imaging.text_headers import is_metaimage, is_nrrd, read_metaimage, read_nrrd

SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (128, b"DICM", "a single DICOM file", "give the folder with its series"),
    (0, b"\x89HDF", "an HDF5 or MINC file", "convert it to NIfTI"),
    (0, b"CDF\x01", "a MINC file", "convert it to NIfTI"),
    (0, b"version https://git-lfs", "a Git LFS pointer: the image is not downloaded", "fetch it with git lfs pull"),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (0, b"BZh", "compressed with bzip2", "unpack it, or compress it with gzip"),
    (0, b"\xfd7zXZ", "compressed with xz", "unpack it, or compress it with gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, or compress it with gzip"),
    (0, b"\x89PNG", "a PNG picture", "give the scan as NIfTI"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "give the scan as NIfTI"),
    (0, b"%PDF", "a PDF", "give the scan as NIfTI"),
)
"Where a signature lies, its bytes, what has it, and what to do about it."
ANNEX_POINTER = re.compile(rb"\S*/annex/objects/")
"Of an unlocked file, or of a link that was stored as a file: on Windows, or in an archive of the repository."


def read_header(path: Path, series: str | None = None) -> Stored:
    """Describe an image from its first bytes, or the DICOM series in a folder from the headers of its slices.

    ``series`` chooses among several in a folder, by number or UID. Raises ``FileError``, which says what the file
    really is, for all that is no image of one volume of real numbers, or that is larger than ``MOST_VOXELS``.
    """
    check_is_there(path)
    if path.is_dir():
        from bidsseg.imaging.dicom import read_series  # and SimpleITK, which nothing else here needs

        return _sound(read_series(path, series))
    if series is not None:
        raise FileError(path, "a file, so there is no series to choose", "leave out --series")
    named = header_file(path)
    head = head_of(named)
    if not head:
        raise FileError(path, "an empty file", "copy or export it again")
    return _sound(_described(path, named, head))


def read_voxels(stored: Stored) -> tuple[Floats, list[str]]:
    """The scaled voxels as float32, in Fortran order, and what is odd about them.

    A file is read to its end, so that the checksum of a compressed one is compared. Raises ``FileError`` for one that
    is damaged or cut short.
    """
    return stored.voxels.read(stored.path, stored.shape)


def _described(path: Path, named: Path, head: bytes) -> Stored:
    version = version_of(head)
    if version is not None:
        return read_nifti(path, named, head, version)
    if head.startswith(MGH_MAGIC):
        return read_mgh(path, head)
    if is_nrrd(head):
        return read_nrrd(path)
    if is_metaimage(head):
        return read_metaimage(path)
    if is_analyze(head):
        return read_analyze(path, named, head)
    raise FileError(path, *_other_kind(head))


def _sound(stored: Stored) -> Stored:
    """The image if its voxels lie somewhere; only NIfTI headers are repaired."""
    affine: Affine = stored.placed.affine
    if not is_usable(affine):
        raise FileError(stored.path, "no usable voxel size or direction in its header", "export it again")
    return stored


def _other_kind(head: bytes) -> tuple[str, str]:
    """Name the format of a file that is not read, and what to do about it."""
    for start, signature, what, advice in SIGNATURES:
        if head[start:].startswith(signature):
            return what, advice
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if ANNEX_POINTER.match(text):
        return "a git-annex pointer: the image is not downloaded", "fetch it, for instance with datalad get"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<!--")):
        return "a web page, not a readable image", "download it again; a login may be needed"
    if not any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        return "text, not a readable image", "check the path"
    return "not a readable NIfTI or other image, or truncated", "copy or export it again"
