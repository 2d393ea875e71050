"""The 1 mm RAS grid of a scan: the way to it, and the way back to the scan's own grid.

Conforming permutes, flips and rescales the axes. Each of these steps is one matrix per axis, flips are exact, and the
way back loses nothing to interpolation across slices. Slices that are tilted a little mostly follow the anatomy, and
the 1 mm grid keeps their axes. Only where they are turned by ``TURNED_DEG`` or more, the 1 mm grid along the scan's
axes is turned into the axes of the world, and what is found there is turned back before anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.imaging.arrays import PLANES_AT_ONCE, Box, Floats, along, as_float32, resampling_matrix, sampled
from bidsseg.imaging.blocks import TO_BLOCKS, at_places, between_blocks

if TYPE_CHECKING:
    from bidsseg.imaging.image import Image

SAME_SPACING = 2e-3
"Spacings this close to 1 mm count as 1 mm: over 256 voxels that is a quarter of a voxel at the edge."

TURNED_DEG = 18.0
"""Angle between the scan's axes and those of the world from which a grid along the latter is used.

From here on the regions of a tilted scan of 1 mm would agree with those of the straight scan by less than 0.92. A scan
that is turned takes up to twice the time; slices along the anatomy, as most clinical ones are, are tilted by up to 22
degrees, most by less than this."""
THIN_MM = 20
"A thinner slab keeps its axes: a leaf that lies askew in the upright grid shows the network too little of any plane."
LARGEST_TURNED = 64_000_000
"Voxels of a turned 1 mm grid, which has to hold the corners; a scan that would need more keeps its own axes."
HALF = 0.499
"Half of a voxel, less rounding."

SLAB_FLOATS, FEW_FLOATS = 16_000_000, 6_000_000
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
    turn: NDArray[np.float64] | None = None
    "4x4, indices of the 1 mm grid to those of ``along_scan``; None where that is the same grid."

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """The scan's shape with its axes in RAS order."""
        order = np.argsort(self.orientation[:, 0])
        i, j, k = (self.native_shape[axis] for axis in order)
        return i, j, k

    @property
    def along_scan(self) -> Grid:
        """The 1 mm grid along the scan's own axes: this one, unless it is turned."""
        return self if self.turn is None else _along_axes(self.native_shape, self.native_affine)

    @property
    def start(self) -> NDArray[np.float64]:
        """Scan index (RAS axis order) of voxel 0 of ``along_scan``; both fields of view share their centre. (3,)"""
        return (np.array(self.canonical_shape) - 1) / 2 - (np.array(self.along_scan.shape) - 1) / 2 / self.spacing_mm

    @property
    def in_slices(self) -> NDArray[np.bool_]:
        """Which voxels are nearest to the centre of one of the scan's, in a shape that is broadcast to (I, J, K).

        In a turned grid, where slices lie askew, all of them.
        """
        inside = np.ones((1, 1, 1), bool)
        for axis in range(3 if self.turn is None else 0):
            centres = (np.arange(self.canonical_shape[axis]) - self.start[axis]) * self.spacing_mm[axis]
            nearest = np.isin(np.arange(self.shape[axis]), np.rint(centres))
            inside = inside & nearest.reshape([-1 if a == axis else 1 for a in range(3)])
        return inside

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, indices of the 1 mm grid to RAS mm."""
        if self.turn is not None:
            return self.along_scan.affine @ self.turn
        scale = np.diag((*(1 / self.spacing_mm), 1.0))
        scale[:3, 3] = self.start
        canonical = self.native_affine @ inv_ornt_aff(self.orientation, self.native_shape)
        affine: NDArray[np.float64] = canonical @ scale
        return affine


def grid_of(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """The 1 mm RAS grid over the field of view of a (I, J, K) scan, turned upright where the scan is much tilted."""
    grid = _along_axes(shape, affine)
    if min(grid.shape) < THIN_MM or tilt_deg(grid.affine) < TURNED_DEG:
        return grid
    corners = _moved(_corners((0, 0, 0), grid.shape), grid.affine)
    low, high = corners.min(0), corners.max(0)
    i, j, k = (max(1, int(np.ceil(mm - 1e-3))) for mm in high - low)
    if i * j * k > LARGEST_TURNED:
        return grid
    upright = np.eye(4)
    upright[:3, 3] = (low + high) / 2 - (np.array((i, j, k)) - 1) / 2
    return replace(grid, shape=(i, j, k), turn=np.linalg.inv(grid.affine) @ upright)


def _along_axes(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Grid:
    """The 1 mm grid along the scan's own axes."""
    orientation = io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    spacing = voxel_spacing_mm(affine)[order]
    spacing = np.where(np.abs(spacing - 1) < SAME_SPACING, 1.0, spacing)
    i, j, k = (max(1, int(np.ceil(shape[axis] * mm - 1e-3))) for axis, mm in zip(order, spacing, strict=True))
    return Grid((shape[0], shape[1], shape[2]), affine, orientation, spacing, (i, j, k))


def tilt_deg(affine: NDArray[np.float64]) -> float:
    """The angle by which the axes of a grid, 4x4 to RAS mm, are turned against the axes of the world."""
    u, _, vt = np.linalg.svd(affine[:3, :3])  # the nearest rotation
    return float(np.rad2deg(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1))))


def _corners(origin: tuple[int, int, int], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Outer corners of a box of voxels, (8, 3)."""
    return np.array(list(product(*((o - 0.5, o + n - 0.5) for o, n in zip(origin, shape, strict=True)))))


def _moved(points: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A 4x4 matrix applied to (N, 3) points."""
    moved: NDArray[np.float64] = points @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def conform(image: Image, grid: Grid | None = None, brightest: float = np.inf) -> tuple[Floats, Grid]:
    """Resample a scan to 1 mm RAS: (I, J, K) float32 and its grid. Thick slices are interpolated linearly.

    The grid is the scan's ``grid``, unless its ``along_scan`` is asked for. What is brighter than ``brightest`` in the
    scan counts as that.
    """
    grid = image.grid if grid is None else grid
    oriented = apply_orientation(image.data, grid.orientation)
    if brightest < np.inf:  # in the order asked for below, since a second copy may be large
        oriented = np.minimum(oriented, np.float32(brightest), order="C")
    volume: Floats = np.ascontiguousarray(oriented, dtype=np.float32)
    del oriented
    for axis in np.argsort(-grid.spacing_mm)[::-1]:  # finest first: it shrinks the volume
        volume = along(_to_grid(grid.along_scan, int(axis)), volume, int(axis))
    return (volume if grid.turn is None else turned(volume, grid.turn, grid.shape)), grid


def turned(volume: Floats, turn: NDArray[np.float64], shape: tuple[int, int, int]) -> Floats:
    """A volume at the indices that ``turn``, 4x4, makes of those of a grid of this shape, trilinear.

    Beyond the volume lies its darkest value, which the network sees as it sees what lies beyond a scan.
    """
    result = np.empty(shape, np.float32)
    for first in range(0, shape[0], PLANES_AT_ONCE):
        planes = result[first : first + PLANES_AT_ONCE]
        planes[:] = sampled(volume[None], turn @ _shift((first, 0, 0)), planes.shape, volume.min(keepdims=True)[0, 0])[
            0
        ]
    return result


def restored(volume: Floats, grid: Grid) -> Floats:
    """A volume on the 1 mm grid, on the one along the scan's axes."""
    if grid.turn is None:
        return volume
    return turned(volume, np.asarray(np.linalg.inv(grid.turn), np.float64), grid.along_scan.shape)


def _shift(by: tuple[int, ...]) -> NDArray[np.float64]:
    """4x4, indices within a part to those of the whole, for a part that begins there."""
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def _to_grid(grid: Grid, axis: int) -> Floats | None:
    """(1 mm voxels, scan voxels) of one RAS axis; None where that is the identity."""
    if grid.spacing_mm[axis] == 1:
        return None
    centres = grid.start[axis] + np.arange(grid.shape[axis]) / grid.spacing_mm[axis]
    return resampling_matrix(centres, grid.canonical_shape[axis], 1 / grid.spacing_mm[axis])


def _from_grid(grid: Grid, axis: int, at_centres: bool) -> Floats:
    """(scan voxels, 1 mm voxels) of one RAS axis."""
    centres = (np.arange(grid.canonical_shape[axis]) - grid.start[axis]) * grid.spacing_mm[axis]
    return resampling_matrix(centres, grid.shape[axis], 1.0 if at_centres else float(grid.spacing_mm[axis]))


@dataclass(frozen=True)
class Slab:
    """Some slices of the scan's grid, in RAS axis order, and how to resample channels of a 1 mm box to them."""

    window: Box
    "Where it lies in the canonical (RAS-ordered) scan."
    matrices: tuple[Floats | None, Floats | None, Floats | None]
    "One matrix for each axis; None is the identity."
    used: slice
    "Along the first axis of the box, or of the box along the scan's axes that it is turned into."
    turn: NDArray[np.float64] | None
    "4x4, indices of what is used to those of the box; None where the box lies along the scan's axes."
    shape: tuple[int, int, int]
    "Shape of what is used."

    def of(self, channels: NDArray[Any], where: NDArray[np.bool_] | None = None) -> Floats:
        """Resample channels (C, I, J, K): (C, i, j, k), or (C, N) of the N voxels of the slab asked for."""
        part: Floats = channels[:, self.used] if self.turn is None else self._turned(channels, self.turn, where)
        if where is not None and all(matrix is None for matrix in self.matrices):
            return as_float32(part[:, where])
        part = self._resampled(as_float32(part))
        return part if where is None else part[:, where]

    def of_blocks(self, blocks: NDArray[Any], where: NDArray[np.bool_]) -> Floats:
        """Resample the blocks (i, j, k, C) of a box, see ``imaging.blocks``: (C, N) of the N voxels asked for."""
        if self.turn is not None:
            return self._resampled(self._turned(np.moveaxis(blocks, -1, 0), TO_BLOCKS @ self.turn, where))[:, where]
        voxels = (self.used.stop, *self.shape[1:])
        finer = [between_blocks(n, of_axis) for n, of_axis in zip(voxels, blocks.shape, strict=False)]
        finer[0] = finer[0][self.used]
        pairs = zip(self.matrices, finer, strict=True)
        return at_places(blocks, [fine if matrix is None else matrix @ fine for matrix, fine in pairs], where)

    def _resampled(self, part: Floats) -> Floats:
        """What is used of some channels, by the matrices."""
        for axis in (2, 1, 0):
            part = along(self.matrices[axis], part, axis)
        return part

    def _needed_for(self, where: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which voxels of what is used have a part in those of the slab that are asked for."""
        share: Floats = where.astype(np.float32)
        for axis, matrix in enumerate(self.matrices):
            share = along(None if matrix is None else matrix.T, share, axis)
        return share > 0

    def _turned(self, channels: NDArray[Any], turn: NDArray[np.float64], where: NDArray[np.bool_] | None) -> Floats:
        """What is used of the channels; beyond their box, as in its first corner, there is no brain."""
        asked = None if where is None else self._needed_for(where)
        return sampled(channels, turn, self.shape, channels[:, 0, 0, 0], asked)


def slabs(
    box: tuple[int, ...],
    origin: tuple[int, int, int],
    grid: Grid,
    channels: int,
    max_floats: int = SLAB_FLOATS,
    at_centres: bool = False,
) -> Iterator[Slab]:
    """Ways back from a box (I, J, K) of the 1 mm grid that begins at ``origin`` onto the scan's own grid.

    A scan voxel thicker than 1 mm gets the mean over its thickness, or what lies ``at_centres``. Yields slabs of which
    so many channels are at most about ``max_floats`` numbers; scan voxels that don't touch the box are left out.
    """
    turn, grid = grid.turn, grid.along_scan
    if turn is not None:
        box, origin, turn = _turned_back(box, origin, turn, grid)
    matrices, windows = [], []
    for axis in range(3):
        matrix = _from_grid(grid, axis, at_centres)[:, origin[axis] : origin[axis] + box[axis]]
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
        back = None if turn is None else turn @ _shift((used.start, 0, 0))
        shape = (used.stop - used.start, box[1], box[2])
        yield Slab((window, windows[1], windows[2]), (i, j, k), used, back, shape)


def _turned_back(
    box: tuple[int, ...], origin: tuple[int, int, int], turn: NDArray[np.float64], along_scan: Grid
) -> tuple[tuple[int, int, int], tuple[int, int, int], NDArray[np.float64]]:
    """Shape and origin of the box along the scan's axes that holds a box of the turned grid, and the way to it, 4x4."""
    corners = _moved(_corners(origin, box), turn)
    last = np.array(along_scan.shape) - 1
    low, high = (np.clip(np.rint(end), 0, last).astype(int).tolist() for end in (corners.min(0), corners.max(0)))
    i, j, k = (b - a + 1 for a, b in zip(low, high, strict=True))
    to_box = np.linalg.inv(_shift(origin)) @ np.linalg.inv(turn) @ _shift(low)
    return (i, j, k), (low[0], low[1], low[2]), to_box


def turned_back(
    masks: NDArray[np.bool_], origin: tuple[int, int, int], grid: Grid
) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """Masks (C, I, J, K) of a box of the 1 mm grid that begins at ``origin``, and the like along the scan's axes."""
    if grid.turn is None:
        return masks, origin
    box, start, to_box = _turned_back(masks.shape[1:], origin, grid.turn, grid.along_scan)
    return sampled(masks, to_box, box, np.zeros(len(masks), bool)) >= HALF, start


def _is_identity(matrix: Floats) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32))


def to_native_axes(volume: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """(I, J, K) in RAS axis order -> the scan's own axis order and directions."""
    ras = np.array([[0, 1], [1, 1], [2, 1]], float)
    return np.ascontiguousarray(apply_orientation(volume, ornt_transform(ras, grid.orientation)))


def to_ras_order(volume: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """A view of (I, J, K) in the scan's axes with the axes permuted and flipped to RAS."""
    order = np.argsort(grid.orientation[:, 0])
    flips = tuple(slice(None, None, -1 if grid.orientation[axis, 1] < 0 else 1) for axis in order)
    return volume.transpose(order)[flips]
