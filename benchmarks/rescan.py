"""How much volumes differ when a person is scanned again and nothing has changed.

    python benchmarks/rescan.py DATA [--times 3] [--threads 1] [--write]

DATA is the folder that docs/training.md describes. Each validation scan is taken several times: the head turned by up
to 5 degrees about each axis and shifted by up to 5 mm, another coil field, other noise; as it is at 1 mm, and
recoloured like FLAIR in axial slices of 5 mm. Every pair of these scans of one person gives a difference for each
label. Prints their medians over pairs, people and sides; ``--write`` puts them into
``bidsseg/tables/rescan_errors.tsv``, which the tables of volumes over time read. Another scanner, field strength or
protocol adds to these differences.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

import bidsseg
from bidsseg.evaluation.repeats import taken
from bidsseg.evaluation.scores import recolour
from bidsseg.files import table, write_text
from bidsseg.imaging.image import Image
from bidsseg.labels import SCHEMES, is_fluid, other_sides
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.segmentation.pipeline import segment
from bidsseg.segmentation.result import Segmentation
from bidsseg.train.held_out import Case, validation_cases

KINDS = {"1 mm T1w": ("as-is", 1), "5 mm FLAIR": ("flair", 5)}
"Contrast, and slices in mm."
Label = tuple[str, int]
TARGET = Path(bidsseg.__file__).parent / "tables" / "rescan_errors.tsv"


def seen_as(case: Case, contrast: str) -> Image:
    """The validation scan as it is, or recoloured."""
    return replace(case.image, data=recolour(case, contrast)) if contrast != "as-is" else case.image


def volumes(found: Segmentation) -> dict[Label, float]:
    """mm3 of every label; of the brain without fluid under ``("brain", 0)``."""
    by_label = {(scheme, row.label.index): row.volume_mm3 for scheme in SCHEMES for row in found.volumes(scheme)}
    solid = sum(mm3 for (scheme, index), mm3 in by_label.items() if scheme == "regions" and not is_fluid(scheme, index))
    return {("brain", 0): solid, **by_label}


def differences(case: Case, kind: str, times: int, threads: int) -> Iterator[tuple[Label, float]]:
    """Of every label in every pair of scans of one person, in percent of their mean."""
    rng = np.random.default_rng(sum(map(ord, case.name)))
    model, options = load_model(), PredictOptions("cpu", threads, gyri=True)
    contrast, slice_mm = KINDS[kind]
    scans = (taken(seen_as(case, contrast), slice_mm, rng) for _ in range(times))
    found = [volumes(segment(scan, model, options, bias_correction=True)) for scan in scans]
    for one, other in combinations(found, 2):
        for label in one:
            if one[label] + other[label]:
                yield label, 200 * abs(one[label] - other[label]) / (one[label] + other[label])


def errors(data: Path, kind: str, times: int, threads: int) -> dict[Label, float]:
    """Median difference of each label, the two sides together."""
    left = {scheme: {max(pair): min(pair) for pair in other_sides(scheme).items()} for scheme in SCHEMES}
    of_both: dict[Label, list[float]] = defaultdict(list)
    for case in validation_cases(data):
        for (scheme, index), percent in differences(case, kind, times, threads):
            of_both[scheme, left.get(scheme, {}).get(index, index)].append(percent)
        print(f"{kind}: {case.name} done", flush=True)
    medians = {label: statistics.median(found) for label, found in of_both.items()}
    for scheme, sides in left.items():
        medians |= {(scheme, b): medians[scheme, a] for b, a in sides.items() if (scheme, a) in medians}
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each kind of scan; both are tried at once")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    with ProcessPoolExecutor(len(KINDS)) as pool:
        running = {kind: pool.submit(errors, args.data, kind, args.times, args.threads) for kind in KINDS}
        by_kind = {kind: found.result() for kind, found in running.items()}
    thin, thick = by_kind.values()
    rows = [(*label, f"{thin[label]:.2f}", f"{thick[label]:.2f}") for label in sorted(thin) if label in thick]
    text = table(("scheme", "index", "thin_percent", "thick_percent"), rows)
    print(text)
    for scheme in ("brain", *SCHEMES):
        of_scheme = [[found[label] for label in found if label[0] == scheme] for found in by_kind.values()]
        print(scheme, *(f"{kind}: {statistics.median(m):.2f} %" for kind, m in zip(KINDS, of_scheme, strict=True)))
    if args.write:
        write_text(TARGET, text)


if __name__ == "__main__":
    main()
