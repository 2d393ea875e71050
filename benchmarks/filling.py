"""Do region volumes of a scan with filled lesions equal those of the same brain without lesions?

    python benchmarks/filling.py DATA

DATA is the folder that ``brainseg-cli train`` takes. Lesions of patients are painted into the held-out brains: into
their real T1w scans, and into FLAIR-like renderings of their manual labels, at 1 mm and in thick slices. Each is
segmented without lesions, with them, and filled; printed is how far the volumes of regions are from those without
lesions. The filling is given the true mask and the segmentation of the scan with lesions, as it is in use.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from robustness import BLACK_HOLE, find, lesions_of, painted
from scipy import ndimage

from bidsseg.cli.demo import average_slices
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUE
from bidsseg.lesions.filling import fill_lesions
from bidsseg.network.weights import Model, load_model
from bidsseg.quality.reorientation import FLUID_KIND, GREY_KIND, WHITE_KIND, kind_of_tissue
from bidsseg.train.contrast import SEQUENCES
from bidsseg.train.data import load_lesions
from bidsseg.train.held_out import Case, validation_cases

SLICE_MM = 5
LOADS = (0.25, 0.5, 0.9)
"Ranks, among all patients by their lesion load, of those whose lesions are painted."
LEAST_ML = 1.0
"Of a region without lesions: in smaller ones, one voxel more is a per cent."
NOISE, FIELD = 0.02, 0.1
"Standard deviations of a rendering's noise and of the logarithm of its bias field."
Pair = tuple[str, Image, Image, Image]
"A name, the scan without and with lesions, and their mask."


def flair_like(case: Case, lesions: NDArray[np.bool_], seed: int) -> tuple[Image, Image]:
    """Two renderings of a brain's labels, without and with lesions: same noise, same bias field."""
    grey = SEQUENCES["FLAIR"]
    values = {GREY_KIND: grey["grey"], WHITE_KIND: grey["white"], FLUID_KIND: grey["fluid"]}
    levels = np.array([values.get(int(kind), 0.0) for kind in kind_of_tissue()], np.float32)
    rng = np.random.default_rng(seed)
    shape = case.anatomy.tissue.shape
    clean = ndimage.gaussian_filter(levels[case.anatomy.tissue], 0.6)
    coarse = rng.normal(0, FIELD, (3, 4, 3))
    field = np.exp(ndimage.zoom(coarse, np.array(shape) / coarse.shape, order=3, mode="nearest", grid_mode=True))
    noise = ndimage.gaussian_filter(rng.normal(0, 1, shape), 0.7)
    noise *= NOISE / noise.std()
    image = replace(case.image, data=clean)
    both = (image, painted(image, lesions, grey["lesion"]))
    before, after = (replace(one, data=(one.data * field + noise).astype(np.float32)) for one in both)
    return before, after


def in_slices(image: Image) -> Image:
    """The same in axial slices of ``SLICE_MM``."""
    affine = image.affine @ np.diag((1.0, 1.0, SLICE_MM, 1.0))
    affine[:3, 3] += image.affine[:3, 2] * (SLICE_MM - 1) / 2
    return Image(average_slices(image.data, SLICE_MM), affine)


def pairs(data: Path) -> Iterator[Pair]:
    by_load = sorted(load_lesions(data), key=lambda mask: int(mask.sum()))
    masks = [by_load[int(share * len(by_load))] for share in LOADS]
    for seed, (case, mask) in enumerate(zip(validation_cases(data), masks, strict=False)):
        lesions = lesions_of(case, mask)
        name, marked = (
            f"{case.name}, {lesions.sum() / 1000:.0f} mL",
            replace(case.image, data=lesions.astype(np.float32)),
        )
        hole = BLACK_HOLE * float(np.median(case.image.data[case.anatomy.tissue == TISSUE["white-matter"]]))
        yield f"{name}, T1w", case.image, painted(case.image, lesions, hole), marked
        before, after = flair_like(case, lesions, seed)
        yield f"{name}, FLAIR", before, after, marked
        yield f"{name}, FLAIR of {SLICE_MM} mm", in_slices(before), in_slices(after), in_slices(marked)


def differences(clean: Image, other: Image, model: Model) -> NDArray[np.float64]:
    """By how many per cent each region's volume differs, (regions,), weighed by nothing; regions of some size alone."""
    before, after = ([row.volume_mm3 for row in find(image, model).volumes("regions")] for image in (clean, other))
    one, two = np.array(before), np.array(after)
    large = one >= LEAST_ML * 1000
    apart: NDArray[np.float64] = 100 * np.abs(two[large] / one[large] - 1)
    return apart


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="anycontrast")
    options = parser.parse_args()
    model = load_model(options.model)
    print(f"Regions of at least {LEAST_ML:g} mL: difference from the scan without lesions, %: mean, largest")
    for name, clean, lesioned, mask in pairs(options.data):
        filled = fill_lesions(lesioned, mask, find(lesioned, model))
        cells = [f"{filled.left / (filled.left + filled.voxels):.0%} of the mask left"]
        for what, image in (("with lesions", lesioned), ("filled", filled.image)):
            apart = differences(clean, image, model)
            cells.append(f"{what} {apart.mean():.2f}, {apart.max():.1f}")
        print(f"  {name}: {'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
