"""DICOM series: every voxel in its place, or one line that says why not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsseg.cli.demo import SLICE_MM, average_slices, template
from bidsseg.errors import FileError
from bidsseg.imaging.affines import Affine, to_ras
from bidsseg.imaging.image import Image, load
from tests.dicom import Series, Tags, write_series

SHAPE = (20, 24, 9)
VALUES = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.int16)
AFFINE = to_ras(np.array([[3.2, 0, 0, -30], [0, 2.6, 0, -40], [0, 0, 7, -25], [0, 0, 0, 1]]))


def turned(degrees: tuple[float, float, float]) -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return matrix @ AFFINE


def assert_same_voxels(found: Image, values: NDArray[np.generic], affine: Affine) -> None:
    """Whether both have the same grey values at the same places, whatever the direction of the third axis."""
    to_values = np.linalg.inv(affine) @ found.affine
    indices = np.argwhere(np.ones(found.data.shape, bool))
    places = indices @ to_values[:3, :3].T + to_values[:3, 3]
    np.testing.assert_allclose(places, np.rint(places), atol=2e-3)
    np.testing.assert_array_equal(found.data.ravel(), values[tuple(np.rint(places).astype(int).T)])


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("degrees", [(0, 0, 0), (12, -20, 33), (90, 0, 0), (0, 90, 5)])
def test_voxels_lie_where_the_scanner_put_them(
    degrees: tuple[float, float, float], compressed: bool, backwards: bool, tmp_path: Path
) -> None:
    series = Series(backwards=backwards, compressed=compressed)
    found = load(write_series(tmp_path / "dicom", VALUES, turned(degrees), series))
    assert_same_voxels(found, VALUES, turned(degrees))
    assert found.warnings == ()
    assert len(found.slices) == SHAPE[2]


def test_the_distance_of_slices_is_that_of_their_places_not_their_thickness(tmp_path: Path) -> None:
    found = load(write_series(tmp_path, VALUES, AFFINE, Series(thickness_mm=4)))
    np.testing.assert_allclose(found.spacing_mm, (3.2, 2.6, 7), atol=1e-5)


def test_it_agrees_with_the_reader_of_itk(tmp_path: Path) -> None:
    found = load(write_series(tmp_path, VALUES, turned((12, -20, 33)), Series(backwards=True)))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    itk = sitk.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(itk.GetDirection(), (3, 3)) * itk.GetSpacing()
    affine[:3, 3] = itk.GetOrigin()
    np.testing.assert_allclose(found.affine, to_ras(affine), atol=1e-4)
    np.testing.assert_array_equal(found.data, sitk.GetArrayFromImage(itk).transpose(2, 1, 0))


@pytest.mark.parametrize("axes", ["LPS", "ASL", "LIP"])
def test_the_packaged_scan_comes_back_from_dicom(axes: str, tmp_path: Path) -> None:
    """In slices across each axis, as a sagittal or coronal series has them."""
    scan = template()
    thick = scan.affine @ np.diag((1.0, 1.0, SLICE_MM, 1.0))
    data = np.rint(average_slices(scan.data, SLICE_MM) / scan.data.max() * 4000).astype(np.int16)[::4, ::4]
    thick = thick @ np.diag((4.0, 4.0, 1.0, 1.0))
    turn = ornt_transform(np.array([[0, 1], [1, 1], [2, 1]]), _axes(axes))
    stored, affine = apply_orientation(data, turn), thick @ inv_ornt_aff(turn, data.shape)
    assert_same_voxels(load(write_series(tmp_path, stored, affine)), data, thick)


def _axes(letters: str) -> NDArray[np.float64]:
    pairs = ("LR", "PA", "IS")
    found = [(n, pair.index(letter)) for letter in letters for n, pair in enumerate(pairs) if letter in pair]
    return np.array([[axis, 1 if positive else -1] for axis, positive in found], float)


def without(*numbers: int) -> Series:
    return Series(change=lambda number, tags: None if number in numbers else tags)


def changed(number: int, tag: str, value: str) -> Series:
    return Series(change=lambda n, tags: tags | {tag: value} if n == number else tags)


def every(tag: str, value: str) -> Series:
    return Series(change=lambda _, tags: tags | {tag: value})


def localiser(number: int, tags: Tags) -> Tags:
    planes = ("1\\0\\0\\0\\1\\0", "1\\0\\0\\0\\0\\-1", "0\\1\\0\\0\\0\\-1")
    return tags | {"0020|0037": planes[number // 3]}


@pytest.mark.parametrize(
    ("series", "says"),
    [
        (without(4), "1 of 9 slices are missing (distance of slices 7 mm); copy or export the whole series"),
        (without(2, 3, 6), "3 of 9 slices are missing"),
        (changed(4, "0020|0032", "-30\\-40\\5"), "unevenly spaced slices, 5 to 9 mm apart; convert it to NIfTI"),
        (changed(4, "0020|0032", "-30\\-40\\-11"), "several at one position: more than one volume in this series"),
        (Series(change=localiser), "3 DICOM series: 1 = T1w (axial, 3 images), 2 = T1w (coronal, 3 images), 3 = T1w"),
        (every("0008|0008", "ORIGINAL\\PRIMARY\\M\\MOSAIC"), "a mosaic of slices in one DICOM image"),
    ],
)
def test_what_makes_no_volume_is_told_in_one_line(series: Series, says: str, tmp_path: Path) -> None:
    write_series(tmp_path / "dicom", VALUES, AFFINE, series)
    with pytest.raises(FileError) as caught:
        load(tmp_path / "dicom")
    assert str(caught.value).startswith(f"{tmp_path / 'dicom'}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_positions_rounded_by_the_scanner_are_even(tmp_path: Path) -> None:
    series = Series(change=lambda k, tags: tags | {"0020|0032": f"-30\\-40\\{round(-25 + 7 * k + 0.2 * (k % 2), 1)}"})
    assert load(write_series(tmp_path, VALUES, AFFINE, series)).spacing_mm[2] == pytest.approx(7, abs=0.05)


def two_series(folder: Path) -> Path:
    """One of them below the other's folder, as on a disk from a hospital; numbers 3 and 5."""
    write_series(folder / "DICOM" / "ST0", VALUES, AFFINE)
    write_series(folder / "DICOM", VALUES[::-1], AFFINE, Series("1.2.826.0.1.77", 3, "t2 [flair]\x1b"))
    return folder


def test_several_series_are_listed_and_chosen_by_number_or_uid(tmp_path: Path) -> None:
    two_series(tmp_path)
    with pytest.raises(FileError) as caught:
        load(tmp_path)
    assert "2 DICOM series: 1 = t2 [flair]" in str(caught.value)
    assert "2 = T1w (axial, 9 images); choose one with --series" in str(caught.value)
    assert str(caught.value).isprintable()
    for choice, values in (
        ("1", VALUES[::-1]),
        ("1.2.826.0.1.77", VALUES[::-1]),
        ("2", VALUES),
        ("1.2.826.0.1.1", VALUES),
    ):
        assert_same_voxels(load(tmp_path, series=choice), values, AFFINE)
    for wrong in ("0", "3", "1.2", ""):
        with pytest.raises(FileError, match="no series"):
            load(tmp_path, series=wrong)


def echo_of(echo: str, number: int, tags: Tags) -> Tags:
    return tags | {"0018|0081": echo, "0008|0018": f"1.{echo}.{number}"}


def test_two_echoes_of_one_series_are_two(tmp_path: Path) -> None:
    for number, echo in enumerate(("12", "90")):
        series = Series(number=number, change=partial(echo_of, echo))
        write_series(tmp_path, VALUES + number, AFFINE, series)
    with pytest.raises(FileError, match=r"1 = T1w \(axial, TE 12, 9 images\), 2 = T1w \(axial, TE 90, 9 images\)"):
        load(tmp_path)
    with pytest.raises(FileError, match="2 volumes in series"):
        load(tmp_path, series=Series.uid)
    assert_same_voxels(load(tmp_path, series="2"), VALUES + 1, AFFINE)


def test_the_same_file_twice_counts_once(tmp_path: Path) -> None:
    write_series(tmp_path, VALUES, AFFINE)
    some = next(tmp_path.iterdir())
    (tmp_path / "copy.dcm").write_bytes(some.read_bytes())
    assert_same_voxels(load(tmp_path), VALUES, AFFINE)


def test_other_files_are_passed_over_and_damaged_ones_counted(tmp_path: Path) -> None:
    write_series(tmp_path, VALUES, AFFINE)
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "scan_dseg.nii.gz").write_bytes(b"\x1f\x8b and so on")
    report = bytes(128) + b"DICM" + b"\2\0\2\0UI\x1e\0" + b"1.2.840.10008.5.1.4.1.1.88.11\0"
    (tmp_path / "report.dcm").write_bytes(report)
    assert load(tmp_path).warnings == ()
    (tmp_path / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + bytes(300))
    assert load(tmp_path).warnings == ("1 DICOM files contain no readable image; they were left out",)


def test_a_slice_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The last slice is cut short after its header was read."""
    write_series(tmp_path, VALUES, AFFINE)
    from bidsseg.imaging.formats import read_header, read_voxels

    stored = read_header(tmp_path)
    stored.slices[3].write_bytes(stored.slices[3].read_bytes()[:-200])
    with pytest.raises(FileError, match=f"{stored.slices[3].name}: a DICOM slice that is damaged"):
        read_voxels(stored)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "a folder without DICOM images"),
        ({"a.txt": b"text"}, "a folder without DICOM images"),
        ({"a.dcm": bytes(128) + b"DICM" + bytes(300)}, "1 DICOM files, none of them a readable image"),
        ({"a.dcm": bytes(128) + b"DICM\2\0\2\0UI\x1e\0001.2.840.10008.5.1.4.1.1.88.11\0"}, "without DICOM images"),
    ],
)
def test_a_folder_without_a_series(files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=says):
        load(tmp_path)


def test_multi_frame_and_colour_are_called_by_their_name(tmp_path: Path) -> None:
    several, colour = tmp_path / "frames", tmp_path / "colour"
    for folder in (several, colour):
        folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray((VALUES.T // 16).astype(np.uint8)), str(several / "a.dcm"))
    rgb = np.zeros((20, 24, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(rgb, isVector=True), str(colour / "a.dcm"))
    with pytest.raises(FileError, match=r"a multi-frame DICOM file \(9 frames\); convert it"):
        load(several)
    with pytest.raises(FileError, match="in colour"):
        load(colour)
    with pytest.raises(FileError, match="a single DICOM file; give the folder with its series"):
        load(several / "a.dcm")


def test_one_slice_is_as_thick_as_its_header_says(tmp_path: Path) -> None:
    found = load(write_series(tmp_path, VALUES[:, :, :1], AFFINE, Series(thickness_mm=5)))
    np.testing.assert_allclose(found.spacing_mm, (3.2, 2.6, 5), atol=1e-5)


def test_size_is_decided_on_before_voxels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bidsseg.imaging import dicom, stored

    monkeypatch.setattr(stored, "MOST_VOXELS", 4000)
    monkeypatch.setattr(dicom.Slices, "read", lambda *_: pytest.fail("voxels were read"))
    with pytest.raises(FileError, match="20 x 24 x 9 voxels"):
        load(write_series(tmp_path, VALUES, AFFINE))
    monkeypatch.setattr(dicom, "MOST_FILES", 5)
    with pytest.raises(FileError, match="more than 5 files; give the folder of one series"):
        load(tmp_path)


def test_no_series_is_chosen_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(bytes(400))
    with pytest.raises(FileError, match="leave out --series"):
        load(tmp_path / "a.nii", series="1")
