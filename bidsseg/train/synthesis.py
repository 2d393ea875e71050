"""Training images, made on the fly from label maps and real scans.

The idea is SynthSeg's (Billot et al. 2023, doi 10.1016/j.media.2023.102789): a network that saw every contrast,
resolution and field of view in random renderings of label maps is not surprised by a real scanner. Here real scans are
mixed in, with their contrast bent, because they carry the texture that label maps lack.

Everything works on one fixed 1 mm grid of ``SynthesisSettings.shape``. Resolution is simulated by one matrix per axis,
the same that resamples scans at inference. All volumes stay on the device of the material they are made from: on a GPU
nothing waits for the host, nor the host for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.imaging.arrays import Floats, along, resampling_matrix
from bidsseg.imaging.grey import brightest, normalised
from bidsseg.labels import TISSUE
from bidsseg.network.unet import padded_length
from bidsseg.train.chance import Chance, upload
from bidsseg.train.contrast import bent, render
from bidsseg.train.data import LESION_KIND, Subject, without_fluid
from bidsseg.train.options import SynthesisSettings
from bidsseg.train.sampling_grids import (
    Floats64,
    gather,
    grid_of_slices,
    interpolate,
    own_voxels,
    sampling_grid,
    upsample,
)

SIDE_BIT = 1 << 5
LESION_BITS = (LESION_KIND << 12) - (1 << 16)
"The bits of a lesion in a packed voxel, as a signed 16-bit number."
STRIPPED = 0.02
"Grey value up to which a brain-extracted scan shows no brain."
KNOWN_MM = 4
"Steps in which the brain is known at inference."
SLICE_MM = 8
"A slab no wider than this is one slice."
MNI_BRAIN_BOX = np.array([[28.0, 29.0, 17.0], [154.0, 188.0, 142.0]])
"First and last voxel of the brain in the 182x218x182 MNI152 grid, RAS; places the lesion masks."


@dataclass(frozen=True)
class Source:
    """A subject on the device where samples are made; see ``bidsseg.train.data.Subject``."""

    packed: Tensor
    "(I, J, K) int16"
    scan: Tensor | None
    "(I, J, K) float16"
    clipped: Tensor | None
    "(I, J, K) float16; None where it is the scan."
    box: NDArray[np.float64]
    "(2, 3), on the host."
    slice_axis: int | None = None
    whole_head: bool = False


@dataclass(frozen=True)
class Material:
    """What samples are made from, all on one device."""

    sources: list[Source]
    lesions: list[Tensor]
    "(I, J, K) uint8 each, masks in MNI space."
    device: torch.device

    @classmethod
    def on(cls, device: torch.device, subjects: Sequence[Subject], lesions: Sequence[NDArray[np.uint8]]) -> Material:
        """Subjects and lesion masks carried to a device; on the CPU they share the memory of those given."""
        sources = [
            Source(
                upload(s.packed, device),
                None if s.image is None else upload(s.image, device),
                None if s.clipped is None else upload(s.clipped, device),
                s.box,
                s.slice_axis,
                s.whole_head,
            )
            for s in subjects
        ]
        return cls(sources, [upload(mask, device) for mask in lesions], device)


@dataclass(frozen=True)
class Sample:
    """One training example; shapes (I, J, K)."""

    image: Tensor
    "float16, normalised as at inference."
    packed: Tensor
    "int16, see ``bidsseg.train.data``."
    weight: Tensor
    "bool: where there is image, so that cut-off anatomy is not asked for."


def draw(material: Material, recipe: SynthesisSettings, difficulty: float, chance: Chance) -> Sample:
    """One random sample; ``difficulty`` runs from 0 (almost the real scans) to 1 (the full recipe)."""
    rng = chance.rng
    source, real = _chosen(material, recipe, difficulty, rng)
    still = real and rng.random() < recipe.p_still
    grid = own_voxels(source.box, recipe) if still else _moved_grid(source, recipe, difficulty, rng)
    if flip := rng.random() < 0.5:
        grid = grid[:, ::-1]
    packed = gather(source.packed, upsample(grid, recipe.shape, material.device))  # (I, J, K) int16
    if flip:
        packed = torch.where(packed != 0, packed ^ SIDE_BIT, packed)
    paintable = len(material.lesions) > 0 and not source.whole_head
    if paintable and rng.random() < recipe.p_lesions * (0.5 + 0.5 * difficulty):
        count = len(material.lesions)
        for patient in rng.choice(count, min(count, int(rng.integers(1, 4))), replace=False):
            lesion = lesions_fitted(packed, grid, source.box, material.lesions[patient])
            packed = torch.where(lesion, packed | LESION_BITS, packed)
    first_look = bool(rng.random() < recipe.p_first_look)
    shown = source.scan if first_look or source.clipped is None else source.clipped
    scan = interpolate(shown, grid, recipe.shape) if real and shown is not None else None
    if rng.random() >= recipe.p_head:  # the extracted brain
        inside = scan > STRIPPED if scan is not None and not source.whole_head else (packed & 31) != 0
        packed = torch.where(inside, packed, 0)
        scan = scan if scan is None else torch.where(inside, scan, 0)
    if scan is not None and source.whole_head:
        image = bent(scan, difficulty, rng)
    else:
        image = render(packed, scan, recipe.p_recolour * (0.4 + 0.6 * difficulty), difficulty, chance)
    brain = None if first_look else without_fluid(packed & 31)
    image = _degrade(image, recipe, difficulty, chance, brain, source.slice_axis)
    return _finish(image, packed, brain, recipe, difficulty, rng)


def _chosen(material: Material, recipe: SynthesisSettings, difficulty: float, rng: Generator) -> tuple[Source, bool]:
    """What a sample shows, and whether with the grey values of its scan; clinical scans never without."""
    clinical = [source for source in material.sources if source.whole_head]
    if clinical and rng.random() < recipe.p_clinical:
        return clinical[rng.integers(len(clinical))], True
    real = rng.random() > recipe.p_synthetic * (0.25 + 0.75 * difficulty)
    others = [s for s in material.sources if not s.whole_head and (s.scan is not None or not real)]
    return others[rng.integers(len(others))], real


def _moved_grid(source: Source, recipe: SynthesisSettings, difficulty: float, rng: Generator) -> Floats64:
    if source.slice_axis is None:
        return sampling_grid(source.box, recipe, difficulty, rng)
    return grid_of_slices(source.box, source.slice_axis, recipe, difficulty, rng)


def lesions_fitted(packed: Tensor, grid: Floats64, box: Floats64, mask: Tensor) -> Tensor:
    """Where a patient's mask in MNI space, fitted to the subject's brain box, has lesions in white matter, (I, J, K).

    White matter that bears another kind already is left out.
    """
    scale = (MNI_BRAIN_BOX[1] - MNI_BRAIN_BOX[0]) / (box[1] - box[0])
    offset = MNI_BRAIN_BOX[0] - box[0] * scale
    i, j, k = packed.shape
    in_mask = grid * scale[:, None, None, None] + offset[:, None, None, None]
    there = gather(mask, upsample(in_mask, (i, j, k), packed.device)) > 0
    return there & ((packed & 31) == TISSUE["white-matter"]) & ((packed >> 12) & 15 == 0)


def _degrade(
    image: Tensor,
    recipe: SynthesisSettings,
    difficulty: float,
    chance: Chance,
    brain: Tensor | None = None,
    slice_axis: int | None = None,
) -> Tensor:
    """Bias field, in-plane blur, thick slices, ghosts, noise; what has thick slices is changed within these alone.

    Where the brain (I, J, K) is known, nothing in a thick slice is brighter than the brain is, as at inference.
    """
    rng = chance.rng
    strength = rng.uniform(0, 0.5) * (0.3 + 0.7 * difficulty)
    field = upsample(rng.normal(0, strength, (1, 3, 4, 3)), recipe.shape, image.device)  # (1, I, J, K)
    image = image * field[0].exp_()
    thick = int(rng.integers(3)) if rng.random() < recipe.p_slices * (0.2 + 0.8 * difficulty) else -1
    axes = [axis for axis in range(3) if axis != slice_axis]
    thick = thick if slice_axis is None else -1
    for axis in axes:
        spacing = rng.uniform(2, recipe.max_slice_mm) if axis == thick else rng.uniform(0.5, 1.0 + 0.6 * difficulty)
        if spacing > 1:
            slices = Slices.of(recipe.shape[axis], spacing, rng.uniform(0.6, 1.0), rng.uniform())
            image = _in_slices(image, slices, axis, brain if axis == thick else None)
    if rng.random() < recipe.p_moved * (0.4 + 0.6 * difficulty):
        image = _move(image, rng.uniform(0, recipe.movement_mm), rng, axes)
    return image.add_(chance.normal(image.shape), alpha=rng.uniform(0, 0.05) * (0.3 + 0.7 * difficulty))


def _move(image: Tensor, movement_mm: float, rng: Generator, axes: Sequence[int] = (0, 1, 2)) -> Tensor:
    """Ghosts of a head that changes its place some times between the lines of k-space, but not around the middle."""
    axis = int(rng.choice(axes))
    n = image.shape[axis]
    lines = torch.fft.rfft(image, dim=axis)
    line = np.arange(lines.shape[axis])
    moments = np.sort(rng.integers(n // 24, n // 2, 4))
    places = np.concatenate(([0.0], rng.normal(0, movement_mm, len(moments))))[np.searchsorted(moments, line, "right")]
    turn = upload(np.exp(-2j * np.pi * line / n * places).astype(np.complex64), image.device)
    lines = lines * turn.reshape([-1 if a == axis else 1 for a in range(3)])
    moved: Tensor = torch.fft.irfft(lines, n=n, dim=axis)
    return moved.abs()


@dataclass(frozen=True)
class Slices:
    """A row of n samples of 1 mm seen in fewer slices."""

    down: Floats
    "(slices, n)"
    up: Floats
    "(n, slices), as at inference."
    nearest: NDArray[np.int64]
    "Samples at the slices' centres, (slices,)."

    @classmethod
    def of(cls, n: int, spacing_mm: float, fill: float, offset: float) -> Slices:
        """Slices ``spacing_mm`` apart that cover ``fill`` of it, the first ``offset`` of it from the first sample."""
        count = max(1, int((n - 1 - offset * spacing_mm) // spacing_mm) + 1)
        centres = (offset + np.arange(count, dtype=np.float64)) * spacing_mm
        down = resampling_matrix(centres, n, max(1.0, spacing_mm * fill))
        up = resampling_matrix((np.arange(n) - centres[0]) / spacing_mm, count, 1 / spacing_mm)
        return cls(down, up, np.rint(centres).astype(np.int64).clip(0, n - 1))

    @property
    def matrix(self) -> Floats:
        """(n, n): 1 mm samples -> slices -> 1 mm again."""
        both: Floats = self.up @ self.down
        return both


def _in_slices(image: Tensor, slices: Slices, axis: int, brain: Tensor | None) -> Tensor:
    """A volume as slices across an axis show it; where the brain is known, clipped at its brightest in the slices."""
    if brain is None:
        return along(upload(slices.matrix, image.device), image, axis)
    seen = along(upload(slices.down, image.device), image, axis)
    brain = brain.index_select(axis, upload(slices.nearest, image.device))
    top = brightest(seen.reshape(-1), brain.reshape(-1))
    seen = torch.where(brain.any(), seen.minimum(top), seen)
    return along(upload(slices.up, image.device), seen, axis)


def _finish(
    image: Tensor,
    packed: Tensor,
    brain: Tensor | None,
    recipe: SynthesisSettings,
    difficulty: float,
    rng: Generator,
) -> Sample:
    """Cut the field of view, normalise, on the brain where it is known, and pad as at inference."""
    axis, start, keep = 0, 0, recipe.shape[0]
    if rng.random() < recipe.p_cropped * (0.4 + 0.6 * difficulty):
        axis, start, keep = _slab(recipe, rng)
    seen = image.narrow(axis, start, keep)
    if keep <= SLICE_MM:
        seen = seen.mean(axis, keepdim=True).expand_as(seen)
    total = padded_length(keep, recipe.multiple)
    before = (total - keep) // 2
    pads = [0, 0] * (2 - axis) + [before, total - keep - before]  # of the last axis first
    labels = packed.narrow(axis, start, keep)
    known = None if brain is None else _in_steps(brain.narrow(axis, start, keep), rng)
    parts = (normalised(seen, known).half(), labels, torch.ones_like(seen, dtype=torch.bool))
    grey, labels, weight = (F.pad(part, pads) if total > keep else part for part in parts)
    return Sample(grey, labels, weight)


def _slab(recipe: SynthesisSettings, rng: Generator) -> tuple[int, int, int]:
    """The axis across a few slices, the first voxel along it that they show, and how many they show."""
    axis = int(rng.choice(3, p=(0.15, 0.2, 0.65)))
    length = recipe.shape[axis]
    keep = int(np.exp(rng.uniform(np.log(4), np.log(0.9 * length))))
    start = int(rng.integers(0, length - keep) if keep > length // 3 else rng.normal(0.5, 0.15) * length)
    return axis, min(max(start, 0), length - keep), keep


def _in_steps(brain: Tensor, rng: Generator) -> Tensor:
    """A mask (I, J, K) in steps of ``KNOWN_MM``, from one block in each, as the brain is known at inference."""
    for axis, start in enumerate(rng.integers(0, KNOWN_MM, 3)):
        n = brain.shape[axis]
        asked = np.minimum(np.arange(n) // KNOWN_MM * KNOWN_MM + start, n - 1)
        brain = brain.index_select(axis, upload(asked, brain.device))
    return brain
