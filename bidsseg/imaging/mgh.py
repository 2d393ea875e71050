"""FreeSurfer's MGH and MGZ images: reading their headers, and writing them.

The format is described on FreeSurfer's page FsTutorial/MghFormat: numbers in big-endian order, a header of 284 bytes,
the voxels, and whatever tags follow.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bidsseg.authorship import voxels_mark
from bidsseg.errors import FileError
from bidsseg.imaging.affines import Affine, axes_affine, is_usable, placed_at
from bidsseg.imaging.stored import Block, Stored, checked_shape

MGH_MAGIC = b"\0\0\0\1\0\0"
"The version, which has always been 1, and a first size below 65536."
SIZE = 284
HEADER = struct.Struct(">7ih15f")
"Version, four sizes, type, degrees of freedom; whether a place follows: voxel size, directions, middle."
TYPES = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
COMMAND_TAG = 3
"What FreeSurfer keeps commands in, after the voxels."


def read_mgh(path: Path, head: bytes) -> Stored:
    """Describe an image of which ``head`` are the first bytes, decompressed."""
    if len(head) < SIZE:
        raise FileError(path, "a truncated FreeSurfer MGH image", "copy or export it again")
    _, *sizes, kind, _, is_placed = HEADER.unpack_from(head)[:8]
    shape = checked_shape(path, list(sizes))
    if kind not in TYPES:
        raise FileError(path, f"voxel type {kind} in its header, which MGH does not define", "export it again")
    numbers = np.array(HEADER.unpack_from(head)[8:], np.float64)
    block = Block(path, np.dtype(TYPES[kind]), SIZE, has_more=True)
    if is_placed:
        return Stored(path, shape, placed_at(_affine(numbers, shape), shape), block)
    sizes_mm = np.abs(numbers[:3]) if is_usable(np.diag((*numbers[:3], 1.0))) else np.ones(3)
    warning = "no orientation in its header; the axes were assumed to be LIA, so left and right are a guess"
    return Stored(path, shape, placed_at(axes_affine("LIA", sizes_mm, shape), shape, (warning,)), block)


def _affine(numbers: NDArray[np.float64], shape: tuple[int, ...]) -> Affine:
    """From voxel size (3), directions of the three axes (9) and the place of the middle (3), which is at shape / 2."""
    affine = np.eye(4)
    with np.errstate(all="ignore"):  # what is no number is found out by who asked
        affine[:3, :3] = numbers[3:12].reshape(3, 3).T * numbers[:3]
        affine[:3, 3] = numbers[12:] - affine[:3, :3] @ (np.array(shape) / 2)
    return affine


def save_mgz(path: Path, data: NDArray[Any], affine: Affine) -> None:
    """Write whole numbers or grey values (I, J, K) as a compressed MGH file, marked as ours after its voxels.

    MGH has no numbers of 16 bits without a sign in most programs, so labels are stored in 32 bits, as FreeSurfer's.
    """
    kind = np.float32 if data.dtype.kind == "f" else np.uint8 if data.dtype == np.uint8 else np.int32
    stored = data.astype(kind)
    text = voxels_mark(stored).encode() + b"\0"
    content: bytes = nib.MGHImage(stored, affine).to_bytes()
    path.write_bytes(gzip.compress(content + struct.pack(">iq", COMMAND_TAG, len(text)) + text, mtime=0))
