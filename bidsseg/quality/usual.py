"""Usual values in the training population: volumes, positions, asymmetries, and ratios of grey to white matter."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from bidsseg.labels import LOBAR_TISSUES, codes_in_lobe, label_table, other_sides
from bidsseg.quality.evidence import Evidence

MOST_ODD = 4.0
LEAST_HALF_WIDTH = math.log(1.25)
"Narrowest usual range: a dozen brains outlined by one team differ less than brains and outlines do."
MIXED_BY_A_MM = 0.05
FEW_VOXELS = 50
"Voxels of 1 mm3: the position of a smaller label says little."
VOLUMES_FILE, RATIOS_FILE = "reference_volumes.tsv", "lobe_ratios.tsv"
"Tables that ``brainseg-cli reference`` writes."
LOBES = ("frontal", "parietal", "temporal", "occipital")
"Lobes whose ratio of grey to white matter is known."
DIRECTIONS = (("left", "right"), ("back", "front"), ("bottom", "top"))


@dataclass(frozen=True)
class Reference:
    """What is usual for one label in the training population."""

    low: float
    high: float
    middle: float
    "Volume over intracranial volume: ends of the 90 % interval, and the median."
    asymmetry: float | None
    "Bound of |left - right| over their mean."
    centre_mm: tuple[float, float, float]
    "From the middle of the brain, RAS."


def _rows(name: str) -> Iterator[dict[str, str]]:
    """Of a table of the package; none where ``brainseg-cli reference`` has not written it."""
    table = files("bidsseg") / "tables" / name
    text = table.read_text(encoding="utf-8") if table.is_file() else ""
    return csv.DictReader(io.StringIO(text), delimiter="\t")


@cache
def references() -> dict[str, dict[int, Reference]]:
    """By scheme and code."""
    found: dict[str, dict[int, Reference]] = {}
    for row in _rows(VOLUMES_FILE):
        centre = (float(row["right_mm"]), float(row["anterior_mm"]), float(row["superior_mm"]))
        asymmetry = None if row["asymmetry"] == "n/a" else float(row["asymmetry"])
        reference = Reference(float(row["low"]), float(row["high"]), float(row["middle"]), asymmetry, centre)
        found.setdefault(row["scheme"], {})[int(row["index"])] = reference
    return found


def widening(slice_mm: float) -> float:
    """By what to widen a usual range at both ends: slices thicker than cortex mix it with what lies beside it."""
    return 1 + MIXED_BY_A_MM * max(slice_mm - 1, 0.0)


def oddness(fraction: float, usual: Reference | None, slice_mm: float = 1.0) -> float:
    """How far a volume lies outside the usual range, in half widths of it (log scale), 0 to ``MOST_ODD``."""
    if usual is None:
        return 0.0
    if fraction <= 0:
        return MOST_ODD
    half = max(math.log(usual.high / usual.low) / 2, LEAST_HALF_WIDTH) + math.log(widening(slice_mm))
    return min(max(abs(math.log(fraction / usual.middle)) / half - 1, 0.0), MOST_ODD)


def label_oddness(evidence: Evidence, scheme: str, slice_mm: float = 1.0) -> dict[int, float]:
    """``oddness`` of every label."""
    usual = references().get(scheme, {})
    total = max(evidence.intracranial_mm3, 1.0)
    sums = evidence.sums[scheme].items()
    return {code: oddness(one.voxels / total, usual.get(code), slice_mm) for code, one in sums}


@dataclass(frozen=True)
class Layout:
    """How labels lie to each other, against what is usual."""

    disorder_mm: float
    "Root mean square distance from their usual places, after the best shift and scaling along each axis."
    likeness: NDArray[np.float64]
    "(3, 3) correlation of the positions along each axis found (rows) with those usual (columns), -1 to 1."


def layout(evidence: Evidence) -> Layout:
    """Compare the centres of all regions with the usual; with fewer than six regions there is nothing to compare."""
    usual = references().get("regions", {})
    codes = [code for code, sums in evidence.sums["regions"].items() if sums.voxels >= FEW_VOXELS and code in usual]
    if len(codes) < 6:
        return Layout(0.0, np.eye(3))
    found = np.array([evidence.sums["regions"][code].centre for code in codes])
    wanted = np.array([usual[code].centre_mm for code in codes])
    found, wanted = found - found.mean(0), wanted - wanted.mean(0)
    scale = np.clip((found * wanted).sum(0) / np.maximum((wanted**2).sum(0), 1), 0.6, 1.6)
    spread = np.outer(np.sqrt((found**2).sum(0)), np.sqrt((wanted**2).sum(0)))
    distance = np.sqrt(((found - scale * wanted) ** 2).sum(1).mean())
    return Layout(float(distance), found.T @ wanted / np.maximum(spread, 1e-6))


def asymmetries(evidence: Evidence) -> dict[int, tuple[float, float | None]]:
    """By code of the left region: left less right over their mean, and the usual bound of its size."""
    usual, sums = references().get("regions", {}), evidence.sums["regions"]
    left = [label.index for label in label_table("regions") if label.hemisphere == "L"]
    found = {}
    for code in left:
        a, b = sums[code].voxels, sums[other_sides("regions")[code]].voxels
        if a + b > 0:
            found[code] = (2 * (a - b) / (a + b), usual[code].asymmetry if code in usual else None)
    return found


@cache
def usual_ratios() -> dict[str, tuple[float, float]]:
    """By lobe, the ends of the usual range of its cortex over its white matter."""
    return {row["lobe"]: (float(row["low"]), float(row["high"])) for row in _rows(RATIOS_FILE)}


def lobe_ratios(voxels: Mapping[int, float]) -> dict[str, float]:
    """By lobe, cortex over white matter, both sides together, from numbers of voxels by code of regions."""
    found = {}
    for lobe in LOBES:
        cortex, white = (sum(voxels.get(code, 0.0) for code in codes_in_lobe(tissue, lobe)) for tissue in LOBAR_TISSUES)
        if cortex and white:
            found[lobe] = cortex / white
    return found
