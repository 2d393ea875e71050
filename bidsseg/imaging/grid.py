"""The 1 mm RAS grid of a scan: the way to it, and the way back to the scan's own grid.

Conforming permutes, flips and rescales the axes but never rotates: an oblique scan keeps its own axes, which lie within
45 degrees of RAS and mostly follow the anatomy. So every step is one matrix per axis, flips are exact, and the way back
loses nothing to interpolation across slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.imaging.arrays import Box, Floats, along, as_float32, resampling_matrix

if TYPE_CHECKING:
    from bidsseg.imaging.image import Image

SAME_SPACING = 2e-3
"Spacings this close to 1 mm count as 1 mm: over 256 voxels that is a quarter of a voxel at the edge."

SLAB_FLOATS, FEW_FLOATS = 48_000_000, 6_000_000
"Probabilities resampled at once, and where memory is short."


@dataclass(frozen=True)
class Grid:
    """The 1 mm RAS grid of a scan, and how its axes come from the scan's."""

    native_shape: tuple[int, int, int]
    native_affine: NDArray[np.float64]
    orientation: NDArray[np.float64]
    "nibabel orientation (3, 2) from the scan's axes to RAS."
    spacing_mm: NDArray[np.float64]
    "The scan's spacing along the RAS axes, (3,)."
    shape: tuple[int, int, int]
    "Shape of the 1 mm grid."

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """The scan's shape with its axes in RAS order."""
        order = np.argsort(self.orientation[:, 0])
        i, j, k = (self.native_shape[axis] for axis in order)
        return i, j, k

    @property
    def start(self) -> NDArray[np.float64]:
        """Scan index (RAS axis order) of the 1 mm grid's voxel 0; both fields of view share their centre. (3,)"""
        return (np.array(self.canonical_shape) - 1) / 2 - (np.array(self.shape) - 1) / 2 / self.spacing_mm

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, indices of the 1 mm grid to RAS mm."""
        scale = np.diag((*(1 / self.spacing_mm), 1.0))
        scale[:3, 3] = self.start
        canonical = self.native_affine @ inv_ornt_aff(self.orientation, self.native_shape)
        affine: NDArray[np.float64] = canonical @ scale
        return affine


def grid_of(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """The 1 mm RAS grid over the field of view of a (I, J, K) scan."""
    orientation = io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    spacing = voxel_spacing_mm(affine)[order]
    spacing = np.where(np.abs(spacing - 1) < SAME_SPACING, 1.0, spacing)
    i, j, k = (max(1, int(np.ceil(shape[axis] * mm - 1e-3))) for axis, mm in zip(order, spacing, strict=True))
    return Grid((shape[0], shape[1], shape[2]), affine, orientation, spacing, (i, j, k))


def conform(image: Image) -> tuple[Floats, Grid]:
    """Resample a scan to 1 mm RAS: (I, J, K) float32 and its grid. Thick slices are interpolated linearly."""
    grid = image.grid
    volume: Floats = np.ascontiguousarray(apply_orientation(image.data, grid.orientation), dtype=np.float32)
    for axis in np.argsort(-grid.spacing_mm)[::-1]:  # finest first: it shrinks the volume
        volume = along(_to_grid(grid, int(axis)), volume, int(axis))
    return volume, grid


def _to_grid(grid: Grid, axis: int) -> Floats | None:
    """(1 mm voxels, scan voxels) of one RAS axis; None where that is the identity."""
    if grid.spacing_mm[axis] == 1:
        return None
    centres = grid.start[axis] + np.arange(grid.shape[axis]) / grid.spacing_mm[axis]
    return resampling_matrix(centres, grid.canonical_shape[axis], 1 / grid.spacing_mm[axis])


def _from_grid(grid: Grid, axis: int) -> Floats:
    """(scan voxels, 1 mm voxels) of one RAS axis."""
    centres = (np.arange(grid.canonical_shape[axis]) - grid.start[axis]) * grid.spacing_mm[axis]
    return resampling_matrix(centres, grid.shape[axis], float(grid.spacing_mm[axis]))


@dataclass(frozen=True)
class Slab:
    """Some slices of the scan's grid, in RAS axis order, and how to resample channels of a 1 mm box to them."""

    window: Box
    "Where it lies in the canonical (RAS-ordered) scan."
    matrices: tuple[Floats | None, Floats | None, Floats | None]
    "One matrix for each axis; None is the identity."
    used: slice
    "Along the box's first axis."

    def of(self, channels: NDArray[Any], where: NDArray[np.bool_] | None = None) -> Floats:
        """Resample channels (C, I, J, K): (C, i, j, k), or (C, N) of the N voxels of the slab asked for."""
        part: Floats = channels[:, self.used]
        if where is not None and all(matrix is None for matrix in self.matrices):
            return as_float32(part[:, where])
        part = as_float32(part)
        for axis in (2, 1, 0):
            part = along(self.matrices[axis], part, axis)
        return part if where is None else part[:, where]


def slabs(
    box: tuple[int, ...], origin: tuple[int, int, int], grid: Grid, channels: int, max_floats: int = SLAB_FLOATS
) -> Iterator[Slab]:
    """Ways back from a box (I, J, K) of the 1 mm grid that begins at ``origin`` onto the scan's own grid.

    A scan voxel thicker than 1 mm gets the mean over its thickness. Yields slabs of which so many channels are at most
    about ``max_floats`` numbers; scan voxels that don't touch the box are left out.
    """
    matrices, windows = [], []
    for axis in range(3):
        matrix = _from_grid(grid, axis)[:, origin[axis] : origin[axis] + box[axis]]
        touched = np.flatnonzero(matrix.sum(1) > 0.5)
        if len(touched) == 0:
            return
        windows.append(slice(int(touched[0]), int(touched[-1]) + 1))
        matrices.append(matrix[windows[-1]] / matrix[windows[-1]].sum(1, keepdims=True))
    largest = [max(len(matrix), n) for matrix, n in zip(matrices, box, strict=True)]
    step = max(1, max_floats // (channels * largest[1] * largest[2]))
    identity = [_is_identity(matrix) for matrix in matrices]
    j, k = (None if same else matrix for same, matrix in zip(identity[1:], matrices[1:], strict=True))
    for first in range(0, len(matrices[0]), step):  # along the axis whose slices lie together in memory
        rows = matrices[0][first : first + step]
        hit = np.flatnonzero(rows.any(0))
        used = slice(int(hit[0]), int(hit[-1]) + 1)
        i = None if identity[0] else rows[:, used]
        window = slice(windows[0].start + first, windows[0].start + first + len(rows))
        yield Slab((window, windows[1], windows[2]), (i, j, k), used)


def _is_identity(matrix: Floats) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32))


def to_native_axes(volume: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """(I, J, K) in RAS axis order -> the scan's own axis order and directions."""
    ras = np.array([[0, 1], [1, 1], [2, 1]], float)
    return np.ascontiguousarray(apply_orientation(volume, ornt_transform(ras, grid.orientation)))
