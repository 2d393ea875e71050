"""What the viewer in a web page needs of a scan: grey values and labels on one small grid."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import along, box_around, resampling_matrix
from bidsseg.imaging.grid import Grid, restored, to_ras_order
from bidsseg.imaging.image import Image, nifti_bytes
from bidsseg.segmentation.mosaic import widened, window_of

HIGHEST_CODE = 2**15 - 1
ENTIRE = (slice(None), slice(None), slice(None))
QUALITIES = ((1.0, 1), (1.0, 4), (1.5, 4), (2.0, 4), (3.0, 8))
"(finest spacing in mm, step of the grey values), best first."


@dataclass(frozen=True)
class ViewerVolumes:
    """A scan and its labels for a web page: base64 of gzipped NIfTI files."""

    grey: str
    "uint8, the box around the labels in RAS axes."
    rows: str
    "uint16 on the same grid: the row of each voxel in ``codes``."
    codes: dict[str, list[int]]
    "The code of every row, by scheme: so all schemes need one volume."
    spacing_mm: tuple[float, float, float]
    percent: str = ""
    "uint8 on the same grid, the probability of lesion in percent; empty where none is known."

    @property
    def size(self) -> int:
        return len(self.grey) + len(self.rows) + len(self.percent)


@dataclass(frozen=True)
class Axis:
    """How one RAS axis of the scan is shown."""

    centres: NDArray[np.float64]
    "Scan indices of the shown voxels."
    spacing_mm: float
    is_finer: bool
    "Whether the scan's own voxels are smaller than the shown ones."


def embed(
    one_mm: Image, labels: Mapping[str, Image], max_bytes: int, probability: Image | None = None
) -> ViewerVolumes | None:
    """Pack a scan (on its 1 mm grid) and its label images in the best quality that fits; None if none does.

    The labels and the probability of lesion (0-1) lie on the scan's own grid. Shown voxels are never finer than the
    scan's: along thick slices, they are the slices themselves. Raises ``ValueError`` if the images do not belong
    together.
    """
    first = next(iter(labels.values()))
    grid = first.grid.along_scan
    others = [*labels.values(), *([probability] if probability else [])]
    if one_mm.data.shape != first.grid.shape or any(other.data.shape != first.data.shape for other in others):
        raise ValueError(f"scan {one_mm.data.shape} and labels {first.data.shape} are not on matching grids")
    ordered = {name: to_ras_order(label.data, grid) for name, label in labels.items()}
    percent = None if probability is None else to_ras_order(np.rint(100 * probability.data), grid)
    volume = restored(one_mm.data, first.grid)
    for spacing_mm, step in QUALITIES:
        found = _pack(volume, ordered, percent, grid, (spacing_mm, step))
        if found.size <= max_bytes:
            return found
    return None


def _pack(
    volume: NDArray[np.float32],
    ordered: Mapping[str, NDArray[np.float32]],
    percent: NDArray[np.float32] | None,
    grid: Grid,
    quality: tuple[float, int],
) -> ViewerVolumes:
    finest_mm, step = quality
    first = next(iter(ordered.values()))
    box = widened(box_around(first > 0), first.shape, grid.spacing_mm)
    axes = [shown_axis(side, float(mm), finest_mm) for side, mm in zip(box, grid.spacing_mm, strict=True)]
    shown = {name: _nearest(codes, axes) for name, codes in ordered.items()}
    resampled = _resampled(volume, axes, grid)
    window = window_of(resampled, next(iter(shown.values())), ENTIRE)
    grey = window.levels(resampled) // step * step
    rows, codes_of_row = rows_and_codes(shown)
    affine = shown_affine(axes, grid)
    i, j, k = (axis.spacing_mm for axis in axes)
    chance = "" if percent is None else as_text(_nearest(percent, axes).astype(np.uint8), affine)
    return ViewerVolumes(as_text(grey, affine), as_text(rows, affine), codes_of_row, (i, j, k), chance)


def shown_axis(side: slice, spacing_mm: float, finest_mm: float) -> Axis:
    """The scan's own voxels of the side, or coarser ones over the same length."""
    if spacing_mm >= finest_mm * 0.99:
        return Axis(np.arange(side.start, side.stop, dtype=float), spacing_mm, False)
    count = max(1, round((side.stop - side.start) * spacing_mm / finest_mm))
    step = finest_mm / spacing_mm
    middle = (side.start + side.stop - 1) / 2
    return Axis(middle + (np.arange(count) - (count - 1) / 2) * step, finest_mm, True)


def _nearest(codes: NDArray[np.float32], axes: list[Axis]) -> NDArray[np.uint16]:
    indices = (np.rint(a.centres).astype(int).clip(0, n - 1) for a, n in zip(axes, codes.shape, strict=True))
    shown: NDArray[np.uint16] = codes[np.ix_(*indices)].clip(0, HIGHEST_CODE).astype(np.uint16)
    return shown


def _on_one_mm(axis: Axis, number: int, grid: Grid) -> NDArray[np.float64]:
    """Indices of the 1 mm grid at the shown voxels."""
    centres: NDArray[np.float64] = (axis.centres - grid.start[number]) * grid.spacing_mm[number]
    return centres


def _resampled(volume: NDArray[np.float32], axes: list[Axis], grid: Grid) -> NDArray[np.float32]:
    widths = [axis.spacing_mm if axis.is_finer else 1.0 for axis in axes]
    matrices = [
        resampling_matrix(_on_one_mm(axis, number, grid), volume.shape[number], width)
        for number, (axis, width) in enumerate(zip(axes, widths, strict=True))
    ]
    hits = [np.flatnonzero(matrix.any(0)) for matrix in matrices]
    seen = tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    volume = volume[seen]
    for number, matrix in enumerate(matrices):
        volume = along(matrix[:, seen[number]], volume, number)
    return volume


def shown_affine(axes: list[Axis], grid: Grid) -> NDArray[np.float64]:
    """4x4, indices of the shown grid to RAS mm."""
    scale = np.diag([*(axis.spacing_mm for axis in axes), 1.0])
    scale[:3, 3] = [_on_one_mm(axis, number, grid)[0] for number, axis in enumerate(axes)]
    affine: NDArray[np.float64] = grid.affine @ scale
    return affine


def rows_and_codes(shown: Mapping[str, NDArray[np.uint16]]) -> tuple[NDArray[np.uint16], dict[str, list[int]]]:
    """Number the combinations of codes that occur: (I, J, K) rows, and each scheme's code by row."""
    rows: NDArray[np.int64] = np.zeros(next(iter(shown.values())).shape, np.int64)
    codes_of_row: dict[str, list[int]] = {}
    for name, codes in shown.items():  # rows stay few, so that counting is quicker than sorting
        span = int(codes.max()) + 1
        keys = rows * span + codes
        kinds = np.flatnonzero(np.bincount(keys.reshape(-1)))
        number = np.zeros(kinds[-1] + 1, np.int64)
        number[kinds] = np.arange(len(kinds))
        rows = number[keys]
        codes_of_row = {known: [row[kind // span] for kind in kinds] for known, row in codes_of_row.items()}
        codes_of_row[name] = (kinds % span).tolist()
    return rows.astype(np.uint16), codes_of_row


def as_text(data: NDArray[Any], affine: NDArray[np.float64]) -> str:
    """Base64 of a gzipped NIfTI file."""
    return base64.b64encode(gzip.compress(nifti_bytes(data, affine), 6, mtime=0)).decode("ascii")
