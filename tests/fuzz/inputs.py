"""Seeded inputs as they go wrong: each is made from a sound one by an operation, and knows what reading it may give."""

from __future__ import annotations

import codecs
import gzip
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray
from scipy import ndimage

from tests.phantoms import ORIENTATIONS

Values = NDArray[Any]
Bytes = bytearray
SPACING = np.diag((-2.0, 2.0, 2.0, 1.0))
SPACING[:3, 3] = (24, -24, -24)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-3, 1e-6, 1e-38, 1e-42, 1e38, -1e38, 3.4e38, 0.2, 2.5, 10.0, 60.0, 100.0, 500.0, 1e5)
ODD = (float("nan"), float("inf"), float("-inf"))
EXTREME = (1e300, -1e300, 1e-300)
"Only double precision holds these."
WHOLE = (0, 1, -1, 2, 3, 4, 5, 7, 8, 20, 100, 255, 256, 1000, 4096, 16384, 32767, -32768)
LONG = (0, 1, -1, 3, 24, 1000, 10**5, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))


@dataclass(frozen=True)
class Field:
    """A part of a header: which bytes, and whether the voxels read depend on it."""

    at: int
    code: str
    count: int
    moves_voxels: bool = False


FIELDS_1 = (
    Field(0, "i", 1, True), Field(39, "B", 1), Field(40, "h", 8, True), Field(56, "f", 3), Field(68, "h", 1),
    Field(70, "h", 1, True), Field(72, "h", 1), Field(76, "f", 8), Field(108, "f", 1, True), Field(112, "f", 2, True),
    Field(120, "h", 1), Field(122, "B", 2), Field(124, "f", 4), Field(148, "B", 104), Field(252, "h", 2),
    Field(256, "f", 6), Field(280, "f", 12), Field(328, "B", 16), Field(344, "B", 4, True), Field(348, "B", 4, True),
)  # fmt: skip
FIELDS_2 = (
    Field(0, "i", 1, True), Field(4, "B", 8, True), Field(12, "h", 1, True), Field(14, "h", 1), Field(16, "q", 8, True),
    Field(80, "d", 3), Field(104, "d", 8), Field(168, "q", 1, True), Field(176, "d", 2, True), Field(192, "d", 4),
    Field(344, "i", 2), Field(352, "d", 6), Field(400, "d", 12), Field(496, "i", 3), Field(540, "B", 4, True),
)  # fmt: skip
"The header fields of NIfTI-1 and of NIfTI-2."


@dataclass(frozen=True)
class Base:
    """A sound image file."""

    name: str
    content: bytes
    values: Values
    order: str
    fields: tuple[Field, ...]
    header_bytes: int


@dataclass(frozen=True)
class Input:
    """A file or folder to be read."""

    path: Path
    operation: str
    truth: Values | None = None
    "The voxels that must be read if anything is; None where that is unknown."
    lesion_ml: float | None = None
    "The volume of lesions in a mask; None where that is unknown."


@cache
def bases() -> tuple[Base, ...]:
    """Images of two shapes, several types, both versions of NIfTI and both byte orders."""
    found = []
    for shape in ((24, 22, 20), (32, 30, 6)):
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
        noise = np.random.default_rng(0).normal(20, 2, shape)
        ball = 100 * (np.linalg.norm(grid, axis=0) < 0.8) + noise
        affine = SPACING @ np.diag((1.0, 1.0, 1.0 if shape[2] == 20 else 3.0, 1.0))
        for kind in (np.float32, np.float64, np.int16, np.uint8):
            values = ball.astype(kind)
            found.append(_base(np.dtype(kind).name, nib.Nifti1Image(values, affine), values, "<"))
        values = ball.astype(np.int16)
        found.append(_base("nifti2", nib.Nifti2Image(values, affine), values, "<"))
        big = nib.Nifti1Image(values.astype(">i2"), affine, nib.Nifti1Header(endianness=">"))
        found.append(_base("big endian", big, values, ">"))
        extended = nib.Nifti1Image(values, affine)
        extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment " * 9))
        found.append(_base("extended", extended, values, "<"))
    return tuple(found)


def _base(name: str, image: Any, values: Values, order: str) -> Base:
    second = isinstance(image, nib.Nifti2Image)
    return Base(name, image.to_bytes(), values, order, FIELDS_2 if second else FIELDS_1, 544 if second else 352)


# ---- images: (chance, base, bytes) -> whether the voxels must still be the same


def flip_header_bits(chance: random.Random, base: Base, content: Bytes) -> bool:
    keeps = True
    for _ in range(chance.choice((1, 1, 2, 3, 8, 40))):
        at = chance.randrange(base.header_bytes)
        content[at] ^= 1 << chance.randrange(8)
        keeps &= not any(f.moves_voxels and f.at <= at < f.at + f.count * struct.calcsize(f.code) for f in base.fields)
    return keeps


def set_fields(chance: random.Random, base: Base, content: Bytes) -> bool:
    keeps = True
    for _ in range(chance.choice((1, 1, 3))):
        field = chance.choice(base.fields)
        keeps &= not field.moves_voxels
        first = chance.randrange(field.count)
        last = field.count if chance.random() < 0.2 else first + 1
        value = _value(chance, field.code)
        for index in range(first, last):
            struct.pack_into(base.order + field.code, content, field.at + index * struct.calcsize(field.code), value)
    return keeps


def _value(chance: random.Random, code: str) -> float | int:
    if code in "fd":
        return chance.choice(NUMBERS + ODD + (EXTREME if code == "d" else ()))
    if code == "B":
        return chance.randrange(256)
    return chance.choice(WHOLE + ((348, 540, 2**31 - 1) if code == "i" else LONG if code == "q" else ()))


def set_space(chance: random.Random, base: Base, content: Bytes) -> bool:
    """Forms, codes, voxel sizes and unit, all at once."""
    second = base.header_bytes == 544
    real = "d" if second else "f"
    codes, sizes, forms, unit = (344, 104, 352, 500) if second else (252, 76, 256, 123)
    for index in range(2):
        at = codes + index * (4 if second else 2)
        struct.pack_into(base.order + ("i" if second else "h"), content, at, chance.choice((0, 1, 1, 2, 4, -3, 5, 300)))
    width = struct.calcsize(real)
    for start, count in ((sizes, 4), (forms, 18)):
        for index in range(count):
            if chance.random() < 0.4:
                value = chance.uniform(-4, 4) if chance.random() < 0.7 else _value(chance, real)
                struct.pack_into(base.order + real, content, start + index * width, value)
    content[unit] = chance.choice((0, 1, 2, 3, 10, 255))
    return True


def set_shape(chance: random.Random, base: Base, content: Bytes) -> bool:
    code, at = ("q", 16) if base.header_bytes == 544 else ("h", 40)
    sizes = [chance.choice((0, 1, 2, 3, 3, 3, 4, 7, 8, -1))]
    sizes += [chance.choice((0, 1, 2, 6, 20, 22, 24, 30, 1000, 5000, 32767, -1)) for _ in range(7)]
    struct.pack_into(f"{base.order}8{code}", content, at, *sizes)
    return False


def swap_fields(chance: random.Random, base: Base, content: Bytes) -> bool:
    """The other byte order, here and there."""
    for field in base.fields:
        size = struct.calcsize(field.code)
        for index in range(field.count if chance.random() < 0.8 else 0):
            part = slice(field.at + index * size, field.at + (index + 1) * size)
            content[part] = content[part][::-1]
    return False


def cut(chance: random.Random, base: Base, content: Bytes) -> bool:
    size = len(content)
    ends = (0, 1, 4, 100, 347, 348, 351, 352, 400, 540, 544, size // 2, size - 1000, size - 1, chance.randrange(size))
    del content[chance.choice(ends) :]
    return True


def append(chance: random.Random, base: Base, content: Bytes) -> bool:
    content += chance.choice((bytes(512), chance.randbytes(100), bytes(3_000_000)))
    return True


def replace_all(chance: random.Random, base: Base, content: Bytes) -> bool:
    content[:] = chance.choice(
        (b"", b"<html></html>", b"NRRD0004\n", b"/annex/objects/x", chance.randbytes(chance.choice((1, 352, 20000))),
         struct.pack(">7i", 1, *(chance.choice((20, 0, -1, 2**31 - 1)) for _ in range(6))) + bytes(20000))
    )  # fmt: skip
    return False


def random_voxels(chance: random.Random, base: Base, content: Bytes) -> bool:
    content[base.header_bytes :] = chance.randbytes(len(content) - base.header_bytes)
    return False


def leave(chance: random.Random, base: Base, content: Bytes) -> bool:
    return True


ImageOperation = Callable[[random.Random, Base, Bytes], bool]
IMAGE_OPERATIONS: tuple[ImageOperation, ...] = (
    *(flip_header_bits, set_fields, set_fields, set_space, set_space, set_shape, swap_fields, cut, append),
    *(replace_all, random_voxels, leave, leave),
)


def image_input(chance: random.Random, folder: Path) -> Input:
    """A NIfTI file, changed inside, or in the gzip stream around it, or named as something else."""
    base, operation = chance.choice(bases()), chance.choice(IMAGE_OPERATIONS)
    content = bytearray(base.content)
    keeps = operation(chance, base, content)
    name = operation.__name__
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        content = bytearray(gzip.compress(bytes(content), 1, mtime=0))
    if content[:2] == b"\x1f\x8b" and chance.random() < (0.7 if operation is leave else 0.05):
        name = "damage_stream"
        _damage_stream(chance, content)
    path = folder / chance.choice(("a.nii", "a.nii.gz", "a.nii.gz", "A.NII.GZ", "a.hdr", "a.img", "a.mgz"))
    path.write_bytes(bytes(content))
    return Input(path, name, base.values if keeps else None)


def _damage_stream(chance: random.Random, content: Bytes) -> None:
    way = chance.choice(("bits", "cut", "tail", "insert"))
    if way == "bits":
        for _ in range(chance.choice((1, 2, 10))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif way == "cut":
        del content[chance.choice((2, 3, 9, 10, 11, 18, len(content) // 2, -1, -4, -8, -9)) :]
    elif way == "tail":
        content += chance.randbytes(chance.choice((1, 50)))
    else:
        at = chance.randrange(len(content))
        content[at:at] = chance.randbytes(3)


# ---- lesion masks


@cache
def lesions() -> NDArray[np.float32]:
    """Five balls of 5 to 9 mm on a grid of 2 mm, as a share of lesion in every voxel."""
    grid = np.indices((36, 36, 30)).transpose(1, 2, 3, 0) * 2.0
    found = np.zeros(grid.shape[:3], np.float32)
    for number, centre in enumerate(((16, 16, 20), (52, 16, 24), (16, 52, 28), (52, 52, 36), (36, 36, 44))):
        found[((grid - centre) ** 2).sum(-1) < (5 + number) ** 2] = 1
    return found


def mask_input(chance: random.Random, folder: Path) -> Input:
    """A mask of known volume, stored in one of many ways; sometimes in a damaged file."""
    sure = lesions()
    soft = ndimage.gaussian_filter(sure, 0.6)
    soft /= soft.max()
    ways: dict[str, Callable[[], Values]] = {
        "binary": lambda: sure.astype(np.uint8),
        "binary 255": lambda: sure.astype(np.uint8) * 255,
        "binary 0.999": lambda: sure * np.float32(0.999),
        "labels": lambda: ndimage.label(sure)[0].astype(np.int16),
        "labels from 200": lambda: np.where(sure > 0, ndimage.label(sure)[0] + 199, 0).astype(np.int16),
        "probability": lambda: soft,
        "percent": lambda: (soft * 100).round().astype(np.uint8),
        "of 255": lambda: (soft * 255).round().astype(np.uint8),
        "of 1000": lambda: (soft * 1000).round().astype(np.int16),
        "moved": lambda: ndimage.shift(sure * 255, (0.5, 0, 0), order=1).round().astype(np.uint8),
        "of 43": lambda: (soft * 43).round().astype(np.uint8),
        "logits": lambda: (soft * 20 - 10).astype(np.float32),
        "noise": lambda: np.random.default_rng(chance.randrange(999)).normal(0, 9, sure.shape).astype(np.float32),
        "with NaN": lambda: np.where(sure > 0, 1, np.nan).astype(np.float32),
    }
    way = chance.choice(list(ways))
    data, affine = ways[way](), SPACING
    orientation = chance.choice(ORIENTATIONS)
    data, affine = apply_orientation(data, orientation), affine @ inv_ornt_aff(orientation, sure.shape)
    ending = "probseg" if way in ("probability", "percent", "of 255", "of 1000") and chance.random() < 0.4 else "mask"
    path = folder / f"sub-01_label-lesion_{ending}.nii.gz"
    content = bytearray(gzip.compress(nib.Nifti1Image(data, affine).to_bytes(), 1, mtime=0))
    if chance.random() < 0.2:
        _damage_stream(chance, content)
    path.write_bytes(bytes(content))
    unclear = way in ("logits", "noise")
    return Input(path, f"mask, {way}", lesion_ml=None if unclear else float(sure.sum()) * 8e-3)


# ---- text


DESCRIPTION = {"Name": "fuzz", "BIDSVersion": "1.8.0", "DatasetType": "raw", "GeneratedBy": [{"Name": "x"}]}
FILTERS = {"t1w": {"session": "1", "acquisition": None}, "flair": {"run": [1, 2], "reconstruction": "*"}}
MARKER = {"SoftwareVersion": "1", "Outputs": ["sub-01/anat/sub-01_x.nii.gz"], "Sources": ["bids:raw:sub-01/anat/a.nii"]}
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    1e308,
    float("nan"),
    "",
    "x" * 100_000,
    "\0",
    [],
    [[]],
    {},
    {"": 1},
)


def json_input(chance: random.Random, folder: Path) -> Input:
    name, content = chance.choice((("description", DESCRIPTION), ("filters", FILTERS), ("marker", MARKER)))
    path = folder / f"{name}.json"
    path.write_bytes(_text(chance, _json(chance, content)))
    return Input(path, f"json, {name}")


def _json(chance: random.Random, content: Any) -> bytes:
    way = chance.choice(("value", "value", "key", "deep", "bare"))
    copy = json.loads(json.dumps(content))
    if way == "value":
        copy[chance.choice(list(copy))] = chance.choice(VALUES)
    elif way == "key":
        del copy[chance.choice(list(copy))]
    elif way == "deep":
        return chance.choice((b"[", b'{"a":')) * chance.choice((10, 500, 100_000))
    else:
        copy = chance.choice(VALUES)
    return json.dumps(copy).encode()


def _text(chance: random.Random, content: bytes) -> bytes:
    """As programs of all kinds store text, or damage it."""
    ways: tuple[Callable[[bytes], bytes], ...] = (
        lambda text: text,
        lambda text: text,
        lambda text: codecs.BOM_UTF8 + text,
        lambda text: text.decode("utf-8", "replace").encode("utf-16"),
        lambda text: text[: chance.randrange(len(text) + 1)],
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: bytes(byte ^ (1 << chance.randrange(8)) if chance.random() < 0.02 else byte for byte in text),
        lambda text: text + b"\0\0",
        lambda text: b"",
    )
    return chance.choice(ways)(content)


def tsv_input(chance: random.Random, folder: Path) -> Input:
    """A table of sessions."""
    rows = [["session_id", "acq_time"], ["ses-2", "2021-01-01"], ["ses-1", "2020-01-01"], ["ses-10", "2022-01-01"]]
    for _ in range(chance.choice((0, 1, 3))):
        row = chance.choice(rows)
        odd = ("", "n/a", "x" * 200_000, '"', "\x00", "=1+1", "ü", "a\tb", "a\rb", "\x1b[31m")
        row[chance.randrange(len(row))] = chance.choice(odd)
    path = folder / "sub-01" / "sub-01_sessions.tsv"
    path.parent.mkdir()
    path.write_bytes(_text(chance, "\n".join("\t".join(row) for row in rows).encode()))
    return Input(path, "tsv")


# ---- model folders


def model_input(chance: random.Random, folder: Path, model: Path) -> Input:
    """A model folder with a damaged card, or with damaged weights that the card vouches for."""
    from bidsseg.files import sha256_of

    card, weights = json.loads((model / "card.json").read_text()), (model / "weights.safetensors").read_bytes()
    way = chance.choice(("card", "architecture", "text", "weights", "weights", "missing"))
    damaged = bytearray(weights)
    if way == "card":
        card[chance.choice(list(card))] = chance.choice(VALUES)
    elif way == "architecture":
        card["architecture"][chance.choice(list(card["architecture"]))] = chance.choice(
            (*VALUES, [4] * 40, [0, 4], [4.5, 4], [10**9] * 2, [4, 4, 4], 3, -1, 10**9)
        )
    elif way == "weights":
        at = chance.randrange(chance.choice((8, 200, len(damaged))))
        damaged[at] ^= 1 << chance.randrange(8)
        del damaged[chance.choice((at, len(damaged), len(damaged))) :]
    (folder / "weights.safetensors").write_bytes(bytes(damaged))
    if way == "weights":
        card["sha256"] = sha256_of(folder / "weights.safetensors")
    text = json.dumps(card).encode()
    (folder / "card.json").write_bytes(_text(chance, text) if way == "text" else text)
    if way == "missing":
        (folder / chance.choice(("card.json", "weights.safetensors"))).unlink()
    return Input(folder, f"model, {way}")
