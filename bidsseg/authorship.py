"""Recognises files that bidsseg wrote and nobody has changed since; all others may be somebody's work and are kept.

The files tell by themselves, so that it can be told after a killed run, and of files that were moved. Images carry a
checksum of their voxels in the header's description: a label image corrected by hand is no longer ours. Pictures name
their software, tables have our columns, JSON our keys.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import UserError
from bidsseg.files import read_json

SOFTWARE = "bidsseg"
PICTURE_MARK = b"tEXtSoftware\0" + SOFTWARE.encode()
"As Pillow writes it into a PNG."
PICTURE_START = 1024
DICOM_MARK = SOFTWARE.encode()
"What the 128 bytes before a DICOM file's own begin with; other programs leave them empty."
PAGE_MARK = f'<meta name="generator" content="{SOFTWARE} '.encode()
PAGE_START = 4096
LONGEST_TAIL = 1024
KEYS = ("SoftwareVersion", "GeneratedBy", "LesionCount", "LesionLoadRangeMl")
"One of them is in each JSON that describes no table."
Tables = Sequence[Collection[str]]
"Columns of the tables a file may be."


def voxels_mark(data: NDArray[Any]) -> str:
    """What the header of an image with these voxels (stored as they are, any shape) says; at most 79 bytes."""
    checksum = 0
    for slab in np.moveaxis(data, -1, 0):
        checksum = zlib.crc32(np.ascontiguousarray(slab, slab.dtype.newbyteorder("<")).data, checksum)
    return f"{SOFTWARE}, voxels {data.dtype.kind}{checksum:08x}"


def mark_file(path: Path) -> None:
    """Add, to a file whose format allows for more bytes after its end, a mark with a checksum of all before it."""
    content = path.read_bytes()
    with path.open("ab") as file:
        file.write(_end_mark(content))


def _end_mark(content: bytes) -> bytes:
    return f"{SOFTWARE} {zlib.crc32(content):08x}".encode()


def _ends_in_our_mark(path: Path) -> bool:
    content = path.read_bytes()
    length = len(_end_mark(b""))
    return content[-length:] == _end_mark(content[:-length])


def is_ours(path: Path, tables: Tables = ()) -> bool:
    """Whether a file is as bidsseg wrote it; ``tables`` are those that a TSV, or its data dictionary, may be."""
    if path.name.endswith((".nii", ".nii.gz", ".mgz")):
        return has_our_voxels(path)
    try:
        if path.suffix == ".h5":
            return _ends_in_our_mark(path)
        if path.suffix == ".dcm":
            with path.open("rb") as file:
                return file.read(len(DICOM_MARK)) == DICOM_MARK
        if path.suffix == ".png":
            with path.open("rb") as file:
                return PICTURE_MARK in file.read(PICTURE_START)
        if path.suffix == ".html":
            with path.open("rb") as file:
                return PAGE_MARK in file.read(PAGE_START)
        if path.suffix == ".tsv":
            with path.open(encoding="utf-8") as text:
                return text.readline(100_000).rstrip("\n").split("\t") in [list(columns) for columns in tables]
    except (OSError, ValueError):
        return False
    if path.suffix == ".json":
        content = read_json(path)
        return any(key in content for key in KEYS) or list(content) in [list(columns) for columns in tables]
    return False


def has_our_voxels(path: Path) -> bool:
    """Whether an image was written by bidsseg and has the voxels that it had then."""
    import nibabel as nib

    try:
        stored = nib.load(path)
        said = _description(stored)
        if not said.startswith(SOFTWARE):
            return False
        return said == voxels_mark(np.asanyarray(stored.dataobj.get_unscaled()))
    except Exception:  # whatever it is, it is not what bidsseg wrote
        return False


def _description(stored: Any) -> str:
    """What an image says about itself: NIfTI in its header, MGH after its voxels, where FreeSurfer keeps commands."""
    if "descrip" in stored.header:
        return bytes(stored.header["descrip"]).rstrip(b"\0").decode("ascii")
    with gzip.open(stored.get_filename()) as file:
        file.seek(stored.header.get_footer_offset())
        tail = file.read(LONGEST_TAIL)
    return tail[max(tail.find(SOFTWARE.encode()), 0) :].rstrip(b"\0").decode("ascii")


def is_our_label_image(path: Path) -> bool:
    """Whether an image holds labels or a mask as bidsseg wrote them, not grey values."""
    import nibabel as nib

    return has_our_voxels(path) and nib.load(path).get_data_dtype().kind in "iu"


def refuse_to_replace(paths: Iterable[Path], tables: Tables = ()) -> None:
    """Raise ``UserError`` where one of the files is there and is not as bidsseg wrote it."""
    for path in paths:
        if path.exists() and not is_ours(path, tables):
            raise UserError(f"{path}: was not written by bidsseg, or was changed since; move it, or give --overwrite")


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise ``UserError`` where a file to be written is one that the same command reads; it may read a folder's."""
    read = [path for path in inputs if path.exists()]
    folders = [path for path in read if path.is_dir()]
    for path in outputs:
        within = any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)
        is_slice = within and path.suffix == ".dcm" and not is_ours(path)
        if path.exists() and (is_slice or any(path.samefile(known) for known in read)):
            raise UserError(f"{path}: would be replaced, but is an input of this command; choose another output")
