"""Simulated scans of every kind (contrasts, slices, whole heads, lesions) from anatomies with known labels.

None of these is damage. A scan of 7 mm slices may be labelled as well as such a scan can be, and what is expected of
it is measured on its like.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.evaluation.scores import Condition, recolour
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.image import at_1mm
from bidsseg.labels import TISSUE
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.chance import Chance
from bidsseg.train.contrast import render
from bidsseg.train.data import (
    LESION_KIND,
    Subject,
    crop_to_brain,
    head_maps,
    into_head,
    load_brain,
    load_head,
    load_lesions,
    unpack,
)
from bidsseg.train.held_out import Case
from bidsseg.train.synthesis import MNI_BRAIN_BOX

Contrast = Literal["T1w", "recoloured", "flair", "palette"]
Axis = Literal["sagittal", "coronal", "axial"]
BLUR_VOXELS = 0.6
"Standard deviation of what mixes tissues along borders where a head map is rendered."
BRIGHT_LESION = 0.3
"Lesions are painted brighter than white matter by this share of its grey value in FLAIR."


@dataclass(frozen=True)
class View:
    """One kind of scan of one anatomy."""

    anatomy: str
    "A validation brain, for instance sub-1015, or the name of a head map."
    head: str
    "The head map whose surroundings the brain has; empty for a brain alone."
    contrast: Contrast
    "As the brain was scanned, recoloured at random, recoloured like FLAIR, or rendered from labels alone."
    lesion_ml: float
    slice_mm: float
    axis: Axis
    slices: int
    "How many of them are in view; 0 for all."
    seed: int
    "Seed of grey values and lesions."

    @property
    def name(self) -> str:
        """For the terminal."""
        parts = [self.anatomy, self.contrast, "head" if self.head else "brain", f"{self.lesion_ml:g} mL of lesions"]
        slices = f"{self.slices} " if self.slices else ""
        return ", ".join([*parts, f"{slices}{self.axis} slices of {self.slice_mm:g} mm"])

    @property
    def has_lobes(self) -> bool:
        """Whether the anatomy was outlined lobe by lobe; head maps were not."""
        return self.anatomy.startswith("sub-")

    @property
    def condition(self) -> Condition:
        """Its slices."""
        return Condition(self.slice_mm, self.axis, slices=self.slices)


def shown(view: View, data: Path) -> Case:
    """The view's scan and labels at 1 mm, before it is cut into slices; the same view gives the same scan."""
    rng = np.random.default_rng([view.seed, sum(map(ord, view.anatomy))])
    subject = _subject(view, data)
    packed = subject.packed
    if view.lesion_ml:
        packed = with_lesions(subject, lesions(data), 1000 * view.lesion_ml, rng)
    anatomy = unpack(packed)
    grey = _scanned(view, subject, packed, anatomy, rng) if view.has_lobes else _rendered(packed, rng)
    if not view.head:
        brain = _own_brain(subject, anatomy)
        grey = np.where(brain, grey, 0)
    return Case(view.anatomy, at_1mm(np.clip(1000 * grey, 0, None)), anatomy)


def _own_brain(subject: Subject, anatomy: Anatomy) -> NDArray[np.bool_]:
    """What brain extraction leaves."""
    inside: NDArray[np.bool_] = (anatomy.tissue > 0) if subject.image is None else subject.image > 0
    return inside


@cache
def _brain(folder: Path) -> tuple[Anatomy, NDArray[np.float16]]:
    return load_brain(folder)


@cache
def lesions(data: Path) -> tuple[NDArray[np.uint8], ...]:
    """The masks that lesions are painted from, read once."""
    return tuple(load_lesions(data))


def _subject(view: View, data: Path) -> Subject:
    """The anatomy within the head that it is shown in."""
    maps = {path.name.split(".")[0]: path for path in head_maps(data)}
    if not view.has_lobes:
        return load_head(maps[view.anatomy])
    host = load_head(maps[view.head] if view.head else next(iter(maps.values())))
    return crop_to_brain(into_head(*_brain(data / "miccai2012-train" / view.anatomy), host, view.anatomy))


def with_lesions(
    subject: Subject, masks: tuple[NDArray[np.uint8], ...], mm3: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """The packed anatomy with white matter turned to lesion, patient by patient, until there are ``mm3`` or no more."""
    scale = (MNI_BRAIN_BOX[1] - MNI_BRAIN_BOX[0]) / (subject.box[1] - subject.box[0])
    places = [
        np.clip(np.rint(MNI_BRAIN_BOX[0, d] + (np.arange(n) - subject.box[0, d]) * scale[d]).astype(int), 0, size - 1)
        for d, (n, size) in enumerate(zip(subject.packed.shape, masks[0].shape, strict=True))
    ]
    white = ((subject.packed & 31) == TISSUE["white-matter"]) & ((subject.packed >> 12 & 15) == 0)
    lesion = np.zeros(white.shape, bool)
    for patient in rng.permutation(len(masks)):
        if lesion.sum() >= mm3:
            break
        lesion |= white & (masks[patient][np.ix_(*places)] > 0)
    painted = np.where(lesion, subject.packed.view(np.uint16) | (LESION_KIND << 12), subject.packed.view(np.uint16))
    return painted.astype(np.uint16).view(np.int16)


def _chance(rng: np.random.Generator) -> Chance:
    return Chance(rng, torch.Generator().manual_seed(int(rng.integers(2**31))))


def _rendered(packed: NDArray[np.int16], rng: np.random.Generator) -> Floats:
    """A head map in a random palette."""
    image = render(torch.from_numpy(packed), None, 0, 0, _chance(rng)).numpy()
    blurred: Floats = ndimage.gaussian_filter(image, BLUR_VOXELS)
    return blurred


def _scanned(
    view: View, subject: Subject, packed: NDArray[np.int16], anatomy: Anatomy, rng: np.random.Generator
) -> Floats:
    """A real scan of a brain in the view's contrast, in a head of a random palette."""
    scan = np.asarray(subject.image, np.float32)
    lesion = (packed >> 12 & 15) == LESION_KIND
    if view.contrast == "flair":  # its lesions are bright, while ``render`` darkens them as in T1w
        alone = Case(view.anatomy, at_1mm(scan), anatomy)
        scan, packed = recolour(alone, "flair"), subject.packed
    rendered: Floats = render(
        torch.from_numpy(packed), torch.from_numpy(scan), float(view.contrast == "recoloured"), 0, _chance(rng)
    ).numpy()
    if view.contrast == "flair":
        white = float(np.median(scan[anatomy.tissue == TISSUE["white-matter"]]))
        rendered = np.where(lesion, rendered + np.float32(BRIGHT_LESION * white), rendered)
    return rendered
