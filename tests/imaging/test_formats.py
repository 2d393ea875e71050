"""What a file really is, by its first bytes, and reading it to its last."""

from __future__ import annotations

import gzip
import os
import random
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsseg.errors import FileError
from bidsseg.imaging import stored
from bidsseg.imaging.formats import read_header, read_voxels
from bidsseg.imaging.image import load, read_geometry
from bidsseg.imaging.stored import LONGEST_SIDE, MOST_VOXELS
from tests.phantoms import ramp

AFFINE = np.diag((-2.0, 2.0, 3.0, 1.0))
AFFINE[:3, 3] = (30, -30, -30)
SHAPE = (32, 31, 24)
VALUES = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)


def nifti(data: np.ndarray = VALUES, kind: type = nib.Nifti1Image) -> bytes:
    found: bytes = kind(data, AFFINE).to_bytes()
    return found


def changed(content: bytes, at: int, code: str, value: object) -> bytes:
    buffer = bytearray(content)
    struct.pack_into(code, buffer, at, value)
    return bytes(buffer)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.nii", nifti()),
        ("compressed.nii.gz", gzip.compress(nifti())),
        ("compressed.nii", gzip.compress(nifti())),
        ("plain.nii.gz", nifti()),
        ("twice.nii.gz", gzip.compress(gzip.compress(nifti()))),
        ("UPPER.NII.GZ", gzip.compress(nifti())),
        ("members.nii.gz", gzip.compress(nifti()[:5000]) + gzip.compress(nifti()[5000:])),
        ("padded.nii.gz", gzip.compress(nifti()) + bytes(512)),
        ("two.nii", nifti(kind=nib.Nifti2Image)),
        ("no_ending", nifti()),
        ("big_endian.nii", nib.Nifti1Image(VALUES.astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">")).to_bytes()),
        ("double.nii", nifti(VALUES.astype(np.float64))),
        ("fourth_axis_0.nii", changed(changed(nifti(), 40, "<h", 4), 48, "<h", 0)),
        ("fourth_axis_1.nii", nifti(VALUES[..., None])),
        ("odd_size_field.nii", changed(nifti(), 0, "<i", 0)),
        ("odd_bitpix.nii", changed(nifti(), 72, "<h", 7)),
        ("rounded_offset.nii", changed(nifti(), 108, "<f", 351.9999)),
    ],
)
def test_voxels_are_read_whatever_the_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    found = load(tmp_path / name)
    np.testing.assert_array_equal(found.data, VALUES)
    np.testing.assert_allclose(found.affine, AFFINE)
    assert found.warnings == ()


@pytest.mark.parametrize("given", [0.0, -1.0, float("inf"), float("nan"), 100.0])
def test_an_offset_within_the_header_is_not_believed(given: float, tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(changed(nifti(), 108, "<f", given))
    found = load(tmp_path / "scan.nii")
    np.testing.assert_array_equal(found.data, VALUES)
    assert f"vox_offset is {given:g}; the voxels were read from byte 352" in found.warnings[0]


@pytest.mark.parametrize("given", ["scan.hdr", "scan.img", "SCAN.HDR"])
def test_a_pair_is_read_by_either_name(given: str, tmp_path: Path) -> None:
    pair = nib.Nifti1Pair(VALUES, AFFINE)
    nib.save(pair, tmp_path / "scan.img")
    if given.isupper():
        for path in tmp_path.iterdir():
            path.rename(path.with_name(path.name.upper()))
    np.testing.assert_array_equal(load(tmp_path / given).data, VALUES)


def test_scaling_and_what_it_has_wrong(tmp_path: Path) -> None:
    content = changed(changed(nifti(), 112, "<f", 0.5), 116, "<f", -3.0)
    (tmp_path / "scan.nii").write_bytes(content)
    np.testing.assert_array_equal(load(tmp_path / "scan.nii").data, VALUES * 0.5 - 3)
    (tmp_path / "scan.nii").write_bytes(changed(content, 116, "<f", float("nan")))
    found = load(tmp_path / "scan.nii")
    np.testing.assert_array_equal(found.data, VALUES * 0.5)
    assert "scl_inter is nan" in found.warnings[0]
    (tmp_path / "scan.nii").write_bytes(changed(content, 112, "<f", 0.0))
    np.testing.assert_array_equal(load(tmp_path / "scan.nii").data, VALUES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (bytes(128) + b"DICM" + bytes(400), "a single DICOM file; give the folder with its series"),
        (b"NRRD0004\ntype: short\n", "a header without sizes"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\n  <html lang=en>", "a web page"),
        (b"/annex/objects/SHA256E-s1--ab.nii.gz\n", "not downloaded; fetch it, for instance with datalad get"),
        (b"../../.git/annex/objects/aa/bb/MD5E-s1--ab.nii.gz/MD5E-s1--ab.nii.gz", "not downloaded; fetch it"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error>', "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not downloaded; fetch it with git lfs pull"),
        (b"PK\x03\x04 and so on", "a ZIP archive; unpack it"),
        (struct.pack(">iiii", 1, 24, 22, 20) + bytes(50), "a truncated FreeSurfer MGH image"),
        (b"two lines\nof text\n", "text, not a readable image"),
        (struct.pack("<i", 348) + bytes(344), "0 dimensions in its header"),
        (bytes(range(256)) * 4, "not a readable NIfTI"),
        (nifti()[:300], "not a readable NIfTI or other image, or truncated"),
        (nifti()[:-1], "bytes are too few for"),
        (nifti()[:3000], "bytes are too few for"),
        (gzip.compress(nifti())[:-1], "damaged or truncated"),
        (gzip.compress(nifti())[:-8], "damaged or truncated"),
        (gzip.compress(gzip.compress(gzip.compress(nifti()))), "compressed too many times"),
        (gzip.compress(nifti()) + b"garbage", "damaged or truncated"),
        (changed(nifti(), 70, "<h", 3), "datatype 3 in its header"),
        (changed(nifti(), 70, "<h", 128), "colour (RGB) values"),
        (changed(nifti(), 70, "<h", 32), "complex64 values"),
        (changed(nifti(), 70, "<h", 1), "values"),
        (changed(nifti(), 40, "<h", 99), "99 dimensions"),
        (changed(nifti(), 40, "<h", 1), "1 dimensions"),
        (changed(nifti(), 42, "<h", -5), "shape -5 x 31 x 24"),
        (nifti(ramp(4, 4, 4, 3)), "4D, 4 x 4 x 4 x 3; give one 3D volume"),
        (changed(nifti(), 108, "<f", 1e9), "bytes are too few for"),
        (changed(changed(nifti(), 348, "<b", 1), 108, "<f", 0.0), "vox_offset 0 in its header, though extensions"),
        (changed(nifti(kind=nib.Nifti2Image), 24, "<q", 2**62), "voxels; check its shape"),
        (changed(nifti(kind=nib.Nifti2Image), 168, "<q", 2**62), "bytes are too few for"),
        (changed(nifti(kind=nib.Nifti2Image), 16, "<q", -1), "-1 dimensions"),
    ],
)
def test_what_is_no_scan_is_called_by_its_name(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message
    assert read_geometry(path) is None or "damaged" in message


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (loop, "a link that leads back to itself"),
        (lambda path: path.symlink_to("nowhere"), "content that is missing; fetch it, for instance with datalad get"),
        (Path.mkdir, "a folder"),
        (os.mkfifo, "neither a file nor a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "neither a file nor a folder"),
    ],
)
def test_what_is_no_file(make: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    make(tmp_path / "scan.nii")
    with pytest.raises(FileError, match=says):
        load(tmp_path / "scan.nii")


@pytest.mark.parametrize("name", ["a\0b.nii", "x" * 300 + ".nii", "missing.nii"])
def test_a_name_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError):
        load(tmp_path / name)


def test_a_header_without_its_voxels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(VALUES, AFFINE), tmp_path / "scan.img")
    (tmp_path / "scan.img").unlink()
    with pytest.raises(FileError, match="file with its voxels is missing"):
        load(tmp_path / "scan.hdr")


@pytest.mark.parametrize("seed", range(40))
def test_no_flipped_bit_changes_a_voxel(seed: int, tmp_path: Path) -> None:
    """Whatever bit of a compressed file is flipped, it is refused, or it is one that no voxel depends on."""
    chance = random.Random(seed)
    content = bytearray(gzip.compress(nifti(VALUES[:12, :12, :12]), mtime=0))
    at = chance.randrange(len(content))
    content[at] ^= 1 << chance.randrange(8)
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    try:
        found, _ = read_voxels(read_header(path))
    except FileError:
        return
    assert at < 10  # time, flags and system in the gzip header
    np.testing.assert_array_equal(found, VALUES[:12, :12, :12])


def test_what_follows_the_image_is_read_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(nifti() + bytes(5000)))
    assert "5000 bytes follow the image" in load(path).warnings[0]
    monkeypatch.setattr(stored, "FOLLOWS_AT_MOST", 4000)
    with pytest.raises(FileError, match="far more bytes than its header says"):
        load(path)


def described(shape: tuple[int, int, int], millimetres: float, kind: type = np.uint8) -> bytes:
    """A header that promises voxels, and a few of them."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(kind)
    header.set_zooms((millimetres,) * 3)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return bytes(header.binaryblock) + bytes(2000)


@pytest.mark.parametrize(
    ("shape", "millimetres", "says"),
    [
        ((10, 10, 10), 99, "990 x 990 x 990 mm; check the voxel size"),
        ((2500, 2500, 2500), 0.1, "2500 x 2500 x 2500 voxels"),
        ((900, 900, 800), 0.2, "900 x 900 x 800 voxels"),
        ((500, 500, 500), 1, "500 x 500 x 500 mm"),
        ((512, 512, 400), 0.5, "bytes are too few for"),  # taken for a scan, of which voxels are missing here
        ((512, 512, 512), 0.5, "bytes are too few for"),
    ],
)
def test_memory_is_decided_on_before_anything_is_read(
    shape: tuple[int, int, int], millimetres: float, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(described(shape, millimetres)))
    with pytest.raises(FileError, match=says):
        load(path)


def test_bounds_let_large_scans_through() -> None:
    assert MOST_VOXELS >= 512**3
    assert np.iinfo(np.int16).max == LONGEST_SIDE


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    reading = threading.Thread(target=read_geometry, args=(tmp_path / "pipe.nii",), daemon=True)
    reading.start()
    reading.join(5)
    assert not reading.is_alive()
