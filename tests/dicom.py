"""DICOM series as scanners store them, written by SimpleITK from arrays with known values and places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from bidsseg.imaging.affines import Affine, to_ras, voxel_spacing_mm

MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
Tags = dict[str, str]


@dataclass(frozen=True)
class Series:
    """How a volume is stored; ``change`` may alter the tags of the file with a number, or leave it out (None)."""

    uid: str = "1.2.826.0.1.1"
    number: int = 5
    description: str = "T1w"
    backwards: bool = False
    compressed: bool = False
    thickness_mm: float | None = None
    "As the header has it, which need not be the distance of slices; None is that distance."
    change: Callable[[int, Tags], Tags | None] = field(default=lambda _, tags: tags)


def write_series(folder: Path, data: NDArray[Any], affine: Affine, series: Series | None = None) -> Path:
    """Write int16 or uint16 data (I, J, K) with a 4x4 affine to RAS mm, one file for each of K; the first two axes and
    the third must be at right angles."""
    series = series or Series()
    folder.mkdir(parents=True, exist_ok=True)
    lps, spacing = to_ras(affine), voxel_spacing_mm(affine)
    count = data.shape[2]
    for number, k in enumerate(reversed(range(count)) if series.backwards else range(count)):
        place = lps[:3, 3] + k * lps[:3, 2]
        directions = np.concatenate([lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]])
        tags = {
            "0008|0016": MR_STORAGE, "0008|0018": f"{series.uid}.{number + 1}", "0008|0060": "MR",
            "0008|103e": series.description, "0010|0010": "Test^Patient", "0010|0020": "1",
            "0018|0050": f"{series.thickness_mm or spacing[2]:.6g}", "0020|000d": "1.2.826.0.1",
            "0020|000e": series.uid, "0020|0011": str(series.number), "0020|0013": str(number + 1),
            "0020|0032": "\\".join(f"{x:.6f}" for x in place), "0020|0037": "\\".join(f"{x:.9f}" for x in directions),
            "0020|0052": "1.2.826.0.2",
        }  # fmt: skip
        changed = series.change(number, tags)
        if changed is not None:
            _write(folder / f"{series.number}-{(number * 7) % count:03d}.dcm", data[:, :, k], spacing, changed, series)
    return folder


def _write(file: Path, values: NDArray[Any], spacing: NDArray[np.float64], tags: Tags, series: Series) -> None:
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing((float(spacing[0]), float(spacing[1])))
    for tag, value in tags.items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(series.compressed)
    writer.SetFileName(str(file))
    writer.Execute(image)
