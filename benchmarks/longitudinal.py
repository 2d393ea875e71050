"""How much steadier volumes are when sessions are segmented together, and what is left of a true change.

    python benchmarks/longitudinal.py DATA [--times 2] [--threads 1] [--kind "1 mm T1w"] [--brains 3]

DATA is the folder that docs/training.md describes. Each validation scan is taken several times, as
``benchmarks/rescan.py`` does: in other positions, with other coil fields and other noise. Nothing has changed between
any two of these. As many scans are taken of the same head with its lateral ventricles widened by 10 %. Pairs of scans
are segmented each by itself and together. Prints, for either way, the median difference of volumes between scans
without a change, for each label scheme, and the change that is found of the ventricles.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from rescan import KINDS, Label, seen_as, volumes

from bidsseg.evaluation.repeats import taken, widened
from bidsseg.imaging.image import Image
from bidsseg.imaging.preparation import prepare
from bidsseg.labels import SCHEMES, TISSUE
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.fusion import answered_in, contrast_of, register
from bidsseg.segmentation.longitudinal import Session, segment_with
from bidsseg.segmentation.pipeline import answer, native
from bidsseg.train.held_out import Case, validation_cases

WIDER = 0.1
VENTRICLES = (("regions", 4), ("regions", 43))
Volumes = dict[Label, float]


@dataclass(frozen=True)
class Taken:
    """A scan, what the network says of it, and its volumes by itself."""

    session: Session
    alone: Volumes


@dataclass
class Found:
    """Differences in percent, of scans by themselves and together."""

    unchanged: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    "By way and scheme, of every label of every pair."
    ventricles: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    "Widened ones, by way."


def answered(scan: Image, threads: int) -> Taken:
    prepared = prepare(scan, True, threads)
    found = answer(prepared, load_model(), PredictOptions("cpu", threads, gyri=True))
    contrast = contrast_of(prepared, found.conformed, answered_in(found.probabilities))
    return Taken(Session(contrast, found.volume), volumes(native(found, gyri=True)))


def together(one: Taken, other: Taken, threads: int) -> tuple[Volumes, Volumes]:
    onward, back = register(one.session.contrast, other.session.contrast, threads)
    ways = ((one, other, onward), (other, one, back))
    first, second = (
        volumes(
            decide_on_native_grid(
                segment_with(own.session, [(rest.session, matrix)], threads), own.session.contrast.grid, gyri=True
            )
        )
        for own, rest, matrix in ways
    )
    return first, second


def ventricles(found: Volumes) -> float:
    return sum(found[label] for label in VENTRICLES)


def of_case(case: Case, kind: str, times: int, threads: int) -> Found:
    """All pairs of scans of one head."""
    rng = np.random.default_rng(sum(map(ord, case.name)))
    contrast, slice_mm = KINDS[kind]
    before = seen_as(case, contrast)
    wide = widened(before.data, case.anatomy.tissue == TISSUE["lateral-ventricle"], WIDER)
    after = replace(before, data=wide)
    found = Found()
    scans = [answered(taken(before, slice_mm, rng), threads) for _ in range(times)]
    for one, other in combinations(scans, 2):
        for way, pair in (("alone", (one.alone, other.alone)), ("together", together(one, other, threads))):
            for label in pair[0]:
                a, b = (of_scan[label] for of_scan in pair)
                if a + b:
                    found.unchanged[way, label[0]].append(200 * abs(a - b) / (a + b))
    for one in scans:
        other = answered(taken(after, slice_mm, rng), threads)
        for way, (a, b) in (("alone", (one.alone, other.alone)), ("together", together(one, other, threads))):
            found.ventricles[way].append(100 * (ventricles(b) / ventricles(a) - 1))
    print(kind, case.name, {way: [round(p, 1) for p in of_way] for way, of_way in found.ventricles.items()}, flush=True)
    return found


def report(kind: str, cases: list[Found]) -> None:
    print(f"\n{kind}: median difference between scans without a change, %")
    for scheme in ("brain", *SCHEMES):
        medians = {
            way: statistics.median(percent for found in cases for percent in found.unchanged[way, scheme])
            for way in ("alone", "together")
        }
        ratio = medians["together"] / medians["alone"]
        print(f"  {scheme}: alone {medians['alone']:.2f}, together {medians['together']:.2f} (x {ratio:.2f})")
    print(f"{kind}: change of ventricles that are {100 * WIDER:g} % wider, %")
    for way in ("alone", "together"):
        of_way = sorted(percent for found in cases for percent in found.ventricles[way])
        print(f"  {way}: median {statistics.median(of_way):.1f}, {of_way[0]:.1f} to {of_way[-1]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all, at once")
    parser.add_argument("--brains", type=int, default=3)
    args = parser.parse_args()
    cases = list(validation_cases(args.data))[: args.brains]
    kinds = args.kind or list(KINDS)
    with ProcessPoolExecutor(len(kinds)) as pool:
        running = {
            kind: [pool.submit(of_case, case, kind, args.times, args.threads) for case in cases] for kind in kinds
        }
        by_kind = {kind: [found.result() for found in of_kind] for kind, of_kind in running.items()}
    for kind, of_kind in by_kind.items():
        report(kind, of_kind)


if __name__ == "__main__":
    main()
