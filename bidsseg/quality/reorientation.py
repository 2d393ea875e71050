"""The orientation of a head, found from the layout of its tissues rather than from its header.

The network also finds fluid, grey and white matter in a head of wrong orientation, and their layout shows the true one:
their layout is compared, in all orientations, with an atlas of the training brains. That costs next to nothing and asks
the network nothing new. Only where another orientation fits better is the scan looked at in that orientation, with
a single coarse look of the network, which can propose a third; the orientation whose own look fits the atlas best wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats, along, resampling_matrix
from bidsseg.labels import FLUID, TISSUES
from bidsseg.network.inference import PredictOptions, coarse_look
from bidsseg.network.looks import LOOK_MM
from bidsseg.network.probabilities import Probabilities
from bidsseg.network.weights import Model
from bidsseg.quality.coverage import SHORTEST_MM
from bidsseg.quality.evidence import Evidence
from bidsseg.quality.usual import DIRECTIONS

WHITE = ("white-matter", "cerebellum-white-matter", "brainstem", "ventral-dc", "pallidum")
GREY_KIND, WHITE_KIND, FLUID_KIND = 1, 2, 3
N_KINDS = 4
"Kinds of tissue: background, grey, white, fluid."
ATLAS_FILE = "tissue_atlas.npz"
ATLAS_VOXELS = 24
"Along each side of a cube, which can be turned at will."
ATLAS_MM = 8.0
BRAIN_MM = 105.0
"Cube root of the volume of grey and white matter that every brain is scaled to."
BRAIN_LIMITS_MM = (30.0, 140.0)
"Cube root of the volume of grey and white matter that can be a brain's, or a part of it; else there is no layout."
LEAST_FREQUENCY = 0.01
"Lower bound on the frequency of a kind of tissue anywhere in the atlas: nothing is impossible."
NO_FIT = -1.0
"Where hardly any brain was found."
CLEARLY = 0.08
"Log-likelihood for each voxel of the atlas, by which another orientation must fit better to be named."
MOST_LOOKS = 3
Turn = tuple[tuple[int, ...], tuple[int, ...]]
"Order of the axes, and the axes reversed afterwards. Left and right are never exchanged: no image shows them."
AS_STORED: Turn = ((0, 1, 2), ())
Look = Callable[[Floats], Floats]
"From a normalised 1 mm volume to the tissue probabilities (19, i, j, k) of every fourth voxel or so."


def turns() -> list[Turn]:
    """All 24 orientations, that of the scan first."""
    orders = permutations(range(3))
    return [
        (order, tuple(axis for axis, flip in zip((1, 2), flips, strict=True) if flip))
        for order, flips in product(orders, product((False, True), repeat=2))
    ]


def turned(volume: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """A volume (I, J, K) in another orientation."""
    order, reverse = turn
    return np.ascontiguousarray(np.flip(volume.transpose(order), reverse))


def then(first: Turn, second: Turn) -> Turn:
    """One turn that does what two do after one another, but for a reflection of left and right."""
    order = tuple(first[0][axis] for axis in second[0])
    reverse = (axis for axis in (1, 2) if (axis in second[1]) != (second[0][axis] in first[1]))
    return order, tuple(reverse)


def name_of(turn: Turn) -> str:
    """What the header takes for what, for instance "bottom and top exchanged"."""
    order, reverse = turn
    if order == AS_STORED[0]:
        return " and ".join(f"{DIRECTIONS[axis][0]} and {DIRECTIONS[axis][1]} exchanged" for axis in reverse)
    parts = []
    for axis, (low, high) in enumerate(DIRECTIONS):
        becomes = order.index(axis)
        begin, end = DIRECTIONS[becomes][:: -1 if becomes in reverse else 1]
        if (begin, end) != (low, high):
            parts.append(f"{low}-{high} as {f'{begin}-{end}' if becomes else 'across the head'}")
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


@cache
def atlas() -> Floats:
    """(``N_KINDS``, n, n, n) frequency of each kind of tissue; from ``brainseg-cli reference``."""
    with (files("bidsseg") / "tables" / ATLAS_FILE).open("rb") as file, np.load(file) as stored:
        frequency: Floats = stored["frequency"].astype(np.float32) / 255
    return frequency


@cache
def kind_of_tissue() -> NDArray[np.intp]:
    """(19,) kind of each tissue."""
    others = {"background": 0, **dict.fromkeys(WHITE, WHITE_KIND), **dict.fromkeys(FLUID, FLUID_KIND)}
    return np.array([others.get(name, GREY_KIND) for name in TISSUES])


def kinds(tissue: NDArray[Any]) -> Floats:
    """Probabilities of tissues (19, i, j, k) -> of their kinds (``N_KINDS``, i, j, k)."""
    sums = np.zeros((N_KINDS, *tissue.shape[1:]), np.float32)
    for kind, probability in zip(kind_of_tissue(), tissue, strict=True):
        sums[kind] += probability
    return sums


def on_atlas_grid(coarse: Floats, mm: float) -> Floats | None:
    """Kinds of tissue (``N_KINDS``, i, j, k), voxels ``mm`` wide, scaled and moved to the atlas; None for no brain.

    The brain's middle comes to the atlas' middle, and its volume to that of the atlas' brain.
    """
    solid = coarse[GREY_KIND] + coarse[WHITE_KIND]
    width = float(solid.sum()) ** (1 / 3) * mm
    if not BRAIN_LIMITS_MM[0] < width < BRAIN_LIMITS_MM[1]:
        return None
    step = ATLAS_MM / mm * width / BRAIN_MM
    seen = coarse[1:]
    for axis, n in enumerate(solid.shape):
        profile = solid.sum(tuple(a for a in range(3) if a != axis))
        middle = float(profile @ np.arange(n) / profile.sum())
        centres = middle + step * (np.arange(ATLAS_VOXELS) - (ATLAS_VOXELS - 1) / 2)
        matrix = resampling_matrix(centres, n, step)
        matrix[(centres < -0.5) | (centres > n - 0.5)] = 0  # beyond the field of view there is nothing
        seen = along(matrix, seen, axis)
    return np.concatenate((1 - seen.sum(0, keepdims=True), seen))


def fits(coarse: Floats, mm: float) -> dict[Turn, float]:
    """By turn, how well kinds (``N_KINDS``, i, j, k) would fit the atlas: mean log-likelihood; empty without brain."""
    found = on_atlas_grid(coarse, mm)
    if found is None:
        return {}
    usual = np.log(np.maximum(atlas(), LEAST_FREQUENCY))
    return {
        turn: float(sum((turned(kind, turn) * row).mean() for kind, row in zip(found, usual, strict=True)))
        for turn in turns()
    }


def best_turn(volume: Floats, answer: NDArray[Any], look: Look) -> Turn:
    """The orientation in which a 1 mm volume looks most like a head; its own unless another is clearly better.

    ``answer`` holds tissue probabilities (19, i, j, k) of every fourth voxel of the volume as it lies. Every look
    votes for all orientations; the one with most votes is looked at next, until that is one seen already.
    """
    votes = dict.fromkeys(turns(), 0.0)
    own: dict[Turn, float] = {}
    turn, tissue = AS_STORED, answer
    while found := fits(kinds(tissue), LOOK_MM):
        own[turn] = found[AS_STORED]
        for other, fit in found.items():
            votes[then(turn, other)] += fit
        turn = max(votes, key=lambda one: votes[one])
        if turn in own or len(own) > MOST_LOOKS:
            break
        tissue = look(turned(volume, turn))
    best = max(own, key=lambda one: own[one], default=AS_STORED)
    return best if own and own[best] > own[AS_STORED] + CLEARLY else AS_STORED


def best_answer(found: Probabilities, volume: Floats, look: Look, shortest_mm: float | None = None) -> Turn:
    """``best_turn`` of a scan that was answered; a slab has no layout to tell it by, and stays as it is.

    ``shortest_mm`` is the shortest side of its field of view, where that lies askew in the volume.
    """
    return (
        AS_STORED if (shortest_mm or min(volume.shape)) < SHORTEST_MM else best_turn(volume, _every_look(found), look)
    )


def _every_look(found: Probabilities) -> NDArray[np.float16]:
    """Tissue probabilities (19, i, j, k), ``LOOK_MM`` apart."""
    every = slice(LOOK_MM // 2, None, LOOK_MM)
    return found.tissue[:, every, every, every]


def quick_look(model: Model, options: PredictOptions) -> Look:
    """What asks the network."""
    return partial(coarse_look, model=model, options=options)


def with_orientation(
    evidence: Evidence, found: Probabilities, volume: Floats, look: Look, shortest_mm: float | None = None
) -> Evidence:
    """The evidence of an answer, with its fit to the atlas and the orientation that would be right, if another."""
    fit = fits(kinds(_every_look(found)), LOOK_MM).get(AS_STORED, NO_FIT)
    evidence = replace(evidence, layout_fit=round(fit, 4))
    turn = best_answer(found, volume, look, shortest_mm)
    return evidence if turn == AS_STORED else replace(evidence, better_turned=name_of(turn))
