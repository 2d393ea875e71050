"""MGH, NRRD, MetaImage and Analyze: the same voxels in the same places as their own libraries write them."""

from __future__ import annotations

import gzip
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsseg.authorship import has_our_voxels
from bidsseg.errors import FileError
from bidsseg.imaging import stored
from bidsseg.imaging.affines import to_ras
from bidsseg.imaging.image import is_same_grid, load, read_geometry, save

SHAPE = (40, 36, 24)
VALUES = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)
LPS = np.eye(4)
LPS[:3, :3] = Rotation.from_euler("xyz", (12, -20, 33), degrees=True).as_matrix() * (2, 2.5, 4)
LPS[:3, 3] = (-20, 30, -40)
AFFINE = to_ras(LPS)


def by_itk(path: Path, kind: type = np.int16, compressed: bool = False) -> Path:
    image = sitk.GetImageFromArray(VALUES.astype(kind).T)
    spacing = np.linalg.norm(LPS[:3, :3], axis=0)
    image.SetSpacing([float(mm) for mm in spacing])
    image.SetOrigin([float(mm) for mm in LPS[:3, 3]])
    image.SetDirection([float(x) for x in (LPS[:3, :3] / spacing).ravel()])
    sitk.WriteImage(image, str(path), compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "A.MHA"])
@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float32])
def test_nrrd_and_metaimage_as_itk_writes_them(kind: type, name: str, compressed: bool, tmp_path: Path) -> None:
    made = by_itk(tmp_path / name.lower(), kind, compressed)
    if name.isupper():
        made = made.rename(tmp_path / name)
    found = load(made)
    np.testing.assert_array_equal(found.data, VALUES)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-9)
    np.testing.assert_allclose(found.header.get_best_affine(), AFFINE, atol=1e-4)
    assert found.warnings == ()
    assert is_same_grid(found.geometry, read_geometry(made) or found.geometry)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
def test_mgh_as_nibabel_writes_it(kind: type, name: str, tmp_path: Path) -> None:
    values: NDArray[Any] = (VALUES // 16).astype(kind)
    nib.save(nib.MGHImage(values, AFFINE), tmp_path / name)
    found = load(tmp_path / name)
    np.testing.assert_array_equal(found.data, values)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-4)
    assert found.warnings == ()


def test_mgh_without_a_place_is_a_guess(tmp_path: Path) -> None:
    content = bytearray(nib.MGHImage(VALUES, AFFINE).to_bytes())
    struct.pack_into(">h", content, 28, 0)
    (tmp_path / "a.mgh").write_bytes(content)
    found = load(tmp_path / "a.mgh")
    assert nib.aff2axcodes(found.affine) == ("L", "I", "A")
    np.testing.assert_allclose(found.spacing_mm, (2, 2.5, 4), rtol=1e-6)
    assert "left and right are a guess" in found.warnings[0]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_labels_written_as_mgz_are_read_by_nibabel_and_known_as_ours(kind: type, tmp_path: Path) -> None:
    values: NDArray[Any] = (VALUES // 16).astype(kind)
    save(tmp_path / "a.mgz", values, AFFINE)
    theirs = nib.load(tmp_path / "a.mgz")
    np.testing.assert_array_equal(np.asarray(theirs.dataobj), values)
    np.testing.assert_allclose(theirs.affine, AFFINE, atol=1e-4)
    assert has_our_voxels(tmp_path / "a.mgz")
    content = bytearray(gzip.decompress((tmp_path / "a.mgz").read_bytes()))
    content[300] ^= 1
    (tmp_path / "a.mgz").write_bytes(gzip.compress(bytes(content)))
    assert not has_our_voxels(tmp_path / "a.mgz")
    nib.save(nib.MGHImage(VALUES, AFFINE), tmp_path / "theirs.mgz")
    assert not has_our_voxels(tmp_path / "theirs.mgz")


@pytest.mark.parametrize(
    ("orient", "axes"), [(0, "LAS"), (1, "LSA"), (2, "ASL"), (3, "LPS"), (4, "LIA"), (5, "ASR"), (77, "LAS")]
)
def test_analyze_tells_the_plane_of_slices_and_no_side(orient: int, axes: str, tmp_path: Path) -> None:
    nib.save(nib.AnalyzeImage(VALUES, np.diag((-2, 2.5, 4, 1))), tmp_path / "a.img")
    content = bytearray((tmp_path / "a.hdr").read_bytes())
    content[252] = orient
    (tmp_path / "a.hdr").write_bytes(content)
    for name in ("a.hdr", "a.img"):
        found = load(tmp_path / name)
        np.testing.assert_array_equal(found.data, VALUES)
        assert nib.aff2axcodes(found.affine) == tuple(axes)
        np.testing.assert_allclose(found.spacing_mm, (2, 2.5, 4))
        assert "left and right are a guess" in found.warnings[0]


def test_analyze_of_spm_lies_where_its_mat_file_says(tmp_path: Path) -> None:
    nib.save(nib.Spm99AnalyzeImage(VALUES, AFFINE), tmp_path / "a.img")
    assert (tmp_path / "a.mat").exists()
    found = load(tmp_path / "a.img")
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-4)
    assert found.warnings == ()
    (tmp_path / "a.mat").write_bytes(b"damaged")
    assert "a guess" in load(tmp_path / "a.img").warnings[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-600] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "compressed", "damage"),
    [
        *(("a.nrrd", False, cut), ("a.nrrd", True, cut), ("a.nrrd", True, flipped)),
        *(("a.mha", False, cut), ("a.mha", True, cut), ("a.mha", True, flipped)),
    ],
)
def test_damage_is_found(name: str, compressed: bool, damage: Callable[[Path], None], tmp_path: Path) -> None:
    damage(by_itk(tmp_path / name, compressed=compressed))
    with pytest.raises(FileError, match="damaged or truncated"):
        load(tmp_path / name)


NRRD = {"type": "short", "dimension": "3", "sizes": "40 36 24", "encoding": "raw", "endian": "little"}
PLACED = {"space": "LPS", "space directions": "(2,0,0) (0,3,0) (0,0,4)", "space origin": "(1,2,3)"}


def nrrd(fields: dict[str, str]) -> bytes:
    text = "".join(f"{key}: {value}\n" for key, value in fields.items())
    return f"NRRD0004\n{text}\n".encode() + VALUES.tobytes("F")


@pytest.mark.parametrize(
    ("fields", "first_row"),
    [
        ({"space": "left-posterior-superior"}, [-2, 0, 0, -1]),
        ({"space": "right-anterior-superior"}, [2, 0, 0, 1]),
        ({"space": "LAS"}, [-2, 0, 0, -1]),
        ({"space directions": "(0,3,0) (2,0,0) (0,0,4)"}, [0, -2, 0, -1]),
        ({"sizes": "1 40 36 24", "dimension": "4", "space directions": "none (2,0,0) (0,3,0) (0,0,4)"}, [-2, 0, 0, -1]),
    ],
)
def test_spaces_of_nrrd(fields: dict[str, str], first_row: list[float], tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(nrrd(NRRD | PLACED | fields))
    found = load(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(found.affine[0], first_row)
    np.testing.assert_array_equal(found.data, VALUES)


@pytest.mark.parametrize("fields", [{"spacings": "2 3 4"}, {"space": "scanner-xyz", **dict(list(PLACED.items())[1:])}])
def test_nrrd_without_a_space_is_a_guess(fields: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(nrrd(NRRD | fields))
    found = load(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(np.diag(found.affine), (-2, 3, 4, 1))
    assert "left and right are a guess" in found.warnings[0]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sizes": ""}, "a header without sizes"),
        ({"sizes": "40 x 24"}, "a header that cannot be read"),
        ({"sizes": "40 36 24 5", "space directions": "none (2,0,0) (0,3,0) (0,0,4)"}, "4D, 40 x 36 x 24 x 5"),
        ({"sizes": "4000 4000 4000"}, "4000 x 4000 x 4000 voxels"),
        ({"sizes": "40 36 30"}, "bytes are too few for"),
        ({"encoding": "ascii"}, "encoding ascii; save it as numbers"),
        ({"type": "block"}, "type block"),
        ({"space directions": "(2,0) (0,3) (0,4)"}, "does not have three numbers"),
        ({"space directions": "(0,0,0) (0,3,0) (0,0,4)"}, "no usable voxel size"),
        ({"space directions": "(nan,0,0) (0,3,0) (0,0,4)"}, "no usable voxel size"),
        ({"data file": "../secret.raw"}, "put both files into one folder"),
        ({"data file": "/etc/passwd"}, "put both files into one folder"),
        ({"data file": "missing.raw"}, "no such file"),
        ({"byte skip": "-1"}, "skips a part"),
    ],
)
def test_what_an_nrrd_lacks_is_told_in_one_line(fields: dict[str, str], says: str, tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(nrrd(NRRD | PLACED | fields))
    with pytest.raises(FileError, match=r"(a\.nrrd|missing\.raw): ") as caught:
        load(tmp_path / "a.nrrd")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"MET_SHORT", b"MET_STRING", "ElementType MET_STRING"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = ../a.raw", "put both files into one folder"),
        (b"ElementDataFile = LOCAL", b"ElementDataFile = LIST", "in several files"),
        (b"BinaryData = True", b"BinaryData = False", "without binary voxels"),
        (b"DimSize = 40 36 24", b"DimSize = 40 36 24 7", "4D, 40 x 36 x 24 x 7"),
        (b"DimSize = 40 36 24", b"DimSize = 9000 9000 9000", "9000 x 9000 x 9000 voxels"),
        (b"ElementSpacing = ", b"ElementSpacing = 0 2 2\nUnused = ", "no usable voxel size"),
    ],
)
def test_what_a_metaimage_lacks_is_told_in_one_line(old: bytes, new: bytes, says: str, tmp_path: Path) -> None:
    content = by_itk(tmp_path / "a.mha").read_bytes()
    assert old in content
    (tmp_path / "a.mha").write_bytes(content.replace(old, new))
    with pytest.raises(FileError) as caught:
        load(tmp_path / "a.mha")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_small_file_unpacks_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb: far more packed bytes than the header says."""
    monkeypatch.setattr(stored, "FOLLOWS_AT_MOST", 4000)
    raw = VALUES.tobytes("F") + bytes(5_000_000)
    header = nrrd(NRRD | PLACED | {"encoding": "gzip"}).partition(b"\n\n")[0] + b"\n\n"
    (tmp_path / "a.nrrd").write_bytes(header + gzip.compress(raw))
    with pytest.raises(FileError, match="far more bytes than its header says"):
        load(tmp_path / "a.nrrd")


def test_a_compressed_file_of_voxels_beside_a_header(tmp_path: Path) -> None:
    by_itk(tmp_path / "a.nhdr", compressed=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nhdr", "a.raw.gz"]
    moved = shutil.copytree(tmp_path, tmp_path / "moved")
    np.testing.assert_array_equal(load(moved / "a.nhdr").data, VALUES)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mgh", "a.hdr"])
def test_damaged_headers_end_in_an_image_or_in_one_line(name: str, tmp_path: Path) -> None:
    """Bytes of the header are changed, a few hundred times, by a seed."""
    path = tmp_path / name
    if name == "a.mgh":
        nib.save(nib.MGHImage(VALUES, AFFINE), path)
    elif name == "a.hdr":
        nib.save(nib.AnalyzeImage(VALUES, np.diag((-2, 2.5, 4, 1))), tmp_path / "a.img")
    else:
        by_itk(path)
    sound, chance = path.read_bytes(), random.Random(0)
    told: list[str] = []
    length = {"a.mgh": 90, "a.hdr": 348}.get(name, sound.find(b"\n\n") if name == "a.nrrd" else sound.find(b"LOCAL"))
    for _ in range(300):
        content = bytearray(sound)
        for _ in range(chance.choice((1, 1, 2, 5))):
            content[chance.randrange(length)] = chance.choice((0, 1, 9, 10, 32, 45, 48, 57, 127, 128, 255))
        path.write_bytes(content)
        try:
            found = load(path)
        except FileError as error:
            told.append(str(error))
        else:
            assert np.isfinite(found.affine).all()
            assert np.isfinite(found.data).all()
    assert all(map(str.isprintable, told))
    assert 0 < len(told) < 300
