"""Lesion masks: what their values mean, and whether they belong to a scan."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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

    At most one value above 0 is binary; fractions up to 1 are probabilities, of which those at or above ``threshold``
    are lesion; whole numbers are labels, unless most of them lie beside others, as the levels of a probability in per
    cent (or of 255, or of 1000) do, or the file's name says that it holds probabilities. Raises ``UserError`` for
    anything else.
    """
    values = np.unique(data[data > 0])
    whole = bool((values == np.rint(values)).all())
    certain = _certain(values) if whole and len(values) > 0 else 1.0
    warnings: tuple[str, ...] = ()
    if len(values) == 0 and (data < 0).any():
        raise UserError(f"lesion mask: values from {data.min():g} to {data.max():g}; lesions need values above 0")
    if len(values) == 0 or (values[0] == values[-1] and (whole or values[0] >= 0.5)):
        return MaskLabels((data > 0).astype(np.int32), "binary")
    if whole and not named_probability and not _are_levels(data, values):
        return MaskLabels(np.rint(np.maximum(data, 0)).astype(np.int32), "labels")
    if certain is None or (not whole and values[-1] > ROUNDED_UP):
        raise UserError(_unclear(values, whole))
    if whole:
        warnings = (
            f"lesion mask: whole numbers up to {values[-1]:g}, taken for probabilities of which {certain:g} is 1",
        )
    lesion = (data > 0) & (data >= threshold * certain)
    if not lesion.any():
        warnings += (f"no voxel of the lesion mask reaches the threshold {threshold:g}; its highest probability is "
                     f"{values[-1] / certain:.2g}",)  # fmt: skip
    return MaskLabels(lesion.astype(np.int32), "probability", warnings)


def _certain(values: NDArray[Any]) -> float | None:
    """The whole number that stands for probability 1, by the highest there is; None where that is not clear."""
    return next((float(end) for begin, end in SCALES if begin <= values[-1] <= end), None)


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
