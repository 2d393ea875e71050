"""Splits confluent lesions at their necks into parts, as a reader separates overlapping lesions.

Every voxel has a depth: how far, in mm, its centre lies inside its lesion. Voxels that climb to the same summit of the
depth form a basin; the ridge between two basins is as high as the neck between them is half wide. Basins are joined,
highest ridge first, where that ridge reaches a share of the lower of their two summits, or where one of them is too
small to be a lesion. A share knows no scale, so that large and small lesions are split alike (a watershed of the
distance inside, with its basins joined by relative height).

Across thick slices nothing is known of a lesion's shape but where slices overlap. There the depth is measured within
the slice, and the ridge between two slices comes out as half the width of their overlap.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.lesions.components import Ints, LesionComponents, Reals, apply, is_thick, look_up
from bidsseg.lesions.options import LesionOptions

FAR_MM = 1e4
"Takes the place of the spacing of thick slices: a depth never reaches across."
AROUND_MM = 2.0
"Where the depth is level, as along a bar, voxels climb by its mean under a Gaussian of this width."


def split(components: LesionComponents, count: int, options: LesionOptions) -> Ints:
    """The part of each mask voxel of lesions 1 to ``count``, (N,); 0 in all other components.

    Parts are numbered from 1 over all lesions: those of lesion 1 first, the largest of a lesion first.
    """
    lesion = np.where(components.component <= count, components.component, 0)
    chosen = np.flatnonzero(lesion)
    part = np.zeros(len(lesion), np.int32)
    if len(chosen):
        basin = _Joined(components.voxels[chosen], lesion[chosen], components.affine, options).parts()
        part[chosen] = _numbered(lesion[chosen], basin)
    return part


def _numbered(lesion: Ints, basin: NDArray[np.intp]) -> Ints:
    """Numbers from 1 in place of names, by lesion and then by size, largest first."""
    names, first, inverse, sizes = np.unique(basin, return_index=True, return_inverse=True, return_counts=True)
    number = np.empty(len(names), np.int32)
    number[np.lexsort((first, -sizes, lesion[first]))] = np.arange(1, len(names) + 1)
    return number[inverse]


def depth_mm(voxels: NDArray[np.intp], lesion: Ints, affine: Reals) -> tuple[Reals, Reals]:
    """How far the centre of each voxel (N, 3) lies inside its own lesion, and the mean of this around it; (N,) each.

    Where slices are thick both are of the slice alone.
    """
    spacing, thick = voxel_spacing_mm(affine.astype(np.float64)), is_thick(affine)
    low = voxels.min(0) - 1
    volume = np.zeros(voxels.max(0) - low + 2, np.int32)
    places = voxels - low
    volume[tuple(places.T)] = lesion
    depth, around = np.zeros(volume.shape), np.zeros(volume.shape)
    sampling, sigma = np.where(thick, FAR_MM, spacing), np.where(thick, 0, AROUND_MM / spacing)
    for number, box in enumerate(ndimage.find_objects(volume), start=1):
        if box is not None:
            inside = np.pad(volume[box] == number, 1)
            inner = ndimage.distance_transform_edt(inside, sampling)
            for values, found in ((depth, inner), (around, ndimage.gaussian_filter(inner, sigma))):
                values[box][inside[1:-1, 1:-1, 1:-1]] = found[inside]
    to_face = spacing[~thick].min() / 2
    return np.round(depth[tuple(places.T)] - to_face, 6), np.round(around[tuple(places.T)], 6)


def neighbours(voxels: NDArray[np.intp], lesion: Ints, thick: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Pairs of voxels of one lesion that touch, each once, (P, 2): across thick slices through faces alone."""
    low = voxels.min(0) - 1
    index = np.full(voxels.max(0) - low + 2, -1, np.intp)
    index[tuple((voxels - low).T)] = np.arange(len(voxels))
    found = []
    for step in np.array([step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]):
        if step[thick].any() and np.count_nonzero(step) > 1:
            continue
        other = index[tuple((voxels - low + step).T)]
        here = np.flatnonzero((other >= 0) & (lesion[other] == lesion))
        found.append(np.stack((here, other[here]), 1))
    return np.concatenate(found)


def summits(depth: Reals, around: Reals, pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """The voxel that each voxel (N,) climbs to: always to its deepest neighbour, on level ground by ``around``."""
    order = np.lexsort((around, depth))
    rank = np.empty(len(depth), np.intp)
    rank[order] = np.arange(len(depth))
    highest = rank.copy()
    np.maximum.at(highest, pairs[:, 0], rank[pairs[:, 1]])
    np.maximum.at(highest, pairs[:, 1], rank[pairs[:, 0]])
    above = order[highest]
    while not np.array_equal(above, above[above]):
        above = above[above]
    return above


class _Joined:
    """Basins of lesions, joined where no neck parts them."""

    def __init__(self, voxels: NDArray[np.intp], lesion: Ints, affine: Reals, options: LesionOptions) -> None:
        self.options, self.lesion = options, lesion
        self.points_mm = apply(affine, voxels)
        self.depth, around = depth_mm(voxels, lesion, affine)
        self.pairs = neighbours(voxels, lesion, is_thick(affine))
        self.summit = summits(self.depth, around, self.pairs)
        self.root = np.arange(len(voxels))
        self.volume_mm3 = np.bincount(self.summit, minlength=len(voxels)) * abs(np.linalg.det(affine[:3, :3]))

    def parts(self) -> NDArray[np.intp]:
        """The part of each voxel, named by one of its voxels; (N,)."""
        for height, one, other in self._ridges():
            a, b = self._find(one), self._find(other)
            if a == b:
                continue
            lower = min(self.depth[a], self.depth[b])
            if height >= self.options.neck_share * lower or self._is_small(a) or self._is_small(b):
                self._join(a, b)
        basins = np.unique(self.summit)
        self._join_small_ones_apart({self._find(int(basin)) for basin in basins})
        top = np.zeros_like(self.root)
        top[basins] = [self._find(int(basin)) for basin in basins]
        return top[self.summit]

    def _ridges(self) -> list[tuple[float, int, int]]:
        """The highest ridge between every two basins that touch, highest first."""
        basins = np.sort(self.summit[self.pairs], axis=1)
        apart = basins[:, 0] != basins[:, 1]
        both, which = np.unique(basins[apart], axis=0, return_inverse=True)
        height = np.full(len(both), -np.inf)
        np.maximum.at(height, which.reshape(-1), self.depth[self.pairs[apart]].min(1))
        order = np.argsort(-height, kind="stable")
        return [(float(height[n]), int(both[n, 0]), int(both[n, 1])) for n in order]

    def _find(self, basin: int) -> int:
        while self.root[basin] != basin:
            self.root[basin] = self.root[self.root[basin]]
            basin = int(self.root[basin])
        return basin

    def _join(self, a: int, b: int) -> None:
        deeper, lower = (a, b) if self.depth[a] >= self.depth[b] else (b, a)
        self.root[lower] = deeper
        self.volume_mm3[deeper] += self.volume_mm3[lower]

    def _is_small(self, part: int) -> bool:
        options = self.options
        return bool(self.depth[part] < options.part_depth_mm or self.volume_mm3[part] < options.min_volume_mm3 - 1e-6)

    def _join_small_ones_apart(self, parts: set[int]) -> None:
        """Join small parts that touch no other, on this grid, with the nearest one of their lesion."""
        for part in sorted(parts, key=lambda part: self.volume_mm3[part]):
            rest = [other for other in parts if self.lesion[other] == self.lesion[part] and self._find(other) != part]
            if self._find(part) == part and rest and self._is_small(part):
                nearest = cKDTree(self.points_mm[rest]).query(self.points_mm[part])[1]
                self._join(part, self._find(rest[int(nearest)]))


def part_at(points_mm: Reals, lesion: Ints, components: LesionComponents, part: Ints) -> Ints:
    """The part at points (M, 3) that lie in a given lesion (M,): of the mask voxel there, else of the nearest; (M,)."""
    low = components.voxels.min(0)
    volume = np.zeros(components.voxels.max(0) - low + 1, np.int32)
    volume[tuple((components.voxels - low).T)] = 1 + np.arange(len(components.voxels))
    indices = np.rint(apply(np.linalg.inv(components.affine), points_mm)).astype(np.intp) - low
    voxel = look_up(volume, indices) - 1
    found: Ints = np.where((voxel >= 0) & (components.component[voxel] == lesion), part[voxel], 0).astype(np.int32)
    centres = apply(components.affine, components.voxels)
    for number in np.unique(lesion[found == 0]):
        here, own = np.flatnonzero((found == 0) & (lesion == number)), components.component == number
        found[here] = part[own][cKDTree(centres[own]).query(points_mm[here])[1]]
    return found
