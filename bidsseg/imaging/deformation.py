"""Smooth, invertible deformations between two spaces: an affine, and a stationary velocity on a coarse grid.

A velocity moves every point along for one unit of time. Where the points are then is found by scaling and squaring
(Arsigny et al. 2006, doi 10.1007/11866565_113), and the reversed velocity leads back: so both directions come from one
field, and neither folds space.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.imaging.arrays import along

Affine = NDArray[np.float64]
"4x4, in mm or from voxel indices to mm."
SQUARINGS = 6


@dataclass(frozen=True, eq=False)
class Deformation:
    """The way from one space, a template's, to another, a scan's, and back; RAS mm."""

    affine: Affine
    "From the template's to the scan's mm, after the displacement."
    velocity: Tensor
    "(3, I, J, K) mm for each unit of time, in the template's space."
    grid: Affine
    "From voxels of the velocity to the template's mm: scaled and moved, not turned."

    def displacement(self, backwards: bool = False) -> Tensor:
        """Where the velocity leads from the centre of each of its voxels, (3, I, J, K) mm."""
        return exponential(-self.velocity if backwards else self.velocity, self.grid)

    def to_scan(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the template's space in the scan's."""
        return moved(self.affine, displaced(points, self.displacement(), self.grid))

    def to_template(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the scan's space in the template's."""
        return displaced(moved(inverse(self.affine), points), self.displacement(backwards=True), self.grid)

    def least_jacobian(self) -> float:
        """The least change of volume anywhere, in either direction; above 0 where space does not fold."""
        spacing = np.diag(self.grid)[:3]
        volume = float(np.linalg.det(self.affine[:3, :3]))
        onward, back = (least_determinant(self.displacement(way), spacing) for way in (False, True))
        return min(onward * volume, back / volume)


def points_of(shape: tuple[int, ...], affine: Affine) -> Tensor:
    """Centres of all voxels of a grid, (I, J, K, 3) mm."""
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    return moved(affine, torch.stack(torch.meshgrid(*axes, indexing="ij"), -1))


def moved(affine: Affine, points: Tensor) -> Tensor:
    """An affine applied to points (..., 3)."""
    matrix = torch.from_numpy(affine.astype(np.float32))
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def inverse(affine: Affine) -> Affine:
    return np.asarray(np.linalg.inv(affine), np.float64)


def sampled(
    volumes: Tensor,
    affine: Affine,
    points: Tensor,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    beyond: Literal["zeros", "border"] = "zeros",
) -> Tensor:
    """Volumes (C, I, J, K) at points (i, j, k, 3) in mm, (C, i, j, k): trilinear or from the nearest voxel."""
    size = torch.tensor(volumes.shape[1:], dtype=torch.float32)
    unit = (2 * moved(inverse(affine), points) + 1) / size - 1
    where = unit.flip(-1)[None]  # grid_sample wants the last axis first
    found: Tensor = F.grid_sample(volumes[None], where, mode=mode, padding_mode=beyond, align_corners=False)
    first: Tensor = found[0]
    return first


def displaced(points: Tensor, displacement: Tensor, grid: Affine) -> Tensor:
    """Points (i, j, k, 3) moved by a displacement (3, I, J, K) on a grid; nothing moves beyond it."""
    return points + sampled(displacement, grid, points).permute(1, 2, 3, 0)


def exponential(velocity: Tensor, grid: Affine) -> Tensor:
    """The displacement (3, I, J, K) that a velocity leads to."""
    points = points_of(velocity.shape[1:], grid)
    displacement: Tensor = velocity / 2**SQUARINGS
    for _ in range(SQUARINGS):
        there = points + displacement.permute(1, 2, 3, 0)
        displacement = displacement + sampled(displacement, grid, there, beyond="border")
    return displacement


def smoothed(volumes: Tensor, voxels: float) -> Tensor:
    """Volumes (C, I, J, K) after a Gaussian of this standard deviation; beyond the grid there is nothing."""
    for axis, n in enumerate(volumes.shape[1:]):
        apart = torch.arange(n)[:, None] - torch.arange(n)
        kernel = torch.exp(-((apart / voxels) ** 2) / 2)
        volumes = along(kernel / kernel.sum(1).max(), volumes, axis)
    return volumes


def gradients(volumes: Tensor, spacing_mm: float) -> list[Tensor]:
    """Central differences of volumes (C, I, J, K) along each axis, per mm; at the edges those of one side."""
    return [torch.gradient(volumes, spacing=spacing_mm, dim=axis)[0] for axis in (1, 2, 3)]


def least_determinant(displacement: Tensor, spacing: NDArray[np.float64]) -> float:
    """The least Jacobian determinant at the corners of all cells, whose edges are the differences of neighbours."""
    least = np.inf
    for corner in product((0, 1), repeat=3):
        columns = []
        for axis in range(3):
            part = torch.diff(displacement, dim=1 + axis) / float(spacing[axis])
            for other in range(3):
                if other != axis:
                    part = part.narrow(1 + other, corner[other], part.shape[1 + other] - 1)
            columns.append(part)
        jacobian = torch.stack(columns, 1).permute(2, 3, 4, 0, 1) + torch.eye(3)
        least = min(least, float(torch.linalg.det(jacobian).min()))
    return least
