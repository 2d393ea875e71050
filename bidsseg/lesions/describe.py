"""Describes the lesions of a mask: sizes, regions, distances, and the sites of the McDonald criteria they touch.

The rules for zones are in ``zones``, what comes out in ``records``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import UserError
from bidsseg.imaging.image import Image, has_voxels_of
from bidsseg.lesions.components import (
    Ints,
    LesionComponents,
    apply,
    is_inside,
    label_components,
    on_scan_grid,
    pieces_of,
)
from bidsseg.lesions.correction import correct_under_lesions
from bidsseg.lesions.masks import MaskLabels, mismatches, read_labels
from bidsseg.lesions.measures import Walls, at_pieces, cubes_of, measured, measured_parts
from bidsseg.lesions.options import ROUNDED_DOWN, LesionOptions
from bidsseg.lesions.parts import part_at, split
from bidsseg.lesions.records import LesionReport, Pieces
from bidsseg.segmentation.anatomy import Anatomy

LARGEST_SHARE, LARGEST_ML = 0.5, 10.0
"A mask that fills half of the brain, and more than this, holds something else."


def lesion_features(
    image: Image,
    mask: Image,
    anatomy: Anatomy,
    options: LesionOptions | None = None,
    named_probability: bool = False,
) -> LesionReport:
    """Place every lesion of ``mask`` in the regions of ``segmentation``.

    ``image`` is the scan whose grid the segmentation has, shapes (I, J, K); the mask may have another grid. Volumes are
    counted on the mask's grid and add up to its volume; all else is measured on the scan's 1 mm isotropic grid, with
    components connected through faces, edges and corners (26), across thick slices through faces alone. With
    ``named_probability`` (the file is called ``_probseg``) whole numbers are no labels. Raises ``ValueError`` if
    segmentation and scan differ in shape, ``UserError`` for mask values that mean nothing.
    """
    options = options or LesionOptions()
    read, components, on_scan, corrected = on_segmentation(image, mask, anatomy, options.threshold, named_probability)
    count = int((components.volumes_mm3 >= options.min_volume_mm3 * ROUNDED_DOWN).sum())
    part = split(components, count, options)
    pieces = _pieces(components, part, image)
    walls = Walls.of(corrected, image)
    cubes = cubes_of(components, pieces, image, corrected, part, walls)
    parts = measured_parts(components, pieces, cubes, corrected, options)
    ventricle, cortex = (wall.gap_mm(pieces.points_mm) for wall in (walls.ventricles, walls.cortex))
    listed = np.where(on_scan <= count, on_scan, 0)
    return LesionReport(
        lesions=measured(components, pieces, image, corrected, parts, cubes),
        parts=parts,
        cubes=cubes,
        components=components,
        pieces=pieces,
        labels=listed.astype(np.uint16),
        part_labels=_part_labels(listed, image, components, part),
        anatomy=corrected,
        corrected_voxels=int((corrected.tissue != anatomy.tissue).sum()),
        ventricle_mm=ventricle,
        cortex_mm=cortex,
        kind=read.kind,
        options=options,
        warnings=read.warnings + mismatches(image, mask) + _misplaced(pieces, anatomy),
    )


class OnSegmentation(NamedTuple):
    """The lesions of a mask on the grid of a segmented scan."""

    read: MaskLabels
    components: LesionComponents
    on_scan: Ints
    "(I, J, K) component of each voxel of the scan's grid, 0 outside lesions."
    anatomy: Anatomy
    "Corrected under the lesions."


def on_segmentation(
    image: Image, mask: Image, anatomy: Anatomy, threshold: float, named_probability: bool
) -> OnSegmentation:
    """Read a mask and bring it to the grid of a segmented scan; arguments and errors as in ``lesion_features``."""
    if anatomy.tissue.shape != image.data.shape:
        raise ValueError(f"segmentation {anatomy.tissue.shape} and scan {image.data.shape} must share one grid")
    read = read_labels(mask.data, threshold, named_probability)
    check_size(read.labels, mask, anatomy)
    components = label_components(read.labels, mask.affine, image.grid.along_scan)
    on_scan = on_scan_grid(components, image, has_voxels_of(mask.geometry, image.geometry))
    return OnSegmentation(read, components, on_scan, correct_under_lesions(anatomy, on_scan > 0))


def _part_labels(lesion: Ints, image: Image, components: LesionComponents, part: Ints) -> NDArray[np.uint16]:
    """Parts on the scan's grid, where lesions are (I, J, K)."""
    voxels = np.argwhere(lesion > 0)
    labels = np.zeros(lesion.shape, np.uint16)
    if len(voxels):
        labels[tuple(voxels.T)] = part_at(apply(image.affine, voxels), lesion[tuple(voxels.T)], components, part)
    return labels


def check_size(values: NDArray[np.int32], mask: Image, anatomy: Anatomy) -> None:
    """Raise ``UserError`` where a mask is too large to be one of lesions: a brain mask, or a scan."""
    lesion_ml = np.count_nonzero(values) * mask.voxel_volume_mm3 / 1000
    brain_ml = np.count_nonzero(anatomy.tissue) * anatomy.voxel_volume_mm3 / 1000
    if lesion_ml > max(LARGEST_SHARE * brain_ml, LARGEST_ML):
        raise UserError(
            f"{lesion_ml:.0f} mL in the lesion mask, of {brain_ml:.0f} mL in the brain; give a mask of lesions only"
        )


def _pieces(components: LesionComponents, part: Ints, image: Image) -> Pieces:
    points = pieces_of(components.voxels, components.affine)
    per_voxel, shape = points.shape[1], image.data.shape
    points_mm = apply(components.affine, points.reshape(-1, 3))
    indices = np.rint(apply(np.linalg.inv(image.affine), points_mm)).astype(np.intp)
    flat = np.ravel_multi_index(tuple(indices.T), shape, mode="clip")
    return Pieces(
        np.repeat(components.component, per_voxel),
        np.repeat(part, per_voxel),
        components.voxel_volume_mm3 / per_voxel,
        np.where(is_inside(indices, shape), flat, -1),
        points_mm,
    )


def _misplaced(pieces: Pieces, anatomy: Anatomy) -> tuple[str, ...]:
    """Warnings about lesions where there is no brain."""
    if len(pieces.index) == 0:
        return ()
    beyond = float((pieces.index < 0).mean())
    brain = float((at_pieces(anatomy.tissue, pieces) > 0).mean())
    found = []
    if beyond > 0.01:
        found.append(f"{beyond:.0%} of the lesion mask lies outside the scan's field of view")
    if brain < 0.8:
        found.append(f"only {brain:.0%} of the lesion mask lies in the brain: do mask and scan belong together?")
    return tuple(found)
