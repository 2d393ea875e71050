"""FLAIR scans with lesions painted into them, and with what lesions are confused with, on the 1 mm training grid.

Lesions are those of patients, fitted to the brain, and small ones of random place; they have soft edges, and reach from
confluent to 3 mm. Not lesions, but as bright in part: caps and bands around the ventricles, and white matter that is
uneven. All are painted before slices are made thick, so that scan and truth are blurred alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage
from torch import Tensor

from bidsseg.imaging.arrays import along
from bidsseg.labels import TISSUE
from bidsseg.train.chance import Chance, upload
from bidsseg.train.contrast import Mixture, render
from bidsseg.train.data import LESION_KIND
from bidsseg.train.options import SynthesisSettings
from bidsseg.train.sampling_grids import gather, interpolate, sampling_grid, upsample
from bidsseg.train.synthesis import SIDE_BIT, STRIPPED, Material, Slices, Source, lesions_fitted

FLAIR = Mixture(1.0, (("FLAIR", 1.0),), (0.3, 0.7, 0.0))
DIFFICULTY = 0.6
"Of position, shape and contrast, as in the training of the regions."
P_SCAN, P_HEAD, P_PATIENTS, P_CAPS, P_UNEVEN = 0.7, 0.6, 0.85, 0.7, 0.6
"Shares of samples from real scans, with a head around the brain, with lesions, with caps, with uneven white matter."
MOST_SMALL = 12
BRIGHTER = (0.08, 0.45)
"Grey value of lesions above the brighter of cortex and white matter, in units of the scan's range."
THICKNESSES, SHARES = ((5.0, 8.0), (2.5, 5.0), (1.0, 1.0)), (0.45, 0.2, 0.35)
"Of slices, in mm, and how often each occurs."
P_AXIAL = 0.85
CAPS_MM = 6
UNEVEN_GRID, TEXTURE_GRID, FIELD_GRID = (24, 28, 24), (32, 38, 32), (3, 4, 3)
"Of random numbers over the head: unevenness some 7 mm wide, texture of lesions some 5 mm wide, coil shading."
WHITE = ("white-matter", "cerebellum-white-matter", "brainstem")


@dataclass(frozen=True)
class PaintedFlair:
    """One sample; shapes (I, J, K), float32."""

    image: Tensor
    lesion: Tensor
    "Share of the voxel that is lesion, 0-1."


def painted_flair(material: Material, chance: Chance, settings: SynthesisSettings | None = None) -> PaintedFlair:
    """A random FLAIR of a training subject, with lesions."""
    rng, settings = chance.rng, settings or SynthesisSettings()
    source = _source(material, rng)
    grid = sampling_grid(source.box, settings, DIFFICULTY, rng)
    if flip := rng.random() < 0.5:
        grid = grid[:, ::-1]
    packed = gather(source.packed, upsample(grid, settings.shape, material.device))
    if flip:
        packed = torch.where(packed != 0, packed ^ SIDE_BIT, packed)
    own = (packed >> 12) & 15 == LESION_KIND
    packed = torch.where(own, packed & 0x0FFF, packed)
    lesion = own.float()
    if rng.random() < P_PATIENTS:
        count = len(material.lesions)
        for mask in rng.choice(count, min(count, int(rng.integers(1, 4))), replace=False):
            there = lesions_fitted(packed, grid, source.box, material.lesions[mask])
            lesion = torch.maximum(lesion, there.float())
        _add_small(lesion, packed, rng)
    scan = None if source.scan is None else interpolate(source.scan, grid, settings.shape)
    if rng.random() >= P_HEAD:
        packed = torch.where((packed & 31) != 0 if scan is None else scan > STRIPPED, packed, 0)
    image = render(packed, scan, 1.0, DIFFICULTY, chance, FLAIR)
    _brighten_white_matter(image, packed & 31, rng)
    return _scanned(_with_lesions(image, packed & 31, lesion, rng), lesion, chance)


def _source(material: Material, rng: Generator) -> Source:
    real = rng.random() < P_SCAN
    candidates = [source for source in material.sources if (source.scan is not None) == real] or material.sources
    return candidates[rng.integers(len(candidates))]


def _add_small(lesion: Tensor, packed: Tensor, rng: Generator) -> None:
    """Ellipsoids of 3 to 10 mm in white matter, brainstem and cerebellum; in place."""
    white = torch.isin(packed & 31, torch.tensor([TISSUE[name] for name in WHITE], dtype=packed.dtype))
    places = torch.nonzero(white).numpy()
    for _ in range(int(rng.integers(0, MOST_SMALL)) if len(places) else 0):
        middle, radii = places[rng.integers(len(places))], rng.uniform(1.5, 5, 3)
        box = tuple(slice(max(0, int(m) - 5), int(m) + 6) for m in middle)
        offsets = np.ogrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, lesion.shape, strict=True))]
        inside = sum(((o - m) / r) ** 2 for o, m, r in zip(offsets, middle, radii, strict=True)) < 1
        lesion[box] = torch.maximum(lesion[box], (torch.from_numpy(inside) & white[box]).float())


def _brighten_white_matter(image: Tensor, tissue: Tensor, rng: Generator) -> None:
    """Caps and bands around the lateral ventricles, and smooth unevenness; in place."""
    white = tissue == TISSUE["white-matter"]
    if rng.random() < P_CAPS:
        width, strength = rng.uniform(0.8, 2.0), rng.uniform(0, 0.35)
        grown = (tissue == TISSUE["lateral-ventricle"]).numpy()
        for mm in range(1, CAPS_MM + 1):
            before, grown = grown, ndimage.binary_dilation(grown)
            ring = torch.from_numpy(grown & ~before) & white
            image[ring] += strength * float(np.exp(-mm / width))
    if rng.random() < P_UNEVEN:
        smooth = _smooth(UNEVEN_GRID, image, rng)
        image += white * smooth.clamp(min=0) * rng.uniform(0, 0.06)


def _with_lesions(image: Tensor, tissue: Tensor, lesion: Tensor, rng: Generator) -> Tensor:
    brightest = max(
        float(image[tissue == TISSUE[name]].median())
        for name in ("white-matter", "cortex")
        if (tissue == TISSUE[name]).any()
    )
    soft = torch.from_numpy(ndimage.gaussian_filter(lesion.numpy(), rng.uniform(0.3, 1.0)))
    texture = _smooth(TEXTURE_GRID, image, rng)
    grey = brightest + rng.uniform(*BRIGHTER) + 0.1 * texture
    return image * (1 - soft) + grey * soft


def _smooth(grid: tuple[int, int, int], image: Tensor, rng: Generator) -> Tensor:
    """Normally distributed numbers on a coarse grid, interpolated to the image's."""
    i, j, k = image.shape
    return upsample(rng.normal(size=(1, *grid)), (i, j, k), image.device)[0]


def _scanned(image: Tensor, lesion: Tensor, chance: Chance) -> PaintedFlair:
    """Coil shading, slices, in-plane blur and noise."""
    rng = chance.rng
    image = image * (rng.uniform(0, 0.15) * _smooth(FIELD_GRID, image, rng)).exp_()
    least, most = THICKNESSES[rng.choice(len(THICKNESSES), p=SHARES)]
    spacing = rng.uniform(least, most)
    across = 2 if rng.random() < P_AXIAL else int(rng.integers(2))
    for axis in range(3):
        mm = spacing if axis == across else rng.uniform(0.5, 1.3)
        if mm > 1:
            matrix = Slices.of(image.shape[axis], mm, rng.uniform(0.6, 1.0), rng.uniform()).matrix
            image = along(upload(matrix, image.device), image, axis)
            if axis == across:
                lesion = along(upload(matrix, image.device), lesion, axis)
    return PaintedFlair(image.add_(chance.normal(image.shape), alpha=rng.uniform(0, 0.04)), lesion)
