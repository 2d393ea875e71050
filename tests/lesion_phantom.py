"""A brain of boxes, 96 mm wide, whose faces lie at multiples of 6 mm: the answers can be worked out by hand.

Below z = -12 hindbrain: brainstem where |x|, |y| < 12, cerebellum around it. Above: cortex 6 mm thick from 36 to 42 mm,
white matter inside it, lateral ventricles (|x| < 6, |y| < 18, 0 < z < 12) and thalami below them (6 < |x| < 18,
|y| < 6, -12 < z < 0).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUE, gyri
from bidsseg.segmentation.anatomy import Anatomy

FIELD_MM = 96
Bounds = tuple[float, float, float, float, float, float]
Spacing = tuple[float, float, float]
FRONTAL, PARIETAL = ([gyrus.region_lobe for gyrus in gyri()].index(lobe) for lobe in ("frontal", "parietal"))


def affine_of(spacing: Spacing) -> NDArray[np.float64]:
    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = -FIELD_MM / 2 + np.array(spacing) / 2
    return affine


def coordinates(spacing: Spacing) -> tuple[NDArray[np.float64], ...]:
    """x, y, z of the voxel centres in mm, to be broadcast."""
    axes = [(np.arange(round(FIELD_MM / mm)) + 0.5) * mm - FIELD_MM / 2 for mm in spacing]
    return np.ix_(*axes)


def boxes(spacing: Spacing, bounds: Iterable[Bounds]) -> NDArray[np.bool_]:
    """A mask of boxes (x from, x to, y from, y to, z from, z to), in mm."""
    x, y, z = coordinates(spacing)
    mask = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), bool)
    for x0, x1, y0, y1, z0, z1 in bounds:
        mask |= (x > x0) & (x < x1) & (y > y0) & (y < y1) & (z > z0) & (z < z1)
    return mask


def ball(spacing: Spacing, centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    """Voxels at least half of which lie in a ball, sampled at 0.5 mm."""
    fine = _fine_ball(centre, radius)
    a, b, c = (round(2 * mm) for mm in spacing)
    i, j, k = fine.shape
    half: NDArray[np.bool_] = fine.reshape(i // a, a, j // b, b, k // c, c).mean((1, 3, 5)) >= 0.5
    return half


@cache
def _fine_ball(centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    x, y, z = coordinates((0.5, 0.5, 0.5))
    return np.asarray((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2)


@cache
def brain(spacing: Spacing) -> Anatomy:
    x, y, z = coordinates(spacing)
    tissue = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.uint8)
    whole = (abs(x) < 42) & (abs(y) < 42) & (abs(z) < 42)
    tissue[whole] = TISSUE["cortex"]
    tissue[whole & (abs(x) < 36) & (abs(y) < 36) & (z < 36)] = TISSUE["white-matter"]
    tissue[whole & (z < -12)] = TISSUE["cerebellum-white-matter"]
    tissue[whole & (z < -12) & (abs(x) < 12) & (abs(y) < 12)] = TISSUE["brainstem"]
    tissue[(abs(x) < 6) & (abs(y) < 18) & (z > 0) & (z < 12)] = TISSUE["lateral-ventricle"]
    tissue[(abs(x) > 6) & (abs(x) < 18) & (abs(y) < 6) & (z > -12) & (z < 0)] = TISSUE["thalamus"]
    side = np.broadcast_to(x > 0, tissue.shape).astype(np.uint8)
    parcel = np.where(np.broadcast_to(y > 0, tissue.shape), FRONTAL, PARIETAL).astype(np.uint8)
    return Anatomy(tissue, side, parcel, affine_of(spacing), has_gyri=False)


def image(data: NDArray[np.generic], affine: NDArray[np.float64]) -> Image:
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape)
    header.set_sform(affine, 1)
    return Image(data.astype(np.float32), affine, header)
