"""Lesion filling: lesion voxels redrawn as the normal-appearing white matter around them.

Programs that measure a brain take lesions for grey matter or fluid. With the lesions filled they see white matter: the
idea of Battaglini et al. 2012 (doi 10.1002/hbm.21344) and Chard et al. 2010 (doi 10.1002/jmri.22214). Each voxel gets
the mean of the white matter near it, which follows the bias field, and noise of the same strength and correlation.
Everything happens on the scan's own grid. Where slices are thick, a voxel's neighbours are those of its own slice:
slices differ in brightness. Others count only where its slice shows too little white matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from bidsseg.errors import UserError
from bidsseg.imaging.arrays import Floats, along, box_around
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUE
from bidsseg.lesions.components import is_thick
from bidsseg.lesions.describe import on_segmentation
from bidsseg.lesions.masks import mismatches
from bidsseg.lesions.options import LesionOptions
from bidsseg.segmentation.anatomy import Anatomy

Mask = NDArray[np.bool_]

FILLED = ("white-matter", "cerebellum-white-matter")
"Tissues in which lesions are filled, each from itself."
SCALES_MM = (24.0, 12.0, 6.0, 3.0)
"Widths of the neighbourhoods that the mean is taken from, coarse to fine: what a fine one lacks, a coarse one gives."
NOISE_MM = 1.5
"Width of a neighbourhood so small that what differs from its mean is noise, not anatomy."
IN_PLANE_MM = 6.0
"Neighbourhoods up to this width stay within a thick slice."
FEW_VOXELS = 5.0
"A neighbourhood with as much white matter counts as much as the next coarser one."
LEAST_VOXELS = 100
"Of normal-appearing white matter; from fewer, nothing can be drawn."
OUTLIER = 2.5
"Standard deviations from the local mean beyond which white matter does not look normal."
RIM, OUTLIER_IN_RIM = 2, 2.0
"Voxels of a slice around a lesion, and standard deviations, up to which unusual white matter belongs to it."
EDGE_MM = 0.8
"Standard deviation of the soft edge around a lesion."
REACH = 8
"Voxels over which noise is correlated at most."
SEED = 21


@dataclass(frozen=True, eq=False)
class Filled:
    """A scan with its lesions filled."""

    image: Image
    voxels: int
    "Lesion voxels of the scan's grid that were filled."
    left: int
    "Lesion voxels outside of white matter, which stay as they are."
    warnings: tuple[str, ...]
    "About the mask, and whether it fits the scan."

    @property
    def not_filled(self) -> tuple[str, ...]:
        """A warning that says how much of the mask was left, if any was."""
        if self.left == 0:
            return ()
        share = self.left / (self.voxels + self.left)
        told = f"{share:.0%}" if share >= 0.005 else "less than 1%"
        count = "1 voxel" if self.left == 1 else f"{self.left} voxels"
        return (f"{told} of the lesion mask ({count}) lies outside of white matter and was not filled",)


def fill_lesions(
    image: Image,
    mask: Image,
    anatomy: Anatomy,
    threshold: float = LesionOptions.threshold,
    named_probability: bool = False,
) -> Filled:
    """Redraw the lesions of ``mask`` in a scan (I, J, K) as normal-appearing white matter; the same input, same output.

    The mask may have another grid; ``anatomy`` is that of the scan. Voxels farther than the soft edge from
    a lesion keep their values to the last bit, as do lesions outside of white matter. Raises ``ValueError`` if
    segmentation and scan differ in shape, ``UserError`` for mask values that mean nothing and where no normal white
    matter is left.
    """
    found = on_segmentation(image, mask, anatomy, threshold, named_probability)
    lesion, tissue = found.on_scan > 0, found.anatomy.tissue
    data = image.data.copy()
    filled = np.zeros_like(lesion)
    for name in FILLED:
        white = tissue == TISSUE[name]
        if (lesion & white).any():
            filled |= lesion & white
            _fill(data, lesion, white, image)
    voxels, left = int(filled.sum()), int((lesion & ~filled).sum())
    return Filled(replace(image, data=data), voxels, left, (*found.read.warnings, *mismatches(image, mask)))


def _fill(data: Floats, lesion: Mask, white: Mask, image: Image) -> None:
    """Redraw lesions in one tissue, in place; all (I, J, K)."""
    box = box_around(white)
    lesion, white, values = lesion[box] & white[box], white[box], data[box]
    thick = is_thick(image.affine)
    normal = _normal(lesion, white, thick)
    if normal.sum() < LEAST_VOXELS:
        raise UserError("hardly any white matter without lesions is in view; there is nothing to fill them from")
    *scales, finest = (_kernels(mm, image, values.shape, thick & (mm <= IN_PLANE_MM)) for mm in (*SCALES_MM, NOISE_MM))
    normal &= np.abs(_z_scores(values - _local_mean(values, normal, scales), normal)) <= OUTLIER
    mean = _local_mean(values, normal, scales)
    rest = values - _local_mean(values, normal, [*scales, finest])
    quiet = normal & (np.abs(_z_scores(rest, normal)) <= OUTLIER)
    noise = _noise_like(np.where(quiet, rest, 0), quiet) * np.sqrt(_local_mean(rest**2, quiet, scales[:-1]))
    whole = _with_rim(lesion, _z_scores(values - mean, normal), thick) & white
    kept = 1 - _amount(whole, image) * white
    drawn = mean + kept * (values - mean) + np.sqrt(1 - kept**2) * noise
    data[box] = np.where(kept < 1, drawn, values)


def _normal(lesion: Mask, white: Mask, thick: NDArray[np.bool_]) -> Mask:
    """White matter that neither lesions nor other tissue reach into."""
    plane = _neighbours(thick)
    inner: Mask = ndimage.binary_erosion(white, plane) & ~_around(lesion, thick)
    return inner if inner.sum() >= LEAST_VOXELS else white & ~lesion


def _z_scores(off: Floats, where: Mask) -> Floats:
    """What is off, over its standard deviation in most of these voxels."""
    deviation = 1.4826 * float(np.median(np.abs(off[where])))
    scores: Floats = off / np.float32(max(deviation, 1e-12))
    return scores


def _with_rim(lesion: Mask, off: Floats, thick: NDArray[np.bool_]) -> Mask:
    """Lesions with what lies beside them and is off to the same side, in standard deviations, clearly more than usual.

    Masks seldom hold all that a lesion brightens or darkens, least of all in the slices above and below.
    """
    rim: Mask = _around(lesion, thick) & (off * np.sign(np.median(off[lesion])) > OUTLIER_IN_RIM)
    return lesion | rim


def _around(lesion: Mask, thick: NDArray[np.bool_]) -> Mask:
    """Lesions and what may belong to them: some voxels around, and the slices above and below."""
    around: Mask = ndimage.binary_dilation(lesion, _neighbours(thick), iterations=RIM)
    return ndimage.binary_dilation(around, _neighbours(~thick)) if thick.any() else around


def _neighbours(thick: NDArray[np.bool_]) -> Mask:
    """A voxel and its neighbours through faces, but not across thick slices."""
    steps = np.indices((3, 3, 3)) - 1
    return np.asarray((np.abs(steps).sum(0) <= 1) & ~(steps[thick] != 0).any(0))


def _kernels(mm: float, image: Image, shape: tuple[int, ...], within: NDArray[np.bool_]) -> list[Floats | None]:
    """For each axis, the weight that each voxel has for each other; None along axes that are not to be crossed."""
    kernels: list[Floats | None] = []
    for n, spacing, alone in zip(shape, image.spacing_mm, within, strict=True):
        apart = (np.arange(n)[:, None] - np.arange(n)) * spacing / mm
        kernels.append(None if alone else np.exp(-(apart**2) / 2).astype(np.float32))
    return kernels


def _local_mean(values: Floats, normal: Mask, scales: Sequence[Sequence[Floats | None]]) -> Floats:
    """The mean of normal voxels around each voxel (I, J, K); coarse neighbourhoods stand in for empty finer ones."""
    estimate = np.full_like(values, values[normal].mean())
    weight = normal.astype(np.float32)
    for kernels in scales:
        total, count = weight * values, weight
        for axis, kernel in enumerate(kernels):
            total, count = along(kernel, total, axis), along(kernel, count, axis)
        estimate = (total + FEW_VOXELS * estimate) / (count + FEW_VOXELS)
    return estimate


def _noise_like(rest: Floats, normal: Mask) -> Floats:
    """Noise (I, J, K) of variance 1 with the spatial correlation that ``rest`` has where voxels are normal.

    The correlation at small distances is that of all pairs of normal voxels; its Fourier transform is the power of the
    noise at each frequency (Wiener and Khinchin).
    """
    shape = [n + REACH for n in rest.shape]
    products, pairs = (
        fft.irfftn(np.abs(fft.rfftn(part, shape)) ** 2, shape) for part in (rest, normal.astype(np.float32))
    )
    correlation = products / np.maximum(pairs, 0.5)
    for axis, n in enumerate(shape):
        lag = np.minimum(np.arange(n), n - np.arange(n))
        taper = np.where(lag <= REACH, np.cos(np.pi / 2 * lag / (REACH + 1)) ** 2, 0)
        correlation *= taper.reshape([-1 if a == axis else 1 for a in range(3)])
    power = np.clip(fft.rfftn(correlation).real, 0, None)
    white = np.random.default_rng(SEED).standard_normal(shape, np.float32)
    noise = fft.irfftn(fft.rfftn(white) * np.sqrt(power), shape)[tuple(slice(n) for n in rest.shape)]
    return np.asarray(noise / max(float(noise.std()), 1e-12), np.float32)


def _amount(lesion: Mask, image: Image) -> Floats:
    """How much of each voxel is redrawn, 0-1: all in lesions, ever less over the soft edge around them."""
    sigma = np.where(is_thick(image.affine), 0, EDGE_MM / image.spacing_mm)
    soft = 2 * ndimage.gaussian_filter(lesion.astype(np.float32), sigma, truncate=2)
    amount: Floats = np.where(lesion, 1, np.clip(soft, 0, 1))
    return amount
