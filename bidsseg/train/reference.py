"""What is usual: volumes, asymmetries and places of every label in the training population, from its label maps."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bidsseg.imaging.arrays import Floats
from bidsseg.labels import LOBAR_TISSUES, SCHEMES, TISSUE, Scheme, code_lookup, label_table, other_sides
from bidsseg.quality.reorientation import N_KINDS, kind_of_tissue, on_atlas_grid
from bidsseg.quality.usual import LOBES, lobe_ratios
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.data import brain_box, brain_folders, head_maps, load_brain, load_head

logger = logging.getLogger(__name__)

COLUMNS = (
    *("scheme", "index", "low", "high", "middle", "asymmetry"),
    *("right_mm", "anterior_mm", "superior_mm", "brains"),
)
RATIO_COLUMNS = ("lobe", "low", "high", "middle", "brains")
INTERVAL, RATIO_INTERVAL = 0.9, 0.99
POOLED_MM = 4
FEWEST = 8
"Brains; labels of fewer get no row."


@dataclass(frozen=True)
class Measured:
    """One label of one brain."""

    fraction: float
    "Share of the intracranial volume."
    centre_mm: NDArray[np.float64]
    "(3,) from the middle of the brain's box, RAS."


Brain = dict[Scheme, dict[int, Measured]]
"Measures by scheme and code."


def measured_brains(data: Path) -> list[Brain]:
    """All labels of all label maps that a model learns from."""
    return [_measured(anatomy, has_lobes) for anatomy, has_lobes in _anatomies(data)]


def reference_table(brains: Sequence[Brain]) -> list[tuple[object, ...]]:
    """Rows of ``COLUMNS`` for all labels of all schemes.

    ``low`` and ``high`` bound the 90 % prediction interval of a new brain's volume over intracranial volume, taken as
    log-normal; ``middle`` is the median; ``asymmetry`` bounds the 90 % interval of |left - right| over their mean.
    """
    return [row for scheme in SCHEMES for row in rows_of([brain[scheme] for brain in brains], scheme)]


def ratio_table(brains: Sequence[Brain]) -> list[tuple[object, ...]]:
    """Rows of ``RATIO_COLUMNS``: the prediction interval of a new brain's cortex over white matter, by lobe.

    It is wider than that of volumes, since it is to show labels that went wrong rather than brains that are rare.
    """
    ratios = [lobe_ratios({code: one.fraction for code, one in brain["regions"].items()}) for brain in brains]
    rows: list[tuple[object, ...]] = []
    for lobe in LOBES:
        found = np.log([brain[lobe] for brain in ratios if lobe in brain])
        low, middle, high = interval(found, RATIO_INTERVAL)
        rows.append((lobe, *(f"{np.exp(x):.3f}" for x in (low, high, middle)), len(found)))
    return rows


def _anatomies(data: Path) -> Iterator[tuple[Anatomy, bool]]:
    """Manual labels of the training brains, and the head maps; and whether they have lobes."""
    for folder in brain_folders(data, validation=False):
        logger.info("measuring %s", folder.name)
        yield load_brain(folder)[0], True
    for path in head_maps(data):
        packed = load_head(path).packed
        tissue, side = (packed & 31).astype(np.uint8), (packed >> 5 & 1).astype(np.uint8)
        logger.info("measuring %s", path.name)
        yield Anatomy(tissue, side, np.zeros_like(tissue)), False


def _measured(anatomy: Anatomy, has_lobes: bool) -> Brain:
    found = measure(anatomy)
    return found if has_lobes else {scheme: _without_lobes(labels, scheme) for scheme, labels in found.items()}


def tissue_atlas(data: Path) -> NDArray[np.uint8]:
    """255 times the frequency of each kind of tissue, (kinds, n, n, n), made the same on both sides."""
    brains = [on_atlas_grid(_pooled(anatomy.tissue), POOLED_MM) for anatomy, _ in _anatomies(data)]
    mean = np.mean([brain for brain in brains if brain is not None], axis=0)
    rounded: NDArray[np.uint8] = np.rint(255 * (mean + mean[:, ::-1]) / 2).astype(np.uint8)
    return rounded


def _pooled(tissue: NDArray[np.uint8]) -> Floats:
    """Shares of the kinds of tissue in cubes of a 1 mm label map, (kinds, i, j, k)."""
    kind = np.pad(kind_of_tissue()[tissue], [(0, -n % POOLED_MM) for n in tissue.shape])
    i, j, k = (n // POOLED_MM for n in kind.shape)
    cubes = kind.reshape(i, POOLED_MM, j, POOLED_MM, k, POOLED_MM)
    return np.stack([(cubes == one).mean((1, 3, 5), dtype=np.float32) for one in range(N_KINDS)])


def measure(anatomy: Anatomy) -> Brain:
    """All labels of all schemes that a brain at 1 mm has; centres are taken from every second voxel."""
    shape = code_lookup("regions").shape  # (tissues, sides, parcels)
    parcel = np.minimum(anatomy.parcel, shape[2] - 1)
    joint = (anatomy.tissue.astype(np.int16) * shape[1] + anatomy.side) * np.int16(shape[2]) + parcel
    counts = np.bincount(joint.reshape(-1), minlength=int(np.prod(shape))).reshape(shape)
    sparse = joint[::2, ::2, ::2].astype(np.int64)
    few = np.bincount(sparse.reshape(-1), minlength=counts.size)
    places = np.broadcast_arrays(*np.ogrid[tuple(slice(0, n, 2) for n in joint.shape)])
    sums = [np.bincount(sparse.reshape(-1), place.reshape(-1), minlength=counts.size) for place in places]
    total, middle = counts[1:].sum(), brain_box(anatomy.tissue[::2, ::2, ::2]).mean(0) * 2
    return {scheme: _by_label(counts, few, np.array(sums), total, middle, scheme) for scheme in SCHEMES}


def _by_label(counts: Any, few: Any, sums: Any, total: int, middle: Any, scheme: Scheme) -> dict[int, Measured]:
    """Gather what was counted by factors under the codes of a scheme."""
    codes = code_lookup(scheme).reshape(-1)
    voxels, sampled = np.bincount(codes, counts.reshape(-1)), np.bincount(codes, few)
    places = np.stack([np.bincount(codes, along) for along in sums], 1)  # (codes, 3)
    present = [int(code) for code in np.flatnonzero(sampled) if code]
    return {code: Measured(voxels[code] / total, places[code] / sampled[code] - middle) for code in present}


def _without_lobes(measured: dict[int, Measured], scheme: Scheme) -> dict[int, Measured]:
    lobar = set(np.unique(code_lookup(scheme)[[TISSUE[name] for name in LOBAR_TISSUES]]).tolist())
    vermis = {71, 72, 73, 8, 47} if scheme == "gyri" else set()  # the head maps have no lobules
    return {code: found for code, found in measured.items() if code not in lobar | vermis}


def rows_of(brains: list[dict[int, Measured]], scheme: Scheme) -> Iterator[tuple[object, ...]]:
    """A row for every label that enough brains have."""
    for label in label_table(scheme):
        found = [brain[label.index] for brain in brains if label.index in brain]
        if len(found) < FEWEST:
            continue
        low, middle, high = interval(np.log([one.fraction for one in found]))
        centre = np.mean([one.centre_mm for one in found], axis=0)
        other = other_sides(scheme).get(label.index, 0)
        both = [brain for brain in brains if {label.index, other} <= brain.keys()]
        pairs = [(brain[label.index].fraction, brain[other].fraction) for brain in both]
        asymmetry = f"{asymmetry_limit(pairs):.4f}" if pairs else "n/a"
        numbers = [f"{np.exp(x):.3e}" for x in (low, high, middle)]
        yield (scheme, label.index, *numbers, asymmetry, *(f"{mm:.1f}" for mm in centre), len(found))


def interval(values: NDArray[np.float64], share: float = INTERVAL) -> tuple[float, float, float]:
    """Lower end, mean and upper end of the prediction interval for one more value (normal distribution)."""
    n = len(values)
    half = stats.t.ppf((1 + share) / 2, n - 1) * np.std(values, ddof=1) * np.sqrt(1 + 1 / n)
    return float(values.mean() - half), float(values.mean()), float(values.mean() + half)


def asymmetry_limit(pairs: list[tuple[float, float]]) -> float:
    """Bound of |left - right| over their mean that 90 % of brains stay within."""
    low, _, high = interval(np.array([2 * (a - b) / (a + b) for a, b in pairs]))
    return max(abs(low), abs(high))
