"""Evidence from the network's probabilities: sums per label, positions of labels, and where the brain is cut.

Everything here is measured; what it means is decided in ``assessment``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import Floats, as_float32, box_around
from bidsseg.imaging.blocks import at_voxels
from bidsseg.imaging.grid import Grid, turned_back
from bidsseg.labels import (
    FLUID,
    N_GYRI,
    TISSUE,
    TISSUES,
    Scheme,
    gyri_to_parts,
    label_table,
    lobe_parts,
    part_codes,
)

if TYPE_CHECKING:
    from bidsseg.network.probabilities import Probabilities

Indices = NDArray[np.intp]
Tally = NDArray[np.float64]
"(codes, ``TALLIED``)"
TALLIED = ("voxels", "probable", "inside", "i", "j", "k")
"Sums over voxels: their number, the label's probability everywhere and where it was chosen, and their indices."
SCORED: tuple[Scheme, ...] = ("regions", "lobes")
FACES = ("left", "right", "back", "front", "bottom", "top")
"Faces of the field of view, in the order of the RAS axes."
LEAST = 0.01
"Voxels less likely than this to be brain are left out."
SLICES_AT_ONCE = 8
"Sagittal ones; their probabilities fit into a processor's cache."
FEW_DEEP_VOXELS = 500
MARGIN_VOXELS = 4
"Margin of the box of white matter, so that it holds cortex on all sides."
NO_WEIGHT = 1e-4
DARK = 0.1
"Grey value, of the brain's 0-1, that background stays below."
QUARTILES_OF_NORMAL = 1.349
"Distance between the quartiles of a normal distribution, in standard deviations."
CEREBELLUM = ("cerebellum-cortex", "cerebellum-white-matter")


class Sums(NamedTuple):
    """One label in the 1 mm answer; sums over voxels of 1 mm3."""

    voxels: float
    "Where the label was chosen."
    probable: float
    "Sum of its probability everywhere."
    inside: float
    "Sum of its probability where it was chosen."
    centre: tuple[float, float, float]
    "Mean position in mm along the RAS axes of the 1 mm grid; zeros without voxels."

    @property
    def soft_dice(self) -> float:
        """The Dice to be expected if the probabilities were true, 0-1; 0 for a label that is nowhere."""
        both = self.voxels + self.probable
        return 2 * self.inside / both if both > 0 else 0.0


@dataclass(frozen=True)
class Evidence:
    """What is known of one answer without a second opinion."""

    sums: dict[str, dict[int, Sums]]
    "Sums by scheme of ``SCORED`` and code."
    intracranial_mm3: float
    cut_mm2: dict[str, float] = field(default_factory=dict)
    "Brain without fluid on each face of the field of view."
    cerebellum_cut_mm2: float = 0.0
    "Cerebellum on the lowest slice."
    unevenness: float = 0.0
    "Variation of white matter over a few mm, where the brain has grey values 0-1; 0 where too little is in view."
    noise: float = 0.0
    "Difference of white-matter voxels from the mean of their neighbours, where the brain has grey values 0-1."
    white_over_grey: float = 0.0
    "Mean of white matter less that of cortex, in the scan normalised to 0-1; positive as in T1w, negative as in FLAIR."
    fluid_over_white: float = 0.0
    "Mean of the ventricles less that of white matter, likewise; positive as in T2w."
    surroundings: float = 0.0
    "Share of what lies around the brain that is no dark background: near 0 where the brain was extracted."
    layout_fit: float = 0.0
    "How well fluid, grey and white matter lie as in an atlas, mean log-likelihood; whole brains have about -0.25."
    better_turned: str = ""
    "The orientation in which the scan would look right, where it does not as it is."

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def evidence_from(stored: dict[str, Any]) -> Evidence:
    """What ``Evidence.as_json`` gave, after its way through JSON."""
    sums = {
        scheme: {int(code): Sums(row[0], row[1], row[2], tuple(row[3])) for code, row in rows.items()}
        for scheme, rows in stored["sums"].items()
    }
    return Evidence(**{**stored, "sums": sums})


def collect(found: Probabilities, volume: Floats, grid: Grid, how_sure: bool = True) -> Evidence:
    """The evidence of an answer for the normalised scan (I, J, K) on its 1 mm grid.

    Unless asked ``how_sure`` the answer is, sums of probabilities are 0; ``as_sure_as`` puts others in their place.
    """
    tissue = np.zeros(found.tissue.shape[1:], np.uint8)
    tallies: dict[Scheme, Tally] = {scheme: np.zeros((_n_codes(scheme), len(TALLIED))) for scheme in SCORED}
    for voxels in some_slices_at_a_time(found):
        tissue[voxels.indices] = voxels.factors[0]
        for scheme, tally in tallies.items():
            tally += tallied(voxels, scheme, how_sure)
    solid = (tissue > 0) & ~_members(FLUID)[tissue]
    masks, origin = turned_back(np.stack((solid, _members(CEREBELLUM)[tissue])), found.origin, grid)
    faces, cerebellum = (_faces(mask, origin, grid.along_scan.shape) for mask in masks)
    seen = volume[found.box]
    return Evidence(
        {scheme: label_sums(tally, scheme, found.origin) for scheme, tally in tallies.items()},
        float(np.count_nonzero(tissue)),
        {name: float(face.sum()) for name, face in zip(FACES, faces, strict=True)},
        float(cerebellum[FACES.index("bottom")].sum()),
        *unevenness(seen, tissue),
        step(seen, tissue, "white-matter", "cortex"),
        step(seen, tissue, "lateral-ventricle", "white-matter"),
        round(float((seen[tissue == 0] > DARK).mean()), 4) if (tissue == 0).any() else 0.0,
    )


def unevenness(volume: Floats, tissue: NDArray[np.uint8]) -> tuple[float, float]:
    """``Evidence.unevenness`` and ``Evidence.noise`` of grey values and tissues of one shape (I, J, K).

    Ghosts of movement ripple through white matter, which the network overlooks. What noise leaves in means over 3 mm,
    which the network bears well, is taken off by its own strength; means over 9 mm of white matter take out the bias
    field. Quartiles, because of lesions. The scale is that of the brain's grey values, whatever the contrast.
    """
    box = box_around(tissue == TISSUE["white-matter"], MARGIN_VOXELS)
    volume, white = volume[box], tissue[box] == TISSUE["white-matter"]  # the rest would cost as much again
    deep = ndimage.binary_erosion(white, iterations=2)
    if deep.sum() < FEW_DEEP_VOXELS:
        return 0.0, 0.0
    smooth = ndimage.uniform_filter(volume, 3)
    ripple = _spread((smooth - _mean_within(white, smooth, 9))[deep])
    noise = _spread((volume - smooth)[deep])
    return round(float(np.sqrt(max(ripple**2 - noise**2 / (3**3 - 1), 0.0))), 4), round(noise, 4)


def step(volume: Floats, tissue: NDArray[np.uint8], one: str, other: str) -> float:
    """Mean grey value of one tissue less that of another, of one shape (I, J, K); 0 where either is missing."""
    a, b = (volume[tissue == TISSUE[name]] for name in (one, other))
    return round(float(a.mean() - b.mean()), 4) if a.size and b.size else 0.0


def _spread(values: Floats) -> float:
    """Standard deviation of a normal distribution with these quartiles."""
    low, high = np.percentile(values, (25, 75))
    return float(high - low) / QUARTILES_OF_NORMAL


def _mean_within(mask: NDArray[np.bool_], volume: Floats, width: int) -> Floats:
    """Means over cubes, of the voxels in the mask alone; the mask's own mean where a cube holds none."""
    weight = ndimage.uniform_filter(mask.astype(np.float32), width)
    total: Floats = ndimage.uniform_filter(np.where(mask, volume, np.float32(0)), width)
    mean: Floats = total / np.maximum(weight, np.float32(NO_WEIGHT))
    mean[weight < NO_WEIGHT] = volume[mask].mean()
    return mean


def as_sure_as(fused: Evidence, own: Evidence) -> Evidence:
    """The evidence of averaged probabilities, with the confidence of the scan's own.

    Averages are less sure than single answers without being worse, and calibrations are fitted on single answers.
    """
    sums = {
        scheme: {
            code: row._replace(probable=row.voxels, inside=own.sums[scheme][code].soft_dice * row.voxels)
            for code, row in rows.items()
        }
        for scheme, rows in fused.sums.items()
    }
    return replace(fused, sums=sums, layout_fit=own.layout_fit, better_turned=own.better_turned)


class Voxels(NamedTuple):
    """Those that may be brain, N of them."""

    tissue: Floats
    "(19, N) probabilities."
    side: Floats
    "(2, N) probabilities of left and right."
    part: Floats
    "(lobe parts, N) probabilities."
    factors: tuple[Indices, Indices, Indices]
    "The most likely tissue, side and lobe part, (N,) each."
    indices: tuple[Indices, Indices, Indices]
    "Indices in the box, (N,) each."


def some_slices_at_a_time(found: Probabilities) -> Iterator[Voxels]:
    """The voxels of the box that may be brain; few at once, since all of them would fill the memory anew."""
    parts = _lobe_parts(found.parcels)
    for first in range(0, found.tissue.shape[1], SLICES_AT_ONCE):
        slices = slice(first, first + SLICES_AT_ONCE)
        maybe = found.tissue[0, slices] < np.float16(1 - LEAST)
        here = np.flatnonzero(maybe)
        tissue = as_float32(_picked(found.tissue[:, slices], here))
        right = as_float32(_picked(found.right[:, slices], here))[0]
        part = at_voxels(parts, found.tissue.shape[1:], slices, maybe)
        i, j, k = np.unravel_index(here, maybe.shape)
        factors = (tissue.argmax(0), (right > 0.5).astype(np.intp), part.argmax(0))
        yield Voxels(tissue, np.stack((1 - right, right)), part, factors, (i + first, j, k))


def _picked(channels: NDArray[np.float16], here: Indices) -> NDArray[np.float16]:
    """(C, N) of (C, I, J, K) at N flat indices, which takes two thirds of the time that a mask takes."""
    return channels.reshape(len(channels), -1).take(here, 1)


def _lobe_parts(parcels: NDArray[np.float16]) -> NDArray[np.floating[Any]]:
    """(i, j, k, lobe parts) from as many channels, or from those of gyri and of the vermis' lobules, without a lobe."""
    if parcels.shape[-1] == len(lobe_parts()):
        return parcels
    summed: Floats = as_float32(parcels[..., :N_GYRI]) @ gyri_to_parts().T
    return summed


def _members(names: Sequence[str]) -> NDArray[np.bool_]:
    """Which tissues are among the names, (19,)."""
    return np.isin(np.arange(len(TISSUES)), [TISSUE[name] for name in names])


def _n_codes(scheme: Scheme) -> int:
    return int(part_codes(scheme).max()) + 1


def tallied(voxels: Voxels, scheme: Scheme, how_sure: bool) -> Tally:
    """``TALLIED`` of some voxels by code; unless asked ``how_sure`` the answer is, sums of probabilities are 0."""
    lookup, size = part_codes(scheme), _n_codes(scheme)
    codes = lookup[voxels.factors]
    probable, inside = np.zeros(size), np.zeros(size)
    if how_sure:
        probable = probable_voxels(voxels, lookup, size)
        inside += np.bincount(codes, probability_of_chosen(voxels, codes, lookup), minlength=size)
    index_sums = (np.bincount(codes, index, minlength=size) for index in voxels.indices)
    return np.stack((np.bincount(codes, minlength=size), probable, inside, *index_sums), 1)


def label_sums(tally: Tally, scheme: Scheme, origin: tuple[int, int, int]) -> dict[int, Sums]:
    """``Sums`` of every label of a scheme, also of those that were chosen nowhere, from the tally of a box."""
    sums = {}
    for code in (label.index for label in label_table(scheme)):
        voxels, probable, inside, *index_sums = tally[code]
        i, j, k = (round(float(p / voxels + o), 2) if voxels else 0.0 for p, o in zip(index_sums, origin, strict=True))
        sums[code] = Sums(float(voxels), round(float(probable), 2), round(float(inside), 2), (i, j, k))
    return sums


def probable_voxels(voxels: Voxels, lookup: NDArray[np.uint16], size: int) -> NDArray[np.float64]:
    """Sum over voxels of each code's probability, (size,)."""
    by_side = voxels.tissue @ voxels.side.T  # (19, 2)
    divided = (lookup != lookup[:, :, :1]).any(2)  # by part: those of lobes
    sums = np.zeros(size)
    sums += np.bincount(lookup[~divided][:, 0], by_side[~divided], minlength=size)
    tissues, sides = np.nonzero(divided)
    by_part = voxels.tissue[tissues] * voxels.side[sides] @ voxels.part.T  # in one pass through the parts
    sums += np.bincount(lookup[divided].ravel(), by_part.ravel(), minlength=size)
    sums[0] = 0
    return sums


def probability_of_chosen(voxels: Voxels, codes: NDArray[np.uint16], lookup: NDArray[np.uint16]) -> Floats:
    """Probability of each voxel's own label, (N,): of all tissues, sides and parts that bear it."""
    total = np.zeros(len(codes), np.float32)
    for code in np.unique(lookup[lookup > 0]):
        here = np.flatnonzero(codes == code)
        for tissue, side in zip(*np.nonzero((lookup == code).any(2)), strict=True):
            bears = lookup[tissue, side] == code  # (parts,)
            share = voxels.tissue[tissue, here] * voxels.side[side, here]
            total[here] += share if bears.all() else share * (bears @ voxels.part[:, here])
    return total


def _faces(mask: NDArray[np.bool_], origin: tuple[int, int, int], shape: tuple[int, ...]) -> list[NDArray[np.bool_]]:
    """The mask on the six faces of the field of view, empty where the box does not reach them."""
    faces = []
    for axis in range(3):
        for index, reached in ((0, origin[axis] == 0), (-1, origin[axis] + mask.shape[axis] == shape[axis])):
            face: NDArray[np.bool_] = np.asarray(mask.take(index, axis))
            faces.append(face if reached else np.zeros_like(face))
    return faces
