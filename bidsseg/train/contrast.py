"""Grey values for labels: random palettes, like sequences or like none, and real scans with their contrast bent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.labels import TISSUE, TISSUES
from bidsseg.train.chance import Chance, upload
from bidsseg.train.data import LESION_KIND, OUTER_CODES

N_KINDS = 16
LANES = 64
"Partial sums of a class, which a GPU's threads then seldom wait for each other to add to."
FIXED_POINT = 1 << 16
"Steps of grey value 1 in exact sums."
# Grey-value classes: one per tissue, then one per kind of tissue outside the brain (or inside, for plexus and lesion).
N_CLASSES = len(TISSUES) + N_KINDS


@dataclass(frozen=True)
class Mixture:
    """What contrasts there are to be."""

    p_sequence: float = 0.75
    "Share of palettes like a sequence; the others follow no rule."
    sequences: tuple[tuple[str, float], ...] = (("T1w", 0.3), ("FLAIR", 0.4), ("T2w", 0.2), ("PDw", 0.1))
    """Shares of ``SEQUENCES`` among these. FLAIR is the sequence of multiple sclerosis, and the only one whose white
    matter is a little darker than its cortex."""
    recolouring: tuple[float, float, float] = (0.25, 0.6, 0.15)
    "Of real scans: new means for tissues, a curve through grey values, inversion."


def _classes(packed: Tensor) -> Tensor:
    kind = (packed >> 12) & 15
    return torch.where(kind > 0, kind + (len(TISSUES) - 1), packed & 31).to(torch.int32)


def render(
    packed: Tensor,
    scan: Tensor | None,
    p_recolour: float,
    difficulty: float,
    chance: Chance,
    mixture: Mixture | None = None,
) -> Tensor:
    """Grey values (I, J, K) float32: a real scan, possibly recoloured, or classes with random means and noise."""
    rng, mixture = chance.rng, mixture or Mixture()
    classes = _classes(packed)  # (I, J, K) int32
    means, deviations = upload(np.stack(_palette(rng, mixture)), packed.device)  # (N_CLASSES,) each
    painted = chance.normal(packed.shape).mul_(deviations[classes]).add_(means[classes])
    if scan is None:
        return painted
    scan_means = _class_means(scan, classes)  # (N_CLASSES,)
    white = scan_means[TISSUE["white-matter"]]
    lesioned = _shift_lesions(scan, classes, (rng.uniform(0.5, 0.9) - 1) * white)
    if rng.random() < p_recolour:
        how = rng.choice(3, p=mixture.recolouring)
        if how == 0:
            texture = scan - scan_means[classes]
            coloured = means[classes] + rng.uniform(0.2, 1.2) * int(rng.choice([-1, 1])) * texture
        elif how == 1:
            coloured = remap(lesioned, scan_means, means, rng)
        else:
            coloured = 1.2 - lesioned.clamp(0, 1.3)
    else:
        coloured = bent(lesioned.clamp(max=1.3), difficulty, rng)
    return torch.where((packed & 31) != 0, coloured, painted)


def bent(scan: Tensor, difficulty: float, rng: Generator) -> Tensor:
    """The same contrast by a rising curve through grey values."""
    return scan.clamp(min=0).pow(float(np.exp(rng.uniform(-0.6, 0.6) * difficulty)))


def _class_means(scan: Tensor, classes: Tensor) -> Tensor:
    """Mean of the scan per class (N_CLASSES,); lesions count as the white matter they were painted on.

    Sums of integers, since those of floats depend on the order, which on a GPU is another at every run.
    """
    some, grey = classes.reshape(-1)[::7].long(), (scan.reshape(-1)[::7] * FIXED_POINT).long()
    lane = torch.arange(len(some), device=some.device).remainder_(LANES).add_(some * LANES)
    in_lanes = grey.new_zeros(2, N_CLASSES * LANES)
    in_lanes[0].index_add_(0, lane, grey)
    in_lanes[1].index_add_(0, lane, torch.ones_like(grey))
    sums = in_lanes.reshape(2, N_CLASSES, LANES).sum(2)
    means = (sums[0] / (sums[1].clamp(min=1) * FIXED_POINT)).float()
    means[len(TISSUES) - 1 + LESION_KIND] = means[TISSUE["white-matter"]]
    return means


def _shift_lesions(scan: Tensor, classes: Tensor, shift: Tensor) -> Tensor:
    """The scan with another mean in the white matter under painted lesions; its texture stays."""
    return torch.where(classes == len(TISSUES) - 1 + LESION_KIND, scan + shift, scan)


def remap(scan: Tensor, scan_means: Tensor, means: Tensor, rng: Generator) -> Tensor:
    """Another contrast by a curve through grey values: fluid, grey and white matter go to their new means.

    Unlike new means per tissue it moves partial volumes and structures between two tissues along. The curve is linear
    between its five knots; where hardly any ventricle is seen, there are four: the fluid's falls on the first.
    """
    tissues = [TISSUE[name] for name in ("lateral-ventricle", "cortex", "white-matter")]
    old = torch.stack([scan_means[tissue] for tissue in tissues]).clamp(min=0.02)
    new = torch.stack([means[tissue] for tissue in tissues])
    beyond = new[2:] + rng.normal(0, 0.15)
    levels = F.pad(F.pad(old, (1, 0)), (0, 1), value=1.3).cummax(0).values  # (5,)
    values = torch.cat((F.pad(new, (1, 0)), beyond))
    fluid_seen = levels[1] < levels[2]
    levels[1], values[1] = levels[1] * fluid_seen, values[1] * fluid_seen
    slopes = values.diff() / levels.diff().clamp(min=1e-6)
    scan = scan.clamp(0, 1.3)
    knot = torch.bucketize(scan, levels[1:-1], out_int32=True)  # of the piece, 0-3
    return (scan - levels[knot]).mul_(slopes[knot]).add_(values[knot])


# Rough contrasts of clinical sequences, relative grey values 0-1; jittered at every use.
_GREY = ("cortex", "thalamus", "caudate", "putamen", "hippocampus", "amygdala", "accumbens", "cerebellum-cortex")
_WHITE = ("white-matter", "cerebellum-white-matter", "brainstem", "ventral-dc", "pallidum")
_FLUID = ("lateral-ventricle", "inferior-lateral-ventricle", "third-ventricle", "fourth-ventricle", "csf")
SEQUENCES = {
    "T1w": {"grey": 0.55, "white": 0.8, "fluid": 0.15, "lesion": 0.5},
    "FLAIR": {"grey": 0.6, "white": 0.48, "fluid": 0.1, "lesion": 0.95},
    "T2w": {"grey": 0.5, "white": 0.35, "fluid": 0.95, "lesion": 0.7},
    "PDw": {"grey": 0.8, "white": 0.65, "fluid": 0.7, "lesion": 0.9},
}
P_BRIGHT_SCALP = 0.5
"Share of palettes whose fat, below the skin and in the marrow, is brighter than white matter."
FATTY = tuple(OUTER_CODES.index(code) + 1 for code in (507, 516))
"Kinds of tissue outside the brain that hold fat: what lies below the skin, and marrow."
FAT_TO_WHITE = (1.2, 3.0)
"Grey value of fat against white matter where nothing suppresses it, as in T1w scans of whole heads."
P_WEAK = 0.3
"Share of sequences with little contrast of grey and white matter, as in spin-echo T1w."


def _palette(rng: Generator, mixture: Mixture) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means and standard deviations of the grey-value classes."""
    means = rng.uniform(0, 1, N_CLASSES)
    deviations = rng.uniform(0.005, 0.09, N_CLASSES)
    if rng.random() < mixture.p_sequence:
        names, shares = zip(*mixture.sequences, strict=True)
        values = dict(SEQUENCES[rng.choice(names, p=shares)])
        if rng.random() < P_WEAK:
            values["grey"] += rng.uniform(0, 0.7) * (values["white"] - values["grey"])
        jitter = rng.uniform(0.02, 0.08)
        for tissues, group in ((_GREY, "grey"), (_WHITE, "white"), (_FLUID, "fluid")):
            for name in tissues:
                means[TISSUE[name]] = values[group] + rng.normal(0, jitter)
        means[len(TISSUES) - 1 + LESION_KIND] = values["lesion"] + rng.normal(0, 0.1)
        deviations *= 0.6
    # Air is dark in most scans, but not in all that were rescaled.
    means[TISSUE["background"]] = 0.0 if rng.random() < 0.8 else rng.uniform(0, 0.3)
    deviations[TISSUE["background"]] = rng.uniform(0, 0.02)
    means = np.clip(means, 0, 1)
    if rng.random() < P_BRIGHT_SCALP:
        for kind in FATTY:
            means[len(TISSUES) - 1 + kind] = means[TISSUE["white-matter"]] * rng.uniform(*FAT_TO_WHITE)
    return means.astype(np.float32), deviations.astype(np.float32)
