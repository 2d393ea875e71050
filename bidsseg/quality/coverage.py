"""The field of view of a scan: its slices, their thickness, and where it cuts the brain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.imaging.image import Image
from bidsseg.quality.evidence import FACES, Evidence

BRAIN_RADIUS_MM, CEREBELLUM_RADIUS_MM = 70.0, 30.0
BEYOND_MM = 3.0
"What may be missing of the brain beyond a whole slice: it holds under 1 % of it."
FEWEST_SLICES = 10
THICKEST_MM = 8.0
"The thickest slices that the calibration studied."
SHORTEST_MM = 80.0


@dataclass(frozen=True)
class FieldOfView:
    """The scan's field of view, which quality depends on."""

    slices: int
    "Voxels along the axis of the largest spacing."
    slice_mm: float
    "The largest spacing."
    smallest_extent_mm: float
    "The field of view's shortest side."
    axis: int = 2
    "The axis of the largest spacing: 0 for sagittal slices, 1 for coronal, 2 for axial ones."


def field_of_view(image: Image) -> FieldOfView:
    """The field of view of a scan."""
    spacing = voxel_spacing_mm(image.affine)
    thickest = int(np.argmax(spacing))
    extent = [n * mm for n, mm in zip(image.data.shape, spacing, strict=True)]
    axis = int(np.argmax(np.abs(image.affine[:3, thickest])))
    return FieldOfView(
        image.data.shape[thickest], round(float(spacing[thickest]), 3), round(float(min(extent)), 1), axis
    )


def cap_mm2(radius_mm: float, depth_mm: float) -> float:
    """Area of the face that cuts a cap of this depth off a sphere."""
    return math.pi * max(2 * radius_mm - depth_mm, 0.0) * depth_mm


def cut_faces(evidence: Evidence, view: FieldOfView) -> list[str]:
    """Faces of the field of view that cut off more of the brain than a slice and ``BEYOND_MM``, as of a sphere.

    One thick slice at the vertex may hold 30 cm2 of brain: without the next one hardly anything is missing.
    """
    found = []
    for number, face in enumerate(FACES):
        depth = (view.slice_mm if number // 2 == view.axis else 1.0) + BEYOND_MM
        if evidence.cut_mm2.get(face, 0.0) > cap_mm2(BRAIN_RADIUS_MM, depth):
            found.append(face)
    return found


def is_cut(evidence: Evidence, view: FieldOfView) -> bool:
    """Whether the field of view ends within the brain."""
    return bool(cut_faces(evidence, view))


def is_whole(evidence: Evidence, view: FieldOfView) -> bool:
    """Whether all of the brain is in view, so that volumes and places can be compared with the usual."""
    return not is_cut(evidence, view) and view.slices >= FEWEST_SLICES


def coverage_doubts(evidence: Evidence, view: FieldOfView) -> list[str]:
    """A field of view that cuts the brain, or shows little of it."""
    doubts = [
        f"the field of view cuts the brain at the {face} ({evidence.cut_mm2[face] / 100:.0f} cm2)"
        for face in cut_faces(evidence, view)
    ]
    depth = BEYOND_MM + (view.slice_mm if view.axis == 2 else 1.0)
    if evidence.cerebellum_cut_mm2 > cap_mm2(CEREBELLUM_RADIUS_MM, depth):
        doubts.append("the field of view cuts the cerebellum")
    if view.slices < FEWEST_SLICES:
        doubts.append(f"only {view.slices} slices" if view.slices > 1 else "only 1 slice")
    if view.slice_mm > THICKEST_MM:
        doubts.append(f"slices {view.slice_mm:g} mm apart")
    if view.smallest_extent_mm < SHORTEST_MM:
        doubts.append(f"the field of view is only {view.smallest_extent_mm:.0f} mm wide")
    return doubts
