"""Measuring lesions on the isotropic grid: length, distances to ventricles and cortex, regions, grey values."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.spatial.distance import pdist

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image
from bidsseg.labels import code_lookup
from bidsseg.lesions.masks import Placed, Reals, apply, look_up
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.records import Lesion, Pieces
from bidsseg.lesions.zones import COMPARTMENT, CORTEX, FLUID, VENTRICLES, WHITE_MATTER, Cubes, is_any, zone_of
from bidsseg.segmentation.result import Segmentation

NORMAL_WHITE_MATTER_MM = 3
"What lesions dilated by as much, voxel by voxel through their faces, take in is not called normal-appearing."


def isotropic(mask: NDArray[np.bool_], image: Image) -> NDArray[np.bool_]:
    """A mask on the scan's grid (I, J, K), brought to the scan's 1 mm isotropic grid."""
    volume: Floats = conform(replace(image, data=mask.astype(np.float32)))[0]
    return volume >= 0.5


class Near:
    """Distances to some tissues of a segmentation, on the isotropic grid."""

    def __init__(self, segmentation: Segmentation, image: Image, tissues: NDArray[np.intp]) -> None:
        self.mask = isotropic(is_any(segmentation.tissue, tissues), image)
        self.affine = image.grid.affine
        surface = np.argwhere(self.mask & ~ndimage.binary_erosion(self.mask))
        self.tree = None
        if len(surface):  # unbalanced: far faster for points in rows
            self.tree = cKDTree(apply(self.affine, surface), compact_nodes=False, balanced_tree=False)

    def gap_mm(self, points_mm: Reals) -> Reals:
        """Gap between the voxel around each point (N, 3) and the tissues: centre distance less 1 mm, 0 inside; (N,).

        Without such tissues all is nan.
        """
        if self.tree is None:
            return np.full(len(points_mm), np.nan)
        indices = np.rint(apply(np.linalg.inv(self.affine), points_mm)).astype(np.intp)
        outside = look_up(self.mask, indices) == 0
        gap = np.zeros(len(points_mm))
        gap[outside] = np.round(np.maximum(self.tree.query(points_mm[outside])[0] - 1.0, 0.0), 6)
        return gap


def measured(
    placed: Placed, pieces: Pieces, image: Image, segmentation: Segmentation, count: int, options: LesionOptions
) -> tuple[Lesion, ...]:
    """Features of the components 1 to ``count``."""
    if count == 0:
        return ()
    regions = composition(pieces, segmentation.labels("regions"), count)
    tissues = composition(pieces, segmentation.tissue, count)
    compartments = np.stack([tissues[:, COMPARTMENT[: tissues.shape[1]] == part].sum(1) for part in range(4)], 1)
    intensities = _relative_intensities(placed, image, segmentation, count)
    lesions = []
    for index, cubes in enumerate(cubes_of(placed, image, segmentation, count)):
        contacts, zone = zone_of(cubes, compartments[1 + index], options)
        lesions.append(
            Lesion(
                lesion=1 + index,
                volume_mm3=float(placed.volumes_mm3[index]),
                long_axis_mm=long_axis_mm(cubes.points_mm),
                centroid_mm=_centroid_mm(pieces, 1 + index),
                zone=zone,
                contacts=contacts,
                dist_ventricle_mm=float(cubes.ventricle_mm.min()),
                dist_cortex_mm=float(cubes.cortex_mm.min()),
                main_region=_main_region(regions[1 + index]),
                regions=_shares(regions[1 + index]),
                relative_intensity=float(intensities[index]),
            )
        )
    return tuple(lesions)


def composition(pieces: Pieces, volume: NDArray[Any], count: int) -> Reals:
    """Volume in mm3 of components 1 to ``count`` (rows; 0 holds all else) in every value of a volume (columns)."""
    size = int(volume.max(initial=0)) + 1
    component = np.where(pieces.component <= count, pieces.component, 0).astype(np.int64)
    counts = np.bincount(component * size + at_pieces(volume, pieces), minlength=(count + 1) * size)
    volumes: Reals = counts.reshape(count + 1, size) * pieces.volume_mm3
    return volumes


def cubes_of(placed: Placed, image: Image, segmentation: Segmentation, count: int) -> list[Cubes]:
    """The isotropic voxels of components 1 to ``count``, in order."""
    indices = np.argwhere((placed.isotropic > 0) & (placed.isotropic <= count))
    component = placed.isotropic[tuple(indices.T)]
    order = np.argsort(component, kind="stable")
    points = apply(placed.grid.affine, indices[order])
    scan = np.rint(apply(np.linalg.inv(image.affine), points)).astype(np.intp)
    cerebral = ~np.isin(COMPARTMENT[look_up(segmentation.tissue, scan)], (1, 2))
    ventricle, cortex = (Near(segmentation, image, tissues).gap_mm(points) for tissues in (VENTRICLES, CORTEX))
    ends = np.cumsum(np.bincount(component, minlength=count + 1)[1:])[:-1]
    parts = [np.split(values, ends) for values in (points, ventricle, cortex, cerebral)]
    return [Cubes(*values) for values in zip(*parts, strict=True)]


def long_axis_mm(points_mm: Reals) -> float:
    """Largest distance between any two of (N, 3) voxel centres, plus one voxel of 1 mm."""
    if len(points_mm) > 50:
        with suppress(QhullError):  # flat or straight
            points_mm = points_mm[ConvexHull(points_mm).vertices]
    return float(pdist(points_mm).max(initial=0.0)) + 1.0


def _centroid_mm(pieces: Pieces, number: int) -> tuple[float, float, float]:
    x, y, z = pieces.points_mm[pieces.component == number].mean(0)
    return float(x), float(y), float(z)


def _main_region(volumes: Reals) -> int:
    """The region code with the largest volume, of ``volumes`` by code; fluid only where there is nothing else."""
    solid = volumes.copy()
    solid[np.intersect1d(np.unique(code_lookup("regions")[FLUID]), np.arange(len(volumes)))] = 0
    return int((solid if solid.any() else volumes).argmax())


def _shares(volumes: Reals) -> tuple[tuple[int, float], ...]:
    codes = np.flatnonzero(volumes)
    ordered = codes[np.argsort(-volumes[codes], kind="stable")]
    return tuple((int(code), float(volumes[code] / volumes.sum())) for code in ordered)


def _relative_intensities(placed: Placed, image: Image, segmentation: Segmentation, count: int) -> Reals:
    """Mean grey value of each component over the median of normal-appearing white matter, (count,)."""
    grey = conform(image)[0]
    white = isotropic(segmentation.tissue == WHITE_MATTER, image)
    near = ndimage.binary_dilation(placed.isotropic > 0, iterations=NORMAL_WHITE_MATTER_MM)
    normal = grey[white & ~near]
    if len(normal) == 0 or np.median(normal) == 0:
        return np.full(count, np.nan)
    lesion = placed.isotropic > 0
    component = placed.isotropic[lesion]
    sums = np.bincount(component, grey[lesion], minlength=count + 1)[1 : count + 1]
    voxels = np.bincount(component, minlength=count + 1)[1 : count + 1]
    relative: Reals = sums / voxels / float(np.median(normal))
    return relative


def at_pieces(volume: NDArray[Any], pieces: Pieces) -> NDArray[Any]:
    """Values of a volume on the scan's grid at every piece, 0 outside the scan; shape (M,)."""
    return np.where(pieces.index < 0, 0, volume.reshape(-1)[np.maximum(pieces.index, 0)])
