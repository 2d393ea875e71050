"""Lesion masks: what their values mean, and whether they belong to a scan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.errors import UserError
from bidsseg.imaging.image import Image, is_same_grid
from bidsseg.lesions.components import Ints, apply

MaskKind = Literal["binary", "probability", "labels"]

ROUNDED_UP = 1.001
"The highest probability, with rounding."
SCALES = ((50, 100), (101, 255), (500, 1000))
"Highest values of probabilities in whole numbers, and the number that stands for 1."
FEW_LEVELS = 8
LEVELS_DIFFER, EDGES_DIFFER = 0.3, 0.02
"Share of neighbouring lesion voxels with different values, above which they are no labels; with few values."
MOSTLY, LEAST_HIGHEST = 0.95, 0.1
"Of a mask of one value that was resampled: shares of insides and of lesions with this value, and of all voxels."
ROUNDING = 1e-3


@dataclass(frozen=True, eq=False)
class MaskLabels:
    """A lesion mask as it was understood."""

    labels: Ints
    "(I, J, K), 0 outside lesions."
    kind: MaskKind
    warnings: tuple[str, ...] = ()


def is_probability(name: str) -> bool:
    """Whether a file of this name holds probabilities, by BIDS: its suffix is ``probseg``."""
    return "_probseg." in name.lower()


def read_labels(data: NDArray[Any], threshold: float, named_probability: bool = False) -> MaskLabels:
    """Lesion labels of a binary, probabilistic or labelled mask (I, J, K).

    At most one value above 0 is binary; fractions up to 1, or up to the whole number that is inside all lesions, are
    probabilities, of which those at or above ``threshold`` are lesion; whole numbers are labels, unless most of them
    lie beside others, as the levels of a probability in per cent (or of 255, or of 1000) do, or the file's name says
    that it holds probabilities. Raises ``UserError`` for anything else.
    """
    values = np.unique(data[data > 0])
    whole = bool((values == np.rint(values)).all())
    warnings: tuple[str, ...] = ()
    if len(values) == 0 and (data < 0).any():
        raise UserError(f"lesion mask: values from {data.min():g} to {data.max():g}; lesions need values above 0")
    if len(values) == 0 or (values[0] == values[-1] and (whole or values[0] >= 0.5)):
        return MaskLabels((data > 0).astype(np.int32), "binary")
    if whole and not named_probability and not _are_levels(data, values):
        if _are_shares_of_highest(data, values[-1], thin_too=False):
            warnings = (f"lesion mask: labels up to {values[-1]:g}, of which {values[-1]:g} alone is inside lesions "
                        "and others are at their edges; if the mask was resampled, give 0/1",)  # fmt: skip
        return MaskLabels(np.rint(np.maximum(data, 0)).astype(np.int32), "labels", warnings)
    certain = _certain(values) if whole else _certain_of_fractions(data, values[-1])
    if certain is None:
        raise UserError(_unclear(values, whole))
    if certain > 1:
        kind = "whole numbers" if whole else "fractions"
        warnings = (f"lesion mask: {kind} up to {values[-1]:g}, taken for probabilities of which {certain:g} is 1",)
    lesion = (data > 0) & (data >= threshold * certain)
    if not lesion.any():
        warnings += (f"no voxel of the lesion mask reaches the threshold {threshold:g}; its highest probability is "
                     f"{values[-1] / certain:.2g}",)  # fmt: skip
    return MaskLabels(lesion.astype(np.int32), "probability", warnings)


def _certain(values: NDArray[Any]) -> float | None:
    """The whole number that stands for probability 1, by the highest there is; None where that is not clear."""
    return next((float(end) for begin, end in SCALES if begin <= values[-1] <= end), None)


def _certain_of_fractions(data: NDArray[Any], highest: float) -> float | None:
    """The same for fractions: 1, or the whole number that a mask had in its lesions before it was resampled."""
    if highest <= ROUNDED_UP:
        return 1.0
    is_whole = abs(highest - np.rint(highest)) <= ROUNDING
    return float(np.rint(highest)) if is_whole and _are_shares_of_highest(data, highest, thin_too=True) else None


def _are_shares_of_highest(data: NDArray[Any], highest: float, thin_too: bool) -> bool:
    """Whether lower values only line the highest, as in a mask that was resampled linearly.

    Labels have insides of their own, and lesions of a lower label do not reach the highest: of the volume of labelled
    masks of six lesions, 0.05 to 0.87 lies in lesions that do, and of masks of one value all. Of the voxels of these
    0.2 to 0.8 have the highest value; of probabilities up to 0.05, and of scans hardly any. Lesions of one or two
    slices have no insides; ``thin_too`` is the answer for a mask of such lesions alone, if they reach the highest.
    """
    box = data[ndimage.find_objects(np.asarray(data > 0, np.int8))[0]]
    cross = ndimage.generate_binary_structure(3, 1)
    lowest = ndimage.minimum_filter(box, footprint=cross, mode="constant")
    inside = (lowest > 0) & (ndimage.maximum_filter(box, footprint=cross) - lowest <= ROUNDING * highest)
    at_highest = box >= (1 - ROUNDING) * highest
    if at_highest.sum() < LEAST_HIGHEST * (box > 0).sum() or not (thin_too or inside.any()):
        return False
    if (inside & at_highest).sum() < MOSTLY * inside.sum():
        return False
    lesion, _ = ndimage.label(box > 0, np.ones((3, 3, 3)))
    reaching = np.isin(lesion, np.unique(lesion[at_highest]))
    return bool(reaching.sum() >= MOSTLY * (box > 0).sum())


def _are_levels(data: NDArray[Any], values: NDArray[Any]) -> bool:
    """Whether whole numbers are levels of one quantity: levels lie inside each other, while labels seldom touch.

    Of pairs of neighbouring lesion voxels, a share of 0.70 to 0.95 differs in probabilities and 0.38 to 0.94 in masks
    that were resampled; in labelled masks none, and up to 0.21 where confluent lesions were cut into pieces. A mask
    moved by half a voxel has few values, which differ at edges alone.
    """
    pairs = differ = 0
    for axis in range(3):
        lower, upper = (np.moveaxis(data, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        both = (lower > 0) & (upper > 0)
        pairs += int(both.sum())
        differ += int((both & (lower != upper)).sum())
    few = len(values) <= FEW_LEVELS and values[-1] in {end for _, end in SCALES}
    many_small = len(values) > FEW_LEVELS or values[-1] >= SCALES[0][0]
    return many_small and differ > pairs * (EDGES_DIFFER if few else LEVELS_DIFFER)


def _unclear(values: NDArray[Any], whole: bool) -> str:
    if whole:
        found = f"whole numbers from {values[0]:g} to {values[-1]:g}: probabilities, or labels?"
        return f"lesion mask: {found} give probabilities 0-1, or labels that do not touch"
    return f"lesion mask: values from {values[0]:g} to {values[-1]:g}; give 0/1, probabilities 0-1, or labels"


def mismatches(image: Image, mask: Image) -> tuple[str, ...]:
    """Why a mask and a scan may not belong together, from their fields of view alone."""
    shape = np.array(image.data.shape)
    samples = np.array(list(product(*(np.linspace(0, n - 1, 12) for n in shape))))
    indices = apply(np.linalg.inv(mask.affine) @ image.affine, samples)
    covered = ((indices > -0.5) & (indices < np.array(mask.data.shape) - 0.5)).all(-1).mean()
    found = []
    if covered < 0.5:
        found.append(f"the lesion mask covers only {covered:.0%} of the scan's field of view: do they belong together?")
    if image.data.shape == mask.data.shape and not _is_same_field(image, mask):
        found.append("the lesion mask has the scan's matrix but another position or orientation: check its header")
    return tuple(found)


def _is_same_field(image: Image, mask: Image) -> bool:
    """Whether both cover the same field of view, in whatever order and direction their axes are stored."""
    if is_same_grid(image.geometry, mask.geometry):
        return True
    one, other = (each.grid.along_scan for each in (image, mask))
    return is_same_grid((one.shape, one.affine), (other.shape, other.affine))
