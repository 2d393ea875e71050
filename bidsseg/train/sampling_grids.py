"""Where a training image takes its voxels from: random maps of a subject's voxels, and sampling by them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.imaging.arrays import Floats, Numbers, along, resampling_matrix
from bidsseg.train.chance import upload
from bidsseg.train.options import SynthesisSettings

Floats64 = NDArray[np.float64]

OCTAVES, HEIGHT = 3, 0.4
"""Of a warp, and of each the height against the one before, which is twice as wide. The widest moves lobes, the finest,
with 8 mm between its nodes, bends gyri and makes small structures thicker and thinner."""


def _nodes(octave: int) -> tuple[int, int, int]:
    """How many an octave has along each axis; those of all wider ones are among them."""
    i, j, k = (n * 2**octave + 1 for n in (5, 6, 5))
    return i, j, k


COARSE, FINEST = _nodes(0), _nodes(OCTAVES - 1)
MIDDLE_MM = 35.0
"Width of the part of the head that swells; about the reach of the lateral ventricles."
SLICES_ROTATION_DEG, SLICES_SCALING, SLICES_SCALING_ACROSS, SLICES_WARP_MM = 10.0, 0.08, 0.05, 1.5
"How far thick slices of a real scan are turned, scaled and warped at most, within their planes and across."


def sampling_grid(box: Floats64, recipe: SynthesisSettings, difficulty: float, rng: Generator) -> Floats64:
    """Coarse map (3, *FINEST) from output voxels to source voxels: a random affine and a random smooth warp."""
    amount = 0.3 + 0.7 * difficulty
    points = _from_middle(recipe, FINEST)
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * recipe.rotation_deg * amount)
    scale = np.exp(
        rng.uniform(-1, 1, 3) * recipe.scaling * 0.5 * amount + rng.uniform(-1, 1) * recipe.scaling * 0.7 * amount
    )
    shear = np.eye(3) + rng.uniform(-0.06, 0.06, (3, 3)) * amount * (1 - np.eye(3))
    matrix = _rotation(angles) @ shear @ np.diag(scale)
    centre = _shifted_centre(box, recipe, amount, rng)
    warp = _warp(recipe.warp_mm * amount, rng)
    if rng.random() < recipe.p_swollen:
        near_middle = np.exp(-(points**2).sum(0) / (2 * MIDDLE_MM**2))
        points = points * (1 - rng.uniform(-0.4, 1) * recipe.swelling * amount * near_middle)
    return _mapped(points, matrix, centre, warp)


def _warp(most_mm: float, rng: Generator) -> Floats:
    """A random displacement (3, *FINEST); the standard deviation of its widest octave is ``most_mm`` at most."""
    warp = np.zeros((3, *COARSE), np.float32)
    for octave in range(OCTAVES):
        nodes = _nodes(octave)
        height = rng.uniform(0, most_mm * HEIGHT**octave)
        warp = _between(warp, nodes, np.asarray) + rng.normal(0, height, (3, *nodes)).astype(np.float32)
    return warp


def grid_of_slices(
    box: Floats64, slice_axis: int, recipe: SynthesisSettings, difficulty: float, rng: Generator
) -> Floats64:
    """Like ``sampling_grid`` for thick slices, which stay slices: they are turned, scaled and warped within planes.

    It has (3, *COARSE) nodes. Across slices there are only a shift and a scale, since what lies between them is
    interpolated already.
    """
    amount = 0.3 + 0.7 * difficulty
    angles = np.zeros(3)
    angles[slice_axis] = np.deg2rad(rng.uniform(-1, 1) * SLICES_ROTATION_DEG) * amount
    scaling = np.where(np.arange(3) == slice_axis, SLICES_SCALING_ACROSS, SLICES_SCALING)
    matrix = _rotation(angles) @ np.diag(np.exp(rng.uniform(-1, 1, 3) * scaling * amount))
    warp = rng.normal(0, 1, (3, *COARSE)) * rng.uniform(0, SLICES_WARP_MM) * amount
    warp[slice_axis] = 0
    return _mapped(_from_middle(recipe, COARSE), matrix, _shifted_centre(box, recipe, amount, rng), warp)


def _shifted_centre(box: Floats64, recipe: SynthesisSettings, amount: float, rng: Generator) -> Floats64:
    centre: Floats64 = box.mean(0) + rng.uniform(-1, 1, 3) * recipe.shift_mm * amount * np.array([0.6, 1, 1])
    return centre


def _mapped(points: Floats64, matrix: Floats64, centre: Floats64, warp: NDArray[np.floating]) -> Floats64:
    grid: Floats64 = np.einsum("ab,bijk->aijk", matrix, points) + centre[:, None, None, None] + warp
    return grid


def own_voxels(box: Floats64, recipe: SynthesisSettings) -> Floats64:
    """The map (3, *COARSE) that moves the brain's box to the middle of the output by whole voxels."""
    half_voxel = (np.array(recipe.shape) - 1) / 2 % 1
    centre = np.floor(box.mean(0)) + half_voxel
    grid: Floats64 = _from_middle(recipe, COARSE) + centre[:, None, None, None]
    return grid


def _from_middle(recipe: SynthesisSettings, nodes: tuple[int, int, int]) -> Floats64:
    """(3, *nodes): mm from the middle of the output."""
    axes = [np.linspace(-(n - 1) / 2, (n - 1) / 2, c) for n, c in zip(recipe.shape, nodes, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _rotation(angles: Floats64) -> Floats64:
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_i = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_j = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_k = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    rotation: Floats64 = about_i @ about_j @ about_k
    return rotation


def upsample(coarse: Floats64, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """(C, i, j, k) on the host -> float32 (C, I, J, K) there, trilinear with aligned corners: affine maps stay exact.

    One matrix per axis takes a third of the time of ``torch.nn.functional.interpolate``.
    """
    return _between(upload(coarse.astype(np.float32), device), shape, partial(upload, device=device))


def _between(values: Numbers, shape: tuple[int, int, int], there: Callable[[Floats], Numbers]) -> Numbers:
    """Values (C, i, j, k) at more places (C, I, J, K) between the same corners; ``there`` takes matrices to them."""
    for axis, (n, size) in enumerate(zip(shape, values.shape[1:], strict=True)):
        values = along(there(resampling_matrix(np.linspace(0, size - 1, n), size, 1.0)), values, axis)
    return values


def gather(volume: Tensor, coordinates: Tensor) -> Tensor:
    """Nearest neighbours; outside the volume the border counts, which is air in training subjects."""
    flat = coordinates.new_zeros(coordinates.shape[1:], dtype=torch.int32)
    for axis, size in enumerate(volume.shape):
        index = coordinates[axis].add(0.5).to(torch.int32).clamp_(0, size - 1)
        flat = flat.mul_(size).add_(index)
    return volume.reshape(-1)[flat.reshape(-1)].reshape(flat.shape)


def interpolate(scan: Tensor, grid: Floats64, shape: tuple[int, int, int]) -> Tensor:
    """Trilinear; a scan (I, J, K) where a coarse map (3, i, j, k) of its voxels says, on a grid of this shape."""
    unit = grid * (2 / (np.array(scan.shape) - 1))[:, None, None, None] - 1
    where = upsample(unit[::-1], shape, scan.device).permute(1, 2, 3, 0)[None]  # grid_sample wants the last axis first
    volume = scan.float()[None, None]
    return F.grid_sample(volume, where, mode="bilinear", padding_mode="zeros", align_corners=True)[0, 0]
