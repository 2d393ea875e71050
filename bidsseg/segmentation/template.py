"""From a scan's labels to a template's: a common space for all scans, whatever their contrast.

Labels mean the same in every contrast, so they are registered rather than grey values. The affine brings the centres of
the regions together, in closed form; then a velocity is driven by the shares that regions have of coarse voxels, with
the forces of demons (Thirion 1998, Vercauteren et al. 2009, doi 10.1016/j.neuroimage.2008.10.040) summed over all
regions. Fluid around the brain has no shape of its own and does not count; what the scan's field of view leaves out
pulls nothing.

The template is MNI152NLin2009aSym (Fonov et al. 2011, doi 10.1016/j.neuroimage.2010.07.033), as nilearn ships it; its
labels are those of our network, from ``benchmarks/template_space.py --write``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.errors import UserError
from bidsseg.imaging.arrays import Floats, box_around
from bidsseg.imaging.deformation import (
    Affine,
    Deformation,
    exponential,
    gradients,
    moved,
    points_of,
    sampled,
    smoothed,
)
from bidsseg.labels import Scheme, label_table
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.segmentation.template_labels import template
from bidsseg.spaces import TEMPLATE

SHAPELESS = ("CSF",)
"Regions that have no shape of their own."
FACTOR = 4
"Voxels of 1 mm along the side of a coarse one."
LEVELS = ((1.0, 10), (0.0, 15))
"Standard deviation, in coarse voxels, by which regions are smoothed, and steps taken with it."
STEP_SMOOTHING, VELOCITY_SMOOTHING = 0.7, 0.5
"Standard deviations in coarse voxels: how fluid, and how elastic, the deformation is."
LEAST_JACOBIAN = 0.05
ROUNDS = 20
SEEN_SHARE = 0.3
"Share of a region's usual volume that must be in view for its centre to count."
LEAST_REGIONS = 12


@dataclass(frozen=True, eq=False)
class Shares:
    """How much of each coarse voxel each region has."""

    regions: Tensor
    "(R, I, J, K)"
    seen: Tensor
    "(1, I, J, K), the share of the field of view."
    affine: Affine
    "From coarse voxels to RAS mm."


def to_template(segmentation: Anatomy) -> Deformation:
    """The deformation between the template's space and that of a scan segmented on its 1 mm grid.

    Raises ``UserError`` where too little of the brain is in view.
    """
    fixed, moving = _template_shares(), shares_of(segmentation)
    affine = _affine(fixed, moving)
    velocity = _velocity(fixed, moving, affine)
    found = Deformation(affine, velocity, fixed.affine)
    while found.least_jacobian() <= LEAST_JACOBIAN:
        found = replace(found, velocity=smoothed(found.velocity, 1.0))
    return found


@cache
def _template_shares() -> Shares:
    return shares_of(template())


def shares_of(segmentation: Anatomy) -> Shares:
    """Each region's share of voxels ``FACTOR`` times as wide as those of a 1 mm grid."""
    codes = segmentation.labels("regions")
    labels = [label.index for label in label_table("regions") if label.name not in SHAPELESS]
    row = np.zeros(int(max(labels)) + 1, np.int64)
    row[labels] = 1 + np.arange(len(labels))
    box = box_around(codes > 0)
    shape = [-(-n // FACTOR) for n in codes.shape]
    i, j, k = np.ix_(*(np.arange(s.start, s.stop) // FACTOR for s in box))
    cell = (i * shape[1] + j) * shape[2] + k
    cells = shape[0] * shape[1] * shape[2]
    counted = np.bincount((row[codes[box]] * cells + cell).reshape(-1), minlength=(1 + len(labels)) * cells)
    regions = counted.reshape(-1, *shape)[1:].astype(np.float32) / FACTOR**3
    a, b, c = (np.bincount(np.arange(n) // FACTOR) / FACTOR for n in codes.shape)
    seen = (a[:, None, None] * b[:, None] * c)[None].astype(np.float32)
    coarse = np.diag((FACTOR, FACTOR, FACTOR, 1.0))
    coarse[:3, 3] = (FACTOR - 1) / 2
    return Shares(torch.from_numpy(regions), torch.from_numpy(seen), segmentation.affine @ coarse)


def _affine(fixed: Shares, moving: Shares) -> Affine:
    """The affine that brings the regions' centres together, from the template's mm to the scan's.

    Weighted least squares in closed form, again with less weight for regions that fit badly. Of a region that the field
    of view cuts, the centre of the part in view counts: which part, the affine found before tells.
    """
    volumes, centres = _centres(moving.regions, moving.affine)
    usual, targets = _centres(fixed.regions, fixed.affine)
    points = points_of(fixed.regions.shape[1:], fixed.affine)
    affine = np.eye(4)
    for _ in range(3):
        in_view = (volumes > SEEN_SHARE * usual) & (usual > 0)
        if in_view.sum() < LEAST_REGIONS:
            raise UserError(f"too little of the brain is in view, or was found, to bring it to {TEMPLATE}")
        affine = robust_affine(targets[in_view], centres[in_view], np.sqrt(usual[in_view]))
        seen = sampled(moving.seen, moving.affine, moved(affine, points))
        usual, targets = _centres(fixed.regions * seen, fixed.affine)
    return affine


def _centres(regions: Tensor, affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Volumes (R,) in coarse voxels, and centres (R, 3) in mm."""
    volumes = regions.sum((1, 2, 3)).double().numpy()
    means = []
    for axis in range(3):
        profile = regions.sum([1 + other for other in range(3) if other != axis]).double().numpy()
        means.append(profile @ np.arange(profile.shape[1]) / np.maximum(volumes, 1e-9))
    return volumes, np.stack(means, 1) @ affine[:3, :3].T + affine[:3, 3]


def robust_affine(
    points: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The affine, 4x4, that takes points (N, 3) nearest to targets (N, 3); Cauchy weights for those that stay away."""
    rows = np.column_stack((points, np.ones(len(points))))
    trust = np.ones(len(points))
    affine = np.eye(4)
    for _ in range(ROUNDS):
        weighted = rows * (weights * trust)[:, None]
        affine[:3] = np.linalg.solve(weighted.T @ rows, weighted.T @ targets).T
        off = np.linalg.norm(rows @ affine[:3].T - targets, axis=1)
        trust = 1 / (1 + (off / (2 * 1.4826 * np.median(off) + 1e-6)) ** 2)
    return affine


def _velocity(fixed: Shares, moving: Shares, affine: Affine) -> Tensor:
    """The velocity (3, I, J, K) on the template's coarse grid that brings the regions together."""
    box = box_around((fixed.regions.sum(0) > 0).numpy(), 2)
    inside = (slice(None), *box)
    corner = np.eye(4)
    corner[:3, 3] = [s.start for s in box]
    points = points_of(tuple(s.stop - s.start for s in box), fixed.affine @ corner)
    velocity = torch.zeros(3, *fixed.regions.shape[1:])
    for smoothing, steps in LEVELS:
        target, source = (smoothed(one, smoothing) if smoothing else one for one in (fixed.regions, moving.regions))
        target, source = target[inside], torch.cat((source, moving.seen))
        for _ in range(steps):
            there = points + exponential(velocity, fixed.affine)[inside].permute(1, 2, 3, 0)
            now = sampled(source, moving.affine, moved(affine, there))
            step = torch.zeros_like(velocity)
            step[inside] = _force(target, now[:-1]) * now[-1].clamp(max=1)
            velocity = smoothed(velocity + smoothed(step, STEP_SMOOTHING), VELOCITY_SMOOTHING)
    return velocity


def _force(target: Tensor, now: Tensor) -> Tensor:
    """The demons' step (3, I, J, K) in mm, from shares of regions (R, I, J, K) as they should be and as they are."""
    missing = target - now
    slopes = gradients(now, float(FACTOR))
    norm = sum((slope**2).sum(0) for slope in slopes) + (missing**2).sum(0) / FACTOR**2 + 1e-4
    return torch.stack([(missing * slope).sum(0) for slope in slopes]) / norm


@dataclass(frozen=True, eq=False)
class InTemplate:
    """Where the voxels of the template's grid lie in a scan, for as many images of it as there are."""

    points: Tensor
    "(I, J, K, 3) RAS mm of the scan."

    @classmethod
    def of(cls, deformation: Deformation) -> InTemplate:
        return cls(deformation.to_scan(points_of(template().tissue.shape, template().affine)))

    def scan(self, data: Floats, affine: Affine) -> Floats:
        """Grey values, trilinear; 0 beyond the field of view."""
        values: Floats = sampled(torch.from_numpy(np.require(data, requirements="W"))[None], affine, self.points)[
            0
        ].numpy()
        return values

    def labels(self, segmentation: Anatomy, scheme: Scheme) -> NDArray[np.uint16]:
        """Labels of the nearest voxels."""
        codes = torch.from_numpy(segmentation.labels(scheme).astype(np.float32))[None]
        nearest: NDArray[np.uint16] = sampled(codes, segmentation.affine, self.points, "nearest")[0].numpy()
        return nearest.astype(np.uint16)

    def mask(self, mask: NDArray[np.bool_], affine: Affine) -> NDArray[np.uint8]:
        """Voxels that are at least half in a mask."""
        inside: NDArray[np.uint8] = (self.scan(mask.astype(np.float32), affine) >= 0.5).astype(np.uint8)
        return inside
