"""Connected components of a lesion mask on the 1 mm isotropic grid of a scan.

A mask keeps its own grid for everything that is counted, so that volumes add up to the mask's volume exactly; shape,
connectivity and distance are measured on the scan's isotropic grid, so that they do not depend on slice thickness.
Every mask voxel belongs to one connected component of the isotropic grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.imaging.arrays import Box, voxel_volume_mm3
from bidsseg.imaging.grid import Grid, slabs, to_native_axes
from bidsseg.imaging.image import Image

Reals = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]

CONNECTIVITY = 26
THICK_MM, THICK_RATIO = 2.0, 1.5
"Slices are thick above this, and above this share of the finest spacing: what lies between them is not known."
NEIGHBOURS = np.array(sorted(product((-1, 0, 1), repeat=3), key=lambda step: sum(map(abs, step))))
PIECE_MM = 1.0


@dataclass(frozen=True, eq=False)
class LesionComponents:
    """The lesions of a mask on its own grid and on the isotropic grid; component 1 is the largest."""

    voxels: NDArray[np.intp]
    "(N, 3) indices of the mask's lesion voxels."
    component: Ints
    "(N,) the component of each voxel; 0 outside the scan's field of view."
    affine: Reals
    "4x4, mask voxels to RAS mm."
    isotropic: Ints
    "(I, J, K) component of each voxel of the scan's 1 mm RAS grid."
    grid: Grid
    volumes_mm3: Reals
    "(components,) counted on the mask's own grid."

    @property
    def voxel_volume_mm3(self) -> float:
        return voxel_volume_mm3(self.affine)


def label_components(labels: NDArray[np.int32], affine: Reals, grid: Grid) -> LesionComponents:
    """Connected components of a labelled mask (I, J, K) on the isotropic grid; touching labels stay apart.

    The mask is interpolated linearly and cut at one half. What is too thin to survive that is added again, so every
    mask voxel within the scan's field of view is in a component. Voxels are connected through faces, edges and corners,
    but across thick slices through faces alone: there two pieces belong together only where they overlap in plane.
    """
    voxels = np.argwhere(labels > 0)
    isotropic = np.zeros(grid.shape, np.int32)
    if len(voxels) == 0:
        return LesionComponents(voxels, np.zeros(0, np.int32), affine, isotropic, grid, np.zeros(0))
    window = _window(voxels, affine, grid)
    isotropic[window] = _resampled(labels > 0, affine, grid, window)
    to_grid = np.linalg.inv(grid.affine) @ affine
    lost = _assign(voxels, to_grid, isotropic) == 0
    thin = np.rint(apply(to_grid, _through_slices(voxels[lost], affine))).astype(np.intp).reshape(-1, 3)
    isotropic[tuple(thin[is_inside(thin, grid.shape)].T)] = 1
    _relabel(isotropic, labels, voxels, to_grid, _connections(to_grid, affine))
    component = _assign(voxels, to_grid, isotropic)
    return _by_volume(LesionComponents(voxels, component, affine, isotropic, grid, np.zeros(int(isotropic.max()))))


def is_thick(affine: Reals) -> NDArray[np.bool_]:
    """Along which axes of a grid (3,) the slices are so thick that nothing is known of what lies between them."""
    spacing = voxel_spacing_mm(affine.astype(np.float64))
    return np.asarray((spacing > THICK_MM) & (spacing > THICK_RATIO * spacing.min()))


def across(to_grid: Reals, thick: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Along which axes (3,) of another grid thick slices follow one another; ``to_grid`` 4x4 leads to its indices."""
    axes = np.abs(to_grid[:3, :3]).argmax(0)
    return np.asarray(np.isin(np.arange(3), axes[thick]))


def apply(matrix: Reals, points: NDArray[Any]) -> Reals:
    """A 4x4 matrix applied to (..., 3) points."""
    moved: Reals = points @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def is_inside(indices: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of (..., 3) voxel indices lie in an array of this shape."""
    return np.asarray(((indices >= 0) & (indices < np.array(shape))).all(-1))


def look_up(volume: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[Any]:
    """Values of a volume at (..., 3) voxel indices, 0 where there is no voxel."""
    inside = is_inside(indices, volume.shape)
    clipped = np.clip(indices, 0, np.array(volume.shape) - 1)
    return np.where(inside, volume[tuple(np.moveaxis(clipped, -1, 0))], 0)


def _window(voxels: NDArray[np.intp], affine: Reals, grid: Grid) -> Box:
    """The box of the isotropic grid that holds the lesions."""
    ends = np.array(list(product(*zip(voxels.min(0) - 1, voxels.max(0) + 1, strict=True))))
    corners = apply(np.linalg.inv(grid.affine) @ affine, ends)
    low = np.clip(np.floor(corners.min(0)), 0, np.array(grid.shape)).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 1, 0, np.array(grid.shape)).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def _resampled(mask: NDArray[np.bool_], affine: Reals, grid: Grid, window: Box) -> NDArray[np.bool_]:
    """A mask at the centres of a window of the isotropic grid: at least half lesion by linear interpolation."""
    origin = np.eye(4)
    origin[:3, 3] = [s.start for s in window]
    matrix = np.linalg.inv(affine) @ grid.affine @ origin
    shape = tuple(max(0, s.stop - s.start) for s in window)
    if 0 in shape:
        return np.zeros(shape, bool)
    if is_thick(affine).any():
        return _from_nearest_slices(mask, matrix, shape, is_thick(affine))
    values = ndimage.affine_transform(
        mask.astype(np.float32), matrix[:3, :3], matrix[:3, 3], shape, order=1, mode="grid-constant"
    )
    return np.asarray(values >= 0.499)


def _from_nearest_slices(
    mask: NDArray[np.bool_], matrix: Reals, shape: tuple[int, ...], thick: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """As above, but from the nearest slice where slices are thick: halfway, a mix of both would bridge their gap."""
    filled = np.zeros(shape, bool)
    values = mask.astype(np.float32)
    for plane in range(shape[0]):
        indices = np.stack(np.meshgrid(plane, *map(np.arange, shape[1:]), indexing="ij"), -1)
        where = apply(matrix, indices)
        where[..., thick] = np.rint(where[..., thick])
        found = ndimage.map_coordinates(values, np.moveaxis(where, -1, 0), order=1, mode="grid-constant")
        filled[plane] = found[0] >= 0.499
    return filled


def _through_slices(voxels: NDArray[np.intp], affine: Reals) -> Reals:
    """Points at most 1 mm apart through the thickness of voxels (N, 3), as voxel indices; (N, P, 3)."""
    offsets = pieces_of(np.zeros((1, 3), np.intp), affine)[0]
    points: Reals = voxels[:, None] + np.unique(np.where(is_thick(affine), offsets, 0), axis=0)
    return points


def _connections(to_grid: Reals, affine: Reals) -> NDArray[np.bool_]:
    """Which of a voxel's neighbours are connected with it, (3, 3, 3)."""
    steps = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    leaves_slice = steps[:, across(to_grid, is_thick(affine))].any(1)
    return np.asarray(~leaves_slice | (np.count_nonzero(steps, axis=1) <= 1)).reshape(3, 3, 3)


def _relabel(
    isotropic: Ints, labels: NDArray[np.int32], voxels: NDArray[np.intp], to_grid: Reals, connections: NDArray[np.bool_]
) -> None:
    """In place: from lesion (1) to the number of its connected component of one label."""
    found = np.argwhere(isotropic > 0)
    values = np.unique(labels[tuple(voxels.T)])
    if len(values) == 1:
        ndimage.label(isotropic > 0, connections, output=isotropic)
        return
    nearest = cKDTree(voxels).query(apply(np.linalg.inv(to_grid), found))[1]
    isotropic[tuple(found.T)] = 1 + np.searchsorted(values, labels[tuple(voxels[nearest].T)])
    count = 0
    numbered = np.zeros_like(isotropic)
    for value, box in enumerate(ndimage.find_objects(isotropic), start=1):
        if box is None:
            continue
        parts, n = ndimage.label(isotropic[box] == value, connections)
        numbered[box] = np.where(parts > 0, parts + count, numbered[box])
        count += n
    isotropic[...] = numbered


def pieces_of(voxels: NDArray[np.intp], affine: Reals) -> Reals:
    """Voxels (N, 3) cut into P equal pieces of at most 1 mm: the pieces' centres as voxel indices, (N, P, 3)."""
    counts = np.maximum(1, np.ceil(np.linalg.norm(affine[:3, :3], axis=0) / PIECE_MM - 1e-2)).astype(int)
    steps = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    offsets = np.array(list(product(*steps)))
    pieces: Reals = voxels[:, None] + offsets
    return pieces


def _assign(voxels: NDArray[np.intp], to_grid: Reals, isotropic: Ints) -> Ints:
    """The component of each voxel (N,): where its pieces lie, else next to its centre, else 0."""
    pieces = np.rint(apply(to_grid, pieces_of(voxels, to_grid))).astype(np.intp)
    component: Ints = look_up(isotropic, pieces).max(-1, initial=0).astype(np.int32)
    centres = np.rint(apply(to_grid, voxels)).astype(np.intp)
    for step in NEIGHBOURS:
        left = np.flatnonzero(component == 0)
        left = left[is_inside(centres[left], isotropic.shape)]
        component[left] = look_up(isotropic, centres[left] + step)
    return component


def _by_volume(components: LesionComponents) -> LesionComponents:
    """Renumber components by volume, largest first."""
    count = len(components.volumes_mm3)
    volumes = np.bincount(components.component, minlength=count + 1)[1:] * components.voxel_volume_mm3
    order = np.argsort(-volumes, kind="stable")
    new = np.zeros(count + 1, np.int32)
    new[1 + order] = np.arange(1, count + 1)
    return LesionComponents(
        components.voxels,
        new[components.component],
        components.affine,
        new[components.isotropic],
        components.grid,
        volumes[order],
    )


def on_scan_grid(components: LesionComponents, image: Image, same_voxels: bool) -> Ints:
    """Components on the scan's own grid, (I, J, K); from other voxels, those at least half lesion."""
    labels = np.zeros(image.data.shape, np.int32)
    if same_voxels:
        to_scan = np.linalg.inv(image.affine) @ components.affine
        indices = np.rint(apply(to_scan, components.voxels)).astype(np.intp)
        inside = is_inside(indices, labels.shape)
        labels[tuple(indices[inside].T)] = components.component[inside]
        return labels
    covered = np.zeros(components.grid.canonical_shape, np.float32)
    for slab in slabs(components.isotropic.shape, (0, 0, 0), components.grid, 1):
        covered[slab.window] = slab.of(components.isotropic[None] > 0)[0]
    voxels = np.argwhere(to_native_axes(covered, components.grid) >= 0.499)
    labels[tuple(voxels.T)] = _assign(
        voxels, np.linalg.inv(components.grid.affine) @ image.affine, components.isotropic
    )
    return labels
