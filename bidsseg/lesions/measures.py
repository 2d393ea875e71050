"""Measuring lesions on the isotropic grid: length, distances to ventricles and cortex, regions, grey values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
from bidsseg.lesions.components import NEIGHBOURS, Ints, LesionComponents, Reals, apply, look_up
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.parts import part_at
from bidsseg.lesions.records import Lesion, Part, Pieces
from bidsseg.lesions.zones import (
    COMPARTMENT,
    CORTEX,
    FLUID,
    VENTRICLES,
    WHITE_MATTER,
    ZONES,
    Cubes,
    is_any,
    zone_of,
)
from bidsseg.segmentation.anatomy import Anatomy

NORMAL_WHITE_MATTER_MM = 3
"What lesions dilated by as much, voxel by voxel through their faces, take in is not called normal-appearing."


def isotropic(mask: NDArray[np.bool_], image: Image) -> NDArray[np.bool_]:
    """A mask on the scan's grid (I, J, K), brought to the 1 mm isotropic grid along its axes."""
    volume: Floats = conform(replace(image, data=mask.astype(np.float32)), image.grid.along_scan)[0]
    return volume >= 0.5


class Near:
    """Distances to some tissues of a segmentation, on the isotropic grid."""

    def __init__(self, anatomy: Anatomy, image: Image, tissues: NDArray[np.intp]) -> None:
        self.mask = isotropic(is_any(anatomy.tissue, tissues), image)
        self.affine = image.grid.along_scan.affine
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


@dataclass(frozen=True, eq=False)
class Walls:
    """Ventricles and cortex of a scan."""

    ventricles: Near
    cortex: Near

    @classmethod
    def of(cls, anatomy: Anatomy, image: Image) -> Walls:
        return cls(Near(anatomy, image, VENTRICLES), Near(anatomy, image, CORTEX))


def measured_parts(
    components: LesionComponents,
    pieces: Pieces,
    cubes: Sequence[Cubes],
    anatomy: Anatomy,
    options: LesionOptions,
) -> tuple[Part, ...]:
    """Where every part lies; ``cubes`` are its voxels on the isotropic grid, by part."""
    count = len(cubes)
    regions = composition(pieces.part, pieces, anatomy.labels("regions"), count)
    lesion = np.zeros(count + 1, np.int32)
    lesion[pieces.part] = pieces.component
    found = []
    for number in range(1, count + 1):
        contacts, zone = zone_of(cubes[number - 1], options)
        ventricle, cortex = cubes[number - 1].shares_at_walls(options)
        found.append(
            Part(
                part=number,
                lesion=int(lesion[number]),
                volume_mm3=float(regions[number].sum()),
                centroid_mm=_centroid_mm(pieces.points_mm[pieces.part == number]),
                zone=zone,
                contacts=contacts,
                ventricle_share=ventricle,
                cortex_share=cortex,
                dist_ventricle_mm=float(cubes[number - 1].ventricle_mm.min()),
                dist_cortex_mm=float(cubes[number - 1].cortex_mm.min()),
                main_region=_main_region(regions[number]),
            )
        )
    return tuple(found)


def measured(
    components: LesionComponents,
    pieces: Pieces,
    image: Image,
    anatomy: Anatomy,
    parts: Sequence[Part],
    cubes: Sequence[Cubes],
) -> tuple[Lesion, ...]:
    """Features of the lesions that have these parts, in the order of their numbers."""
    count = max((part.lesion for part in parts), default=0)
    if count == 0:
        return ()
    regions = composition(pieces.component, pieces, anatomy.labels("regions"), count)
    intensities = _relative_intensities(components, image, anatomy, count)
    lesions = []
    for number in range(1, count + 1):
        own = [part for part in parts if part.lesion == number]
        zone, contacts = zone_of_whole(own)
        lesions.append(
            Lesion(
                lesion=number,
                volume_mm3=float(components.volumes_mm3[number - 1]),
                long_axis_mm=long_axis_mm(np.concatenate([cubes[part.part - 1].points_mm for part in own])),
                centroid_mm=_centroid_mm(pieces.points_mm[pieces.component == number]),
                zone=zone,
                contacts=contacts,
                dist_ventricle_mm=min(part.dist_ventricle_mm for part in own),
                dist_cortex_mm=min(part.dist_cortex_mm for part in own),
                main_region=_main_region(regions[number]),
                regions=_shares(regions[number]),
                relative_intensity=float(intensities[number - 1]),
                parts=len(own),
            )
        )
    return tuple(lesions)


def zone_of_whole(parts: Sequence[Part]) -> tuple[str, tuple[str, ...]]:
    """Zone and contacts of a lesion: the zone that most of its volume has by its parts, and all that they touch."""
    volume_of = {zone: sum(part.volume_mm3 for part in parts if part.zone == zone) for zone in ZONES}
    touched = {name for part in parts for name in part.contacts}
    return max(volume_of, key=lambda zone: volume_of[zone]), tuple(zone for zone in ZONES if zone in touched)


def composition(number: Ints, pieces: Pieces, volume: NDArray[Any], count: int) -> Reals:
    """Volume in mm3 of what is numbered 1 to ``count`` (rows; 0 holds all else) in every value of a volume (columns).

    ``number`` (M,) is the lesion or the part of each piece.
    """
    size = int(volume.max(initial=0)) + 1
    row = np.where(number <= count, number, 0).astype(np.int64)
    counts = np.bincount(row * size + at_pieces(volume, pieces), minlength=(count + 1) * size)
    volumes: Reals = counts.reshape(count + 1, size) * pieces.volume_mm3
    return volumes


def cubes_of(
    components: LesionComponents, pieces: Pieces, image: Image, anatomy: Anatomy, part: Ints, walls: Walls
) -> tuple[Cubes, ...]:
    """The isotropic voxels of every part, in order; ``part`` (N,) is that of each mask voxel."""
    count = int(part.max(initial=0))
    if count == 0:
        return ()
    lesions = int(components.component[part > 0].max(initial=0))
    indices = np.argwhere((components.isotropic > 0) & (components.isotropic <= lesions))
    points = apply(components.grid.affine, indices)
    number = part_at(points, components.isotropic[tuple(indices.T)], components, part)
    volume = np.zeros_like(components.isotropic)
    volume[tuple(indices.T)] = number
    scan = np.rint(apply(np.linalg.inv(image.affine), points)).astype(np.intp)
    cerebral = ~np.isin(COMPARTMENT[look_up(anatomy.tissue, scan)], (1, 2))
    ventricle, cortex = (wall.gap_mm(points) for wall in (walls.ventricles, walls.cortex))
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number, minlength=count + 1)[1:])[:-1]
    features = (points, ventricle, cortex, cerebral, _at_surface(volume, indices))
    tissues = composition(pieces.part, pieces, anatomy.tissue, count)
    compartments = np.stack([tissues[1:, COMPARTMENT[: tissues.shape[1]] == kind].sum(1) for kind in range(4)], 1)
    by_part = zip(*(np.split(values[order], ends) for values in features), compartments, strict=True)
    return tuple(Cubes(*values) for values in by_part)


def _at_surface(numbers: Ints, indices: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which voxels (N, 3) have a face beyond which another number lies, (N,)."""
    own = numbers[tuple(indices.T)]
    faces = NEIGHBOURS[np.abs(NEIGHBOURS).sum(1) == 1]
    return np.asarray(np.any([look_up(numbers, indices + step) != own for step in faces], axis=0))


def long_axis_mm(points_mm: Reals) -> float:
    """Largest distance between any two of (N, 3) voxel centres, plus one voxel of 1 mm."""
    if len(points_mm) > 50:
        with suppress(QhullError):  # flat or straight
            points_mm = points_mm[ConvexHull(points_mm).vertices]
    return float(pdist(points_mm).max(initial=0.0)) + 1.0


def _centroid_mm(points_mm: Reals) -> tuple[float, float, float]:
    x, y, z = points_mm.mean(0)
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


def _relative_intensities(components: LesionComponents, image: Image, anatomy: Anatomy, count: int) -> Reals:
    """Mean grey value of each component over the median of normal-appearing white matter, (count,)."""
    grey = conform(image, image.grid.along_scan)[0]
    white = isotropic(anatomy.tissue == WHITE_MATTER, image)
    near = ndimage.binary_dilation(components.isotropic > 0, iterations=NORMAL_WHITE_MATTER_MM)
    normal = grey[white & ~near]
    if len(normal) == 0 or np.median(normal) == 0:
        return np.full(count, np.nan)
    lesion = components.isotropic > 0
    component = components.isotropic[lesion]
    sums = np.bincount(component, grey[lesion], minlength=count + 1)[1 : count + 1]
    voxels = np.bincount(component, minlength=count + 1)[1 : count + 1]
    relative: Reals = sums / voxels / float(np.median(normal))
    return relative


def at_pieces(volume: NDArray[Any], pieces: Pieces) -> NDArray[Any]:
    """Values of a volume on the scan's grid at every piece, 0 outside the scan; shape (M,)."""
    return np.where(pieces.index < 0, 0, volume.reshape(-1)[np.maximum(pieces.index, 0)])
