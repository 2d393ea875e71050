"""Where the lesions of a mask lie: their sizes, regions, distances, and the sites of the McDonald criteria they touch.

Zones follow the 2017 McDonald criteria (Thompson et al. 2018, doi 10.1016/S1474-4422(17)30470-2):

- periventricular: cerebral lesions that abut the lateral ventricles (with their temporal horns, without third and
  fourth ventricle); the part of a lesion in deep grey matter does not count as touching;
- juxtacortical: cerebral lesions that abut or lie in the cerebral cortex;
- infratentorial: lesions of brainstem and cerebellum.

Every zone a lesion touches is one of its *contacts*. Its one *zone* comes from these rules, in this order:

1. Where most of its volume lies (plurality): brainstem and cerebellum: infratentorial; thalamus, basal ganglia and
   ventral diencephalon: deep-grey; cerebrum: rule 2; nothing of these: outside.
2. In the cerebrum: the structure it abuts, ventricles or cortex; where it abuts both, the one of which it abuts the
   larger share of the wall that faces white matter; where it abuts neither, deep-white-matter.

So a confluent lesion that reaches the cortex, the thalamus or the midbrain with a small part stays what it mostly is.
The share, not the area, because the folded cortex is everywhere near and has ten times the surface: by area nearly all
large periventricular lesions would be juxtacortical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError, cKDTree
from scipy.spatial.distance import pdist

from bidsseg.image import Floats, Image, conform, grid_of, voxel_spacing_mm
from bidsseg.labels import LOBE_GROUP_OF_TISSUE, TISSUE, TISSUES, code_lookup
from bidsseg.lesion_masks import (
    MaskKind,
    Placed,
    Reals,
    apply,
    is_inside,
    is_same_grid,
    look_up,
    mismatches,
    on_scan_grid,
    pieces_of,
    place,
    read_labels,
)
from bidsseg.segmentation import Segmentation, labels

PERIVENTRICULAR, JUXTACORTICAL, INFRATENTORIAL = "periventricular", "juxtacortical", "infratentorial"
DEEP_GREY, DEEP_WHITE, OUTSIDE = "deep-grey", "deep-white-matter", "outside"
MCDONALD_SITES = (PERIVENTRICULAR, JUXTACORTICAL, INFRATENTORIAL)
ZONES = (*MCDONALD_SITES, DEEP_GREY, DEEP_WHITE, OUTSIDE)
FACES = np.concatenate((np.eye(3, dtype=np.intp), -np.eye(3, dtype=np.intp)))
NORMAL_WHITE_MATTER_MM = 3
"White matter this near to a lesion is not taken for normal-appearing."


def _tissues(*names: str) -> NDArray[np.intp]:
    return np.array([TISSUE[name] for name in names])


VENTRICLES = _tissues("lateral-ventricle", "inferior-lateral-ventricle")
CORTEX = _tissues("cortex")
WHITE_MATTER = TISSUE["white-matter"]
DOUBTFUL = _tissues("background", "csf", "cortex", "lateral-ventricle", "inferior-lateral-ventricle")
"What a lesion in white matter is taken for by mistake."
FLUID = _tissues(
    "background", "csf", "lateral-ventricle", "inferior-lateral-ventricle", "third-ventricle", "fourth-ventricle"
)


def _compartment_of_tissue() -> NDArray[np.intp]:
    """0 none, 1 infratentorial, 2 deep grey, 3 cerebrum, by tissue; shape (tissues,)."""
    group = {"brainstem": 1, "cerebellum": 1, "deep-grey": 2, "temporal": 3}
    values = [group.get(LOBE_GROUP_OF_TISSUE.get(name, ""), 0) for name in TISSUES]
    for name in ("cortex", "white-matter", "lateral-ventricle", "inferior-lateral-ventricle"):
        values[TISSUE[name]] = 3
    values[TISSUE["fourth-ventricle"]] = 1
    return np.array(values)


COMPARTMENT = _compartment_of_tissue()


@dataclass(frozen=True)
class LesionOptions:
    """How lesions are told apart and placed."""

    threshold: float = 0.5
    "Probability at or above which a voxel of a probabilistic mask is lesion."
    kind: MaskKind | None = None
    "What the mask holds; None decides by its values."
    min_volume_mm3: float = 14.0
    "Smaller components are counted together as too-small; a ball 3 mm across has 14 mm3."
    min_long_axis_mm: float = 3.0
    "Shorter lesions keep their zone but are left out of the findings (McDonald criteria: at least 3 mm)."
    tolerance_mm: float = 1.5
    "A lesion abuts ventricles or cortex where the gap between them is at most this."
    bands_mm: tuple[float, ...] = ()
    "Upper edges of distance bands from the lateral ventricles, for instance (3, 10); none by default."


@dataclass(frozen=True)
class Lesion:
    """One lesion."""

    lesion: int
    "1 is the largest; the value of its voxels in the labelled lesion image."
    volume_mm3: float
    long_axis_mm: float
    "Largest distance between two voxel centres of the isotropic grid, plus one voxel."
    centroid_mm: tuple[float, float, float]
    "RAS, scanner or template coordinates of the scan's header."
    zone: str
    contacts: tuple[str, ...]
    dist_ventricle_mm: float
    "Gap to the nearest lateral ventricle, face to face: 0 where they touch or overlap, nan without a ventricle."
    dist_cortex_mm: float
    "The same to the nearest cerebral cortex."
    main_region: int
    "Region code with the largest share, ventricles and CSF only where there is nothing else; 0 is outside the brain."
    regions: tuple[tuple[int, float], ...]
    "Region codes and the lesion's share in each, largest first; the shares add up to 1."
    relative_intensity: float
    "Mean grey value over the median of normal-appearing white matter; nan without such white matter."


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of at most 1 mm of the mask's lesion voxels: what the volumes in tables are sums of; shape (M,)."""

    component: NDArray[np.int32]
    "0 outside the scan's field of view."
    volume_mm3: float
    "Of each piece."
    index: NDArray[np.intp]
    "Flat index of the scan voxel that holds the piece's centre; -1 outside."
    points_mm: Reals
    "(M, 3) RAS."


@dataclass(frozen=True, eq=False)
class LesionReport:
    """All lesions of a scan."""

    lesions: tuple[Lesion, ...]
    "Largest first; without components below the minimum volume."
    placed: Placed
    pieces: Pieces
    labels: NDArray[np.uint16]
    "(I, J, K) lesion of each voxel of the scan's grid; 0 also for what is too small."
    segmentation: Segmentation
    "Corrected under lesions."
    corrected_voxels: int
    band_distance_mm: Reals
    "(M,) gap of each piece to the lateral ventricles; empty without bands."
    kind: MaskKind
    options: LesionOptions
    warnings: tuple[str, ...]

    @property
    def mask_volume_mm3(self) -> float:
        return len(self.placed.voxels) * self.placed.voxel_volume_mm3


def lesion_features(
    image: Image, mask: Image, segmentation: Segmentation, options: LesionOptions | None = None
) -> LesionReport:
    """Place every lesion of ``mask`` in the regions of ``segmentation``.

    ``image`` is the scan whose grid the segmentation has, shapes (I, J, K); the mask may have another grid. Volumes are
    counted on the mask's grid and add up to its volume; all else is measured on the scan's 1 mm isotropic grid, with
    components connected through faces, edges and corners (26). Raises ``ValueError`` if segmentation and scan differ
    in shape, ``UserError`` for mask values that mean nothing.
    """
    options = options or LesionOptions()
    if segmentation.tissue.shape != image.data.shape:
        raise ValueError(f"segmentation {segmentation.tissue.shape} and scan {image.data.shape} must share one grid")
    values, kind = read_labels(mask.data, options.threshold, options.kind)
    placed = place(values, mask.affine, grid_of(image.data.shape, image.affine))
    on_scan = on_scan_grid(placed, image, is_same_grid(image, mask))
    corrected = correct_under_lesions(segmentation, on_scan > 0)
    pieces = _pieces(placed, image)
    count = int((placed.volumes_mm3 >= options.min_volume_mm3 - 1e-6).sum())
    bands = _Near(corrected, image, VENTRICLES).gap_mm(pieces.points_mm) if options.bands_mm else np.zeros(0)
    return LesionReport(
        lesions=_measured(placed, pieces, image, corrected, count, options),
        placed=placed,
        pieces=pieces,
        labels=np.where(on_scan <= count, on_scan, 0).astype(np.uint16),
        segmentation=corrected,
        corrected_voxels=int((corrected.tissue != segmentation.tissue).sum()),
        band_distance_mm=bands,
        kind=kind,
        options=options,
        warnings=mismatches(image, mask) + _misplaced(pieces, segmentation),
    )


def _pieces(placed: Placed, image: Image) -> Pieces:
    points = pieces_of(placed.voxels, placed.affine)
    per_voxel, shape = points.shape[1], image.data.shape
    points_mm = apply(placed.affine, points.reshape(-1, 3))
    indices = np.rint(apply(np.linalg.inv(image.affine), points_mm)).astype(np.intp)
    flat = np.ravel_multi_index(tuple(indices.T), shape, mode="clip")
    return Pieces(
        np.repeat(placed.component, per_voxel),
        placed.voxel_volume_mm3 / per_voxel,
        np.where(is_inside(indices, shape), flat, -1),
        points_mm,
    )


def _misplaced(pieces: Pieces, segmentation: Segmentation) -> tuple[str, ...]:
    """Warnings about lesions where there is no brain."""
    if len(pieces.index) == 0:
        return ()
    beyond = float((pieces.index < 0).mean())
    brain = float((at_pieces(segmentation.tissue, pieces) > 0).mean())
    found = []
    if beyond > 0.01:
        found.append(f"{beyond:.0%} of the lesion mask lies outside the scan's field of view")
    if brain < 0.8:
        found.append(f"only {brain:.0%} of the lesion mask lies in the brain: do mask and scan belong together?")
    return tuple(found)


def at_pieces(volume: NDArray[Any], pieces: Pieces) -> NDArray[Any]:
    """Values of a volume on the scan's grid at every piece, 0 outside the scan; shape (M,)."""
    return np.where(pieces.index < 0, 0, volume.reshape(-1)[np.maximum(pieces.index, 0)])


def correct_under_lesions(segmentation: Segmentation, lesion: NDArray[np.bool_]) -> Segmentation:
    """Make white matter of lesion voxels (I, J, K) that were taken for background, fluid or cortex inside white matter.

    Inside white matter is an island of such labels (of one kind, or of all together) that lies at least half in lesions
    and has mostly white matter around it; it gets side and parcel of the nearest white matter. True ventricles and
    cortex go on beyond the lesion and stay.
    """
    if not lesion.any():
        return segmentation
    tissue = segmentation.tissue
    ventricle, cortex, doubtful = (_is_any(tissue, kinds) for kinds in (VENTRICLES, CORTEX, DOUBTFUL))
    new = {name: getattr(segmentation, name).copy() for name in ("tissue", "side", "parcel")}
    spacing = voxel_spacing_mm(segmentation.affine)
    for doubt in (ventricle, cortex, doubtful & ~ventricle & ~cortex, doubtful):
        for island, white in _islands(doubt, lesion, tissue):
            nearest = white[cKDTree(white * spacing).query(island * spacing)[1]]
            for values in new.values():
                values[tuple(island.T)] = values[tuple(nearest.T)]
    return replace(segmentation, **new)


def _is_any(tissue: NDArray[np.uint8], kinds: NDArray[np.intp]) -> NDArray[np.bool_]:
    return np.asarray(np.isin(np.arange(len(TISSUES)), kinds)[tissue])


def _islands(
    doubt: NDArray[np.bool_], lesion: NDArray[np.bool_], tissue: NDArray[np.uint8]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Lesion voxels of each island (N, 3), and the white matter around it (M, 3)."""
    components, count = ndimage.label(doubt)
    within = np.bincount(components[lesion], minlength=count + 1)
    share = within / np.maximum(np.bincount(components.reshape(-1), minlength=count + 1), 1)
    boxes = ndimage.find_objects(components)
    found = []
    for number in 1 + np.flatnonzero(share[1:] >= 0.5):
        box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in boxes[number - 1])
        inside = components[box] == number
        around = ndimage.binary_dilation(inside) & ~inside
        white = around & (tissue[box] == WHITE_MATTER)
        if white.sum() * 2 > around.sum():
            start = np.array([s.start for s in box])
            found.append((np.argwhere(inside & lesion[box]) + start, np.argwhere(white) + start))
    return found


def isotropic(mask: NDArray[np.bool_], image: Image) -> NDArray[np.bool_]:
    """A mask on the scan's grid (I, J, K), brought to the scan's 1 mm isotropic grid."""
    volume: Floats = conform(replace(image, data=mask.astype(np.float32)))[0]
    return volume >= 0.5


class _Near:
    """Distances to some tissues of a segmentation, on the isotropic grid."""

    def __init__(self, segmentation: Segmentation, image: Image, tissues: NDArray[np.intp]) -> None:
        self.mask = isotropic(_is_any(segmentation.tissue, tissues), image)
        self.affine = grid_of(image.data.shape, image.affine).affine
        surface = np.argwhere(self.mask & ~ndimage.binary_erosion(self.mask))
        self.tree = None
        if len(surface):  # unbalanced: far faster for points in rows
            self.tree = cKDTree(apply(self.affine, surface), compact_nodes=False, balanced_tree=False)

    def gap_mm(self, points_mm: Reals, wanted: NDArray[np.bool_] | None = None) -> Reals:
        """Gap between the voxel around each point (N, 3) and the tissues: centre distance less 1 mm, 0 inside; (N,).

        Points outside the tissues that are not ``wanted`` get infinity. Without such tissues all is nan.
        """
        if self.tree is None:
            return np.full(len(points_mm), np.nan)
        indices = np.rint(apply(np.linalg.inv(self.affine), points_mm)).astype(np.intp)
        inside = look_up(self.mask, indices) > 0
        gap = np.where(inside, 0.0, np.inf)
        ask = ~inside if wanted is None else ~inside & wanted
        gap[ask] = np.round(np.maximum(self.tree.query(points_mm[ask])[0] - 1.0, 0.0), 6)
        return gap


@dataclass(frozen=True, eq=False)
class _Cubes:
    """The isotropic voxels of one lesion, shape (N,)."""

    points_mm: Reals
    ventricle_mm: Reals
    "Gap to the ventricles of surface voxels and those in ventricles; infinite for the others."
    cortex_mm: Reals
    "The same to the cortex."
    cerebral: NDArray[np.bool_]
    "Neither deep grey matter nor brainstem nor cerebellum."
    walls: tuple[int, int]
    "Voxels of ventricles and of cortex that face white matter, in the whole brain."


def _measured(
    placed: Placed, pieces: Pieces, image: Image, segmentation: Segmentation, count: int, options: LesionOptions
) -> tuple[Lesion, ...]:
    """Features of the components 1 to ``count``."""
    if count == 0:
        return ()
    regions = composition(pieces, labels(segmentation, "regions"), count)
    tissues = composition(pieces, segmentation.tissue, count)
    compartments = np.stack([tissues[:, COMPARTMENT[: tissues.shape[1]] == part].sum(1) for part in range(4)], 1)
    intensities = _relative_intensities(placed, image, segmentation, count)
    lesions = []
    for index, cubes in enumerate(_cubes(placed, image, segmentation, count)):
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


def _cubes(placed: Placed, image: Image, segmentation: Segmentation, count: int) -> list[_Cubes]:
    indices = np.argwhere((placed.isotropic > 0) & (placed.isotropic <= count))
    component = placed.isotropic[tuple(indices.T)]
    order = np.argsort(component, kind="stable")
    points = apply(placed.grid.affine, indices[order])
    faces = [look_up(placed.isotropic, indices + step) != component for step in FACES]
    surface = np.any(faces, axis=0)[order]
    scan = np.rint(apply(np.linalg.inv(image.affine), points)).astype(np.intp)
    cerebral = ~np.isin(COMPARTMENT[look_up(segmentation.tissue, scan)], (1, 2))
    near = [_Near(segmentation, image, tissues) for tissues in (VENTRICLES, CORTEX)]
    ventricle, cortex = (tissues.gap_mm(points, surface) for tissues in near)
    beside_white = ndimage.binary_dilation(isotropic(segmentation.tissue == WHITE_MATTER, image))
    walls = tuple(max(1, int((tissues.mask & beside_white).sum())) for tissues in near)
    ends = np.cumsum(np.bincount(component, minlength=count + 1)[1:])[:-1]
    parts = [np.split(values, ends) for values in (points, ventricle, cortex, cerebral)]
    return [_Cubes(p, v, c, inside, (walls[0], walls[1])) for p, v, c, inside in zip(*parts, strict=True)]


def zone_of(cubes: _Cubes, compartments: Reals, options: LesionOptions) -> tuple[tuple[str, ...], str]:
    """Contacts and zone of a lesion; ``compartments`` is its volume in nothing, hindbrain, deep grey, cerebrum; (4,).

    A lesion is in contact with hindbrain or deep grey matter where a tenth of it, or as much as a lesion has at least,
    lies there.
    """
    abuts = [
        int((cubes.cerebral & (gap <= options.tolerance_mm)).sum()) for gap in (cubes.ventricle_mm, cubes.cortex_mm)
    ]
    enough = min(0.1 * float(compartments.sum()), options.min_volume_mm3)
    has = [0 < enough <= compartments[part] for part in (1, 2)]
    named = zip((PERIVENTRICULAR, JUXTACORTICAL, INFRATENTORIAL, DEEP_GREY), (*abuts, *has), strict=True)
    contacts = tuple(name for name, touched in named if touched)
    if not compartments[1:].any():
        return contacts, OUTSIDE
    part = 1 + int(compartments[1:].argmax())
    if part < 3:
        return contacts, (INFRATENTORIAL, DEEP_GREY)[part - 1]
    if not any(abuts):
        return (*contacts, DEEP_WHITE), DEEP_WHITE
    return contacts, PERIVENTRICULAR if abuts[0] / cubes.walls[0] >= abuts[1] / cubes.walls[1] else JUXTACORTICAL


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


def findings(lesions: Sequence[Lesion], options: LesionOptions) -> str:
    """What is seen of dissemination in space: lesions per McDonald site. Not a diagnosis.

    Counts zones of lesions of at least the minimum long axis; ``(+n)`` counts those of another zone that touch it too.
    """
    long_enough = [lesion for lesion in lesions if lesion.long_axis_mm >= options.min_long_axis_mm]
    zones = Counter(lesion.zone for lesion in long_enough)
    also = Counter(c for lesion in long_enough for c in lesion.contacts if c != lesion.zone)
    parts = [f"{site}: {zones[site]}" + (f" (+{also[site]})" if also[site] else "") for site in MCDONALD_SITES]
    return ", ".join(parts)
