"""Training images, made on the fly from label maps and real scans.

The idea is SynthSeg's (Billot et al. 2023, doi 10.1016/j.media.2023.102789): a network that saw every contrast,
resolution and field of view in random renderings of label maps is not surprised by a real scanner. Here real scans are
mixed in, with their contrast bent, because they carry the texture that label maps lack.

Everything works on one fixed 1 mm grid of ``Recipe.shape``. Resolution is simulated by one matrix per axis, the same
that resamples scans at inference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.imaging.arrays import along, normalise, resampling_matrix
from bidsseg.labels import TISSUE
from bidsseg.network.unet import padded_length
from bidsseg.train.contrast import render
from bidsseg.train.data import LESION_KIND, Subject

COARSE = (6, 7, 6)
MIDDLE_MM = 35.0
"Width of the part of the head that swells; about the reach of the lateral ventricles."
KNOWN_MM = 4
"Steps in which the brain is known at inference."
SLICE_MM = 8
"A slab no wider than this is one slice."
MNI_BRAIN_BOX = np.array([[28.0, 29.0, 17.0], [154.0, 188.0, 142.0]])
"First and last voxel of the brain in the 182x218x182 MNI152 grid, RAS; places the lesion masks."


@dataclass(frozen=True)
class Recipe:
    """How far samples stray from the real scans; every probability and amplitude is scaled by ``difficulty``."""

    shape: tuple[int, int, int] = (160, 192, 160)
    rotation_deg: float = 16.0
    scaling: float = 0.16
    shift_mm: float = 12.0
    warp_mm: float = 5.0
    p_still: float = 0.15
    "Share of real scans shown on their own voxels, neither turned nor warped: interpolation blurs, and users' do not."
    p_synthetic: float = 0.5
    "Share of samples rendered from labels alone, once training is at full difficulty."
    p_head: float = 0.6
    "Share of samples that show the whole head rather than the extracted brain."
    p_swollen: float = 0.4
    "Share of samples whose middle, and the ventricles with it, is widened or narrowed."
    swelling: float = 0.4
    p_recolour: float = 0.85
    "Share of real scans that get another contrast, by tissue, by grey value or by inversion."
    p_lesions: float = 0.5
    p_moved: float = 0.15
    "Share of samples with the ghosts of a head that moved."
    movement_mm: float = 6.0
    p_slices: float = 0.6
    max_slice_mm: float = 8.0
    p_cropped: float = 0.4
    "Share of samples that show a slab of the head; its width is drawn on a log scale down to one thick slice."
    p_first_look: float = 0.2
    "Share of samples with the grey values of the whole image, as the look that finds the brain sees them."
    multiple: int = 16
    "The network's: slabs are padded to it, as at inference."


@dataclass(frozen=True)
class Sample:
    """One training example; shapes (I, J, K)."""

    image: Tensor
    "float16, normalised as at inference."
    packed: Tensor
    "int16, see ``bidsseg.train.data``."
    weight: Tensor
    "bool: where there is image, so that cut-off anatomy is not asked for."


def draw(
    subjects: list[Subject],
    lesions: list[NDArray[np.uint8]],
    recipe: Recipe,
    difficulty: float,
    rng: Generator,
) -> Sample:
    """One random sample; ``difficulty`` runs from 0 (almost the real scans) to 1 (the full recipe)."""
    real = rng.random() > recipe.p_synthetic * (0.25 + 0.75 * difficulty)
    candidates = [s for s in subjects if s.image is not None or not real]
    subject = candidates[rng.integers(len(candidates))]
    still = real and rng.random() < recipe.p_still
    grid = _own_voxels(subject, recipe) if still else _sampling_grid(subject, recipe, difficulty, rng)
    flip = rng.random() < 0.5
    if flip:
        grid = grid.flip(1)
    coordinates = _upsample(grid, recipe.shape)  # (3, I, J, K)
    packed = _gather(torch.from_numpy(subject.packed), coordinates)
    if flip:
        packed = torch.where(packed != 0, packed ^ 32, packed)
    if lesions and rng.random() < recipe.p_lesions * (0.5 + 0.5 * difficulty):
        for patient in rng.choice(len(lesions), min(len(lesions), int(rng.integers(1, 4))), replace=False):
            packed = _paint_lesions(packed, grid, subject, lesions[patient], recipe.shape)
    del coordinates
    scan = _interpolate(subject.image, grid, recipe.shape) if real and subject.image is not None else None
    head = rng.random() < recipe.p_head
    if not head:
        packed = torch.where((packed & 31) == 0, 0, packed) if scan is None else _strip(packed, scan)
    image = render(packed, scan, recipe.p_recolour * (0.4 + 0.6 * difficulty), difficulty, rng)
    image = _degrade(image, recipe, difficulty, rng)
    return _finish(image, packed, recipe, difficulty, rng)


def _strip(packed: Tensor, scan: Tensor) -> Tensor:
    """Keep what the brain extraction of the real scan kept."""
    return torch.where(scan > 0.02, packed, 0)


def _sampling_grid(subject: Subject, recipe: Recipe, difficulty: float, rng: Generator) -> Tensor:
    """Coarse map (3, *COARSE) from output voxels to source voxels: a random affine and a random smooth warp."""
    amount = 0.3 + 0.7 * difficulty
    points = _from_middle(recipe)
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * recipe.rotation_deg * amount)
    scale = np.exp(
        rng.uniform(-1, 1, 3) * recipe.scaling * 0.5 * amount + rng.uniform(-1, 1) * recipe.scaling * 0.7 * amount
    )
    shear = np.eye(3) + rng.uniform(-0.06, 0.06, (3, 3)) * amount * (1 - np.eye(3))
    matrix = _rotation(angles) @ shear @ np.diag(scale)
    centre = subject.box.mean(0) + rng.uniform(-1, 1, 3) * recipe.shift_mm * amount * np.array([0.6, 1, 1])
    warp = rng.normal(0, 1, (3, *COARSE)) * rng.uniform(0, recipe.warp_mm) * amount
    if rng.random() < recipe.p_swollen:
        near_middle = np.exp(-(points**2).sum(0) / (2 * MIDDLE_MM**2))
        points = points * (1 - rng.uniform(-0.4, 1) * recipe.swelling * amount * near_middle)
    grid = np.einsum("ab,bijk->aijk", matrix, points) + centre[:, None, None, None] + warp
    return torch.from_numpy(grid.astype(np.float32))


def _own_voxels(subject: Subject, recipe: Recipe) -> Tensor:
    """The map that moves the brain's box to the middle of the output by whole voxels; like ``_sampling_grid``."""
    half_voxel = (np.array(recipe.shape) - 1) / 2 % 1
    centre = np.floor(subject.box.mean(0)) + half_voxel
    return torch.from_numpy((_from_middle(recipe) + centre[:, None, None, None]).astype(np.float32))


def _from_middle(recipe: Recipe) -> NDArray[np.float64]:
    """(3, *COARSE): mm from the middle of the output."""
    axes = [np.linspace(-(n - 1) / 2, (n - 1) / 2, c) for n, c in zip(recipe.shape, COARSE, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_i = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_j = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_k = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    rotation: NDArray[np.float64] = about_i @ about_j @ about_k
    return rotation


def _upsample(coarse: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(C, i, j, k) -> (C, I, J, K), trilinear with aligned corners, so that affine maps stay exact.

    One matrix per axis takes a third of the time of ``torch.nn.functional.interpolate``.
    """
    for axis, (n, size) in enumerate(zip(shape, coarse.shape[1:], strict=True)):
        coarse = along(torch.from_numpy(resampling_matrix(np.linspace(0, size - 1, n), size, 1.0)), coarse, axis)
    return coarse


def _gather(volume: Tensor, coordinates: Tensor) -> Tensor:
    """Nearest neighbours; outside the volume the border counts, which is air in training subjects."""
    flat = torch.zeros(coordinates.shape[1:], dtype=torch.int32)
    for axis, size in enumerate(volume.shape):
        index = coordinates[axis].add(0.5).to(torch.int32).clamp_(0, size - 1)
        flat = flat.mul_(size).add_(index)
    return volume.reshape(-1)[flat.reshape(-1)].reshape(flat.shape)


def _interpolate(image: NDArray[np.float16], grid: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Trilinear; (I, J, K) image where a coarse map (3, i, j, k) of its voxels says, on a grid of this shape."""
    size = torch.tensor(image.shape, dtype=torch.float32)
    unit = grid * (2 / (size - 1))[:, None, None, None] - 1
    where = _upsample(unit.flip(0), shape).permute(1, 2, 3, 0)[None]  # grid_sample wants the last axis first
    volume = torch.from_numpy(image).float()[None, None]
    return F.grid_sample(volume, where, mode="bilinear", padding_mode="zeros", align_corners=True)[0, 0]


def _paint_lesions(
    packed: Tensor, grid: Tensor, subject: Subject, mask: NDArray[np.uint8], shape: tuple[int, int, int]
) -> Tensor:
    """Turn white matter into lesion where a patient's mask, fitted to the subject's brain box, says so."""
    scale = (MNI_BRAIN_BOX[1] - MNI_BRAIN_BOX[0]) / (subject.box[1] - subject.box[0])
    offset = MNI_BRAIN_BOX[0] - subject.box[0] * scale
    as_column = [torch.from_numpy(v.astype(np.float32))[:, None, None, None] for v in (scale, offset)]
    there = _gather(torch.from_numpy(mask), _upsample(grid * as_column[0] + as_column[1], shape)) > 0
    lesion = there & ((packed & 31) == TISSUE["white-matter"]) & ((packed >> 12) & 15 == 0)
    return torch.where(lesion, packed | torch.tensor(LESION_KIND << 12, dtype=torch.int32).to(torch.int16), packed)


def _degrade(image: Tensor, recipe: Recipe, difficulty: float, rng: Generator) -> Tensor:
    """Bias field, in-plane blur, thick slices, ghosts, noise."""
    strength = rng.uniform(0, 0.5) * (0.3 + 0.7 * difficulty)
    field = torch.from_numpy(rng.normal(0, strength, (1, 3, 4, 3)).astype(np.float32))
    image = image * _upsample(field, recipe.shape)[0].exp_()
    thick = int(rng.integers(3)) if rng.random() < recipe.p_slices * (0.2 + 0.8 * difficulty) else -1
    for axis in range(3):
        spacing = rng.uniform(2, recipe.max_slice_mm) if axis == thick else rng.uniform(0.5, 1.0 + 0.6 * difficulty)
        if spacing > 1:
            image = along(slice_matrix(recipe.shape[axis], spacing, rng.uniform(0.6, 1.0), rng.uniform()), image, axis)
    if rng.random() < recipe.p_moved * (0.4 + 0.6 * difficulty):
        image = _move(image, rng.uniform(0, recipe.movement_mm), rng)
    return image.add_(torch.randn(image.shape), alpha=rng.uniform(0, 0.05) * (0.3 + 0.7 * difficulty))


def _move(image: Tensor, movement_mm: float, rng: Generator) -> Tensor:
    """Ghosts of a head that changes its place some times between the lines of k-space, but not around the middle."""
    axis = int(rng.integers(3))
    n = image.shape[axis]
    lines = torch.fft.rfft(image, dim=axis)
    line = np.arange(lines.shape[axis])
    moments = np.sort(rng.integers(n // 24, n // 2, 4))
    places = np.concatenate(([0.0], rng.normal(0, movement_mm, len(moments))))[np.searchsorted(moments, line, "right")]
    turn = torch.from_numpy(np.exp(-2j * np.pi * line / n * places).astype(np.complex64))
    lines = lines * turn.reshape([-1 if a == axis else 1 for a in range(3)])
    moved: Tensor = torch.fft.irfft(lines, n=n, dim=axis)
    return moved.abs()


def slice_matrix(n: int, spacing_mm: float, fill: float, offset: float) -> Tensor:
    """(n, n): 1 mm samples -> slices ``spacing_mm`` apart that cover ``fill`` of it -> 1 mm again, as at inference."""
    count = max(1, int((n - 1 - offset * spacing_mm) // spacing_mm) + 1)
    centres = (offset + np.arange(count, dtype=np.float64)) * spacing_mm
    down = resampling_matrix(centres, n, max(1.0, spacing_mm * fill))
    up = resampling_matrix((np.arange(n) - centres[0]) / spacing_mm, count, 1 / spacing_mm)
    return torch.from_numpy(up @ down)


def _finish(image: Tensor, packed: Tensor, recipe: Recipe, difficulty: float, rng: Generator) -> Sample:
    """Cut the field of view, normalise as at inference."""
    if rng.random() < recipe.p_cropped * (0.4 + 0.6 * difficulty):
        return _slab(image, packed, recipe, rng)
    weight = torch.ones(image.shape, dtype=torch.bool)
    return Sample(_normalised(image, packed, recipe, rng), packed, weight)


def _normalised(image: Tensor, packed: Tensor, recipe: Recipe, rng: Generator) -> Tensor:
    """Grey values as one of the looks at inference sees them: float16, normalised on the image or on the brain.

    At inference the brain is known in steps of 4 mm, from one block in each; so it is here.
    """
    if rng.random() < recipe.p_first_look:
        return torch.from_numpy(normalise(image.numpy())).half()
    brain = ((packed & 31) != 0) & ((packed & 31) != TISSUE["csf"])
    starts = [int(start) for start in rng.integers(0, KNOWN_MM, 3)]
    for axis, start in enumerate(starts):
        n = brain.shape[axis]
        asked = (torch.arange(n) // KNOWN_MM * KNOWN_MM + start).clamp(max=n - 1)
        brain = brain.index_select(axis, asked)
    return torch.from_numpy(normalise(image.numpy(), brain.numpy())).half()


def _slab(image: Tensor, packed: Tensor, recipe: Recipe, rng: Generator) -> Sample:
    """What a few slices show, padded as at inference."""
    axis = int(rng.choice(3, p=(0.15, 0.2, 0.65)))
    length = recipe.shape[axis]
    keep = int(np.exp(rng.uniform(np.log(4), np.log(0.9 * length))))
    start = int(rng.integers(0, length - keep) if keep > length // 3 else rng.normal(0.5, 0.15) * length)
    start = min(max(start, 0), length - keep)
    seen = image.narrow(axis, start, keep)
    if keep <= SLICE_MM:
        seen = seen.mean(axis, keepdim=True).expand_as(seen)
    total = padded_length(keep, recipe.multiple)
    before = (total - keep) // 2
    shape = [total if a == axis else n for a, n in enumerate(image.shape)]
    result = Sample(
        torch.zeros(shape, dtype=torch.float16),
        torch.zeros(shape, dtype=packed.dtype),
        torch.zeros(shape, dtype=torch.bool),
    )
    result.image.narrow(axis, before, keep)[:] = _normalised(seen, packed.narrow(axis, start, keep), recipe, rng)
    result.packed.narrow(axis, before, keep)[:] = packed.narrow(axis, start, keep)
    result.weight.narrow(axis, before, keep)[:] = True
    return result
