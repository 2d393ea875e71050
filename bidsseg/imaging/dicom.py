"""DICOM series in a folder: found, placed by the positions of their slices, and read by SimpleITK (and so by GDCM).

Order and spacing of slices follow from where each one lies, never from names, instance numbers or thickness, so that
either order and gaps between slices come out right. What is no stack of parallel slices at even distances is refused.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from bidsseg.errors import FileError, plain
from bidsseg.imaging.affines import Affine, placed_at, to_ras
from bidsseg.imaging.stored import Floats, Shape, Stored, checked_shape

Vector = NDArray[np.float64]
MOST_FILES = 20_000
"Looked at in one folder."
SAME_DIRECTION = 1e-3
"Direction cosines that differ by less agree."
SAME_PLACE_MM = 0.01
UNEVEN_SHARE = 0.1
"How far a slice may lie from where even spacing puts it, as a share of that spacing: scanners round positions."
MISSING_SHARE = 1.5
"A gap of this many usual ones lacks a slice."
SOP_CLASS = b"\x02\0\x02\0UI"
"Group, element and type of the class of an object, in the first bytes of a DICOM file."
NO_IMAGES = tuple(
    f"1.2.840.10008.{root}"
    for root in ("1.3.10", "5.1.4.1.1.9.", "5.1.4.1.1.11.", "5.1.4.1.1.66", "5.1.4.1.1.88.", "5.1.4.1.1.104.")
)
"Classes that are no scans: DICOMDIR, curves, presentation states, segmentations, reports, documents."
ADVICE = "convert it to NIfTI, for instance with dcm2niix"


@dataclass(frozen=True)
class Slice:
    """The header of one DICOM file."""

    file: Path
    tags: dict[str, str]
    "Values by group and element, as in ``0020|000e``; those of ``TAGS``."
    size: tuple[int, ...]
    "Columns, rows and frames."
    components: int

    @cached_property
    def position(self) -> Vector:
        """Of the first voxel, in mm to left, posterior, superior; empty where it is missing."""
        return _numbers(self.tags.get("0020|0032", ""), 3)

    @cached_property
    def directions(self) -> Vector:
        """Of a row and of a column, (6,); empty where they are missing."""
        return _numbers(self.tags.get("0020|0037", ""), 6)

    @cached_property
    def spacing_mm(self) -> Vector:
        """From row to row, and from column to column; empty where it is missing."""
        return _numbers(self.tags.get("0028|0030", ""), 2)

    @property
    def frames(self) -> int:
        return self.size[2] if len(self.size) > 2 else 1

    def goes_with(self, other: Slice) -> bool:
        """Whether two files of one series are slices of one volume: size, echo and direction are the same."""
        same = self.size == other.size and self.tags.get("0018|0081") == other.tags.get("0018|0081")
        if not same or self.directions.shape != other.directions.shape:
            return False
        return bool(np.allclose(self.directions, other.directions, atol=SAME_DIRECTION))


TAGS = {
    "0008|0008": "ImageType",
    "0008|0018": "SOPInstanceUID",
    "0008|103e": "SeriesDescription",
    "0018|0050": "SliceThickness",
    "0018|0081": "EchoTime",
    "0018|0088": "SpacingBetweenSlices",
    "0020|000e": "SeriesInstanceUID",
    "0020|0011": "SeriesNumber",
    "0020|0032": "ImagePositionPatient",
    "0020|0037": "ImageOrientationPatient",
    "0028|0030": "PixelSpacing",
}
"What is read of a header."


@dataclass(frozen=True)
class Slices:
    """The voxels of a series, one file for each slice."""

    files: tuple[Path, ...]

    def read(self, path: Path, shape: Shape) -> tuple[Floats, list[str]]:
        """See ``stored.Voxels``; GDCM scales each slice by its own slope."""
        data = np.empty(shape, np.float32, order="F")
        reader = _reader()
        for k, file in enumerate(self.files):
            reader.SetFileName(os.fspath(file))
            try:
                image = reader.Execute()  # named, for the view below does not keep it alive
                data[:, :, k] = sitk.GetArrayViewFromImage(image).reshape(shape[1], shape[0]).T
            except (RuntimeError, ValueError):
                raise FileError(file, "a DICOM slice that is damaged, or whose compression is not supported",
                                "copy or export it again, or convert the series with dcm2niix") from None  # fmt: skip
        return data, []


def read_series(folder: Path, choice: str | None) -> Stored:
    """Describe the one DICOM series in a folder and the folders below, or the one that ``choice`` names.

    ``choice`` is a number in the list that is shown where there are several, or a series' UID. Raises ``FileError``
    where there is none, where it has to be chosen, and where its slices make no volume.
    """
    slices, unread = _find(folder)
    series = _grouped(slices)
    if not series:
        found = f"{unread} DICOM files, none of them a readable image" if unread else "a folder without DICOM images"
        raise FileError(folder, found, "give a folder with a DICOM series, or an image file")
    chosen = _chosen(folder, series, choice)
    _check_single_frames(folder, chosen)
    ordered, affine = _stack(folder, chosen)
    columns, rows = ordered[0].size[:2]
    shape = checked_shape(folder, [columns, rows, len(ordered)])
    warning = f"{unread} DICOM files contain no readable image; they were left out"
    files = tuple(each.file for each in ordered)
    return Stored(folder, shape, placed_at(to_ras(affine), shape), Slices(files), (warning,) if unread else (), files)


def _find(folder: Path) -> tuple[list[Slice], int]:
    """The headers of all images, each once, and how many other DICOM files there are that might be images."""
    reader = _reader()
    found: dict[str, Slice] = {}
    unread = 0
    for file in _dicom_files(folder):
        reader.SetFileName(os.fspath(file))
        try:
            reader.ReadImageInformation()
        except (RuntimeError, ValueError):  # GDCM says little of why
            unread += 1
            continue
        present = set(reader.GetMetaDataKeys())
        tags = {tag: _text(reader, tag) for tag in TAGS if tag in present}
        each = Slice(file, tags, tuple(reader.GetSize()), reader.GetNumberOfComponents())
        found.setdefault(tags.get("0008|0018") or os.fspath(file), each)
    return list(found.values()), unread


def _text(reader: Any, tag: str) -> str:
    try:
        return " ".join(str(reader.GetMetaData(tag)).replace("\0", " ").split())
    except (RuntimeError, ValueError):
        return ""


def _reader() -> Any:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    return reader


def _dicom_files(folder: Path) -> Iterator[Path]:
    looked_at = 0
    for where, below, names in os.walk(folder):
        below.sort()
        for name in sorted(names):
            looked_at += 1
            if looked_at > MOST_FILES:
                raise FileError(folder, f"more than {MOST_FILES} files", "give the folder of one series")
            file = Path(where, name)
            if file.is_file() and _may_be_an_image(file):
                yield file


def _may_be_an_image(file: Path) -> bool:
    """Whether a file is DICOM, of a class that may be a scan."""
    try:
        with file.open("rb") as opened:
            head = opened.read(1024)
    except OSError:
        return False
    if head[128:132] != b"DICM":
        return head[:2] == b"\x08\0" and head[3:4] == b"\0"  # as before DICOM had a preamble
    at = head.find(SOP_CLASS) + len(SOP_CLASS)
    if at < len(SOP_CLASS) or at + 2 > len(head):
        return True
    (length,) = struct.unpack_from("<H", head, at)
    return not head[at + 2 : at + 2 + length].decode("latin-1").startswith(NO_IMAGES)


def _grouped(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The volumes of all series, in the order of their numbers; a series of several echoes or directions has more."""
    groups: list[list[Slice]] = []
    for each in slices:
        uid = each.tags.get("0020|000e")
        known = (g for g in groups if g[0].tags.get("0020|000e") == uid and g[0].goes_with(each))
        group = next(known, None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    return sorted(groups, key=lambda group: _number(group[0].tags.get("0020|0011", "")))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _chosen(folder: Path, series: list[list[Slice]], choice: str | None) -> list[Slice]:
    listed = [(str(n), group) for n, group in enumerate(series, 1)]
    if choice is not None:
        named = [group for n, group in listed if choice.strip() in (n, group[0].tags.get("0020|000e"))]
        if len(named) == 1:
            return named[0]
        found = "no" if not named else f"{len(named)} volumes in"
        raise FileError(
            folder, f"{found} series {choice}; there are {_in_words(listed)}", "choose one by its number in this list"
        )
    if len(series) > 1:
        raise FileError(
            folder, f"{len(series)} DICOM series: {_in_words(listed)}", "choose one with --series, by number or UID"
        )
    return series[0]


def _in_words(listed: list[tuple[str, list[Slice]]]) -> str:
    return ", ".join(f"{number} = {_description(group)}" for number, group in listed)


def _description(group: list[Slice]) -> str:
    first = group[0]
    name = plain(first.tags.get("0008|103e", "")) or "unnamed"
    echo = first.tags.get("0018|0081", "")
    plane = _plane(first)
    details = [*([plane] if plane else []), *([f"TE {_number(echo):g}"] if echo else [])]
    count = len(group) * first.frames
    return f"{name} ({', '.join([*details, f'{count} image' + ('s' if count > 1 else '')])})"


def _plane(first: Slice) -> str:
    if len(first.directions) != 6:
        return ""
    normal = np.cross(first.directions[:3], first.directions[3:])
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def _check_single_frames(folder: Path, slices: list[Slice]) -> None:
    """Raise ``FileError`` for what is no stack of grey slices with a place each."""
    first = slices[0]
    if first.components > 1:
        raise FileError(folder, "DICOM images in colour", "choose a greyscale series")
    if first.frames > 1:
        raise FileError(folder, f"a multi-frame DICOM file ({first.frames} frames)", ADVICE)
    if "MOSAIC" in first.tags.get("0008|0008", ""):
        raise FileError(folder, "a mosaic of slices in one DICOM image", ADVICE)
    lacking = [each for each in slices if not (len(each.position) and len(each.directions) and len(each.spacing_mm))]
    if lacking:
        raise FileError(lacking[0].file, "a DICOM image without position, direction or pixel spacing",
                        "export the original series, not screenshots of it")  # fmt: skip


def _stack(folder: Path, slices: list[Slice]) -> tuple[list[Slice], Affine]:
    """The slices in the order in which they lie, and the affine of their volume to left, posterior, superior."""
    row, column = slices[0].directions[:3], slices[0].directions[3:]
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda each: float(each.position @ normal))
    positions = np.array([each.position for each in ordered])
    if any(not np.allclose(each.spacing_mm, ordered[0].spacing_mm, rtol=1e-3) for each in ordered):
        raise FileError(folder, "slices with different pixel spacings", ADVICE)
    affine = np.eye(4)
    affine[:3, 0] = row * ordered[0].spacing_mm[1]
    affine[:3, 1] = column * ordered[0].spacing_mm[0]
    affine[:3, 2] = _step(folder, ordered[0], positions, normal)
    affine[:3, 3] = positions[0]
    return ordered, affine


def _step(folder: Path, first: Slice, positions: Vector, normal: Vector) -> Vector:
    """From one slice to the next, in mm (3,), for positions (slices, 3) in their order."""
    if len(positions) == 1:
        apart = max(_number(first.tags.get(tag, "0")) for tag in ("0018|0088", "0018|0050"))
        return normal * apart  # what is no length is refused with the affine
    gaps = np.diff(positions @ normal)
    if gaps.min() < SAME_PLACE_MM:
        found = f"{len(positions)} slices, but several at one position: more than one volume in this series"
        raise FileError(folder, found, "give only one volume; dcm2niix can separate them")
    usual = float(np.median(gaps))
    missing = int(sum(max(round(gap / usual) - 1, 0) for gap in gaps if gap > MISSING_SHARE * usual))
    if missing:
        found = f"{missing} of {len(positions) + missing} slices are missing (distance of slices {usual:.3g} mm)"
        raise FileError(folder, found, "copy or export the whole series")
    step: Vector = (positions[-1] - positions[0]) / (len(positions) - 1)
    even = positions[0] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - even, axis=1).max() > UNEVEN_SHARE * usual:
        raise FileError(folder, f"unevenly spaced slices, {gaps.min():.3g} to {gaps.max():.3g} mm apart", ADVICE)
    return step


def _numbers(text: str, count: int) -> Vector:
    """So many numbers with backslashes between them; empty where they are something else."""
    try:
        found = np.array([float(word) for word in text.split("\\")])
    except ValueError:
        found = np.empty(0)
    return found if found.shape == (count,) and np.isfinite(found).all() else np.empty(0)
