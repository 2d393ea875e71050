"""What the card doesn't show: what scalps, contrasts, slices, lesions, heads and frames do to labels and volumes.

    python benchmarks/robustness.py DATA [--card] [--only NUMBER...]

DATA is the folder that ``brainseg-cli train`` takes, with ``ms-clinical-bids``, ``ms-clinical-lesions`` and
``whole-head-t1`` in it for the tables of real heads.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bidsseg.evaluation.scores import compare, reference_codes
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.image import Image, load
from bidsseg.labels import TISSUE
from bidsseg.network.card import folder_of, set_about
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model, load_model
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.pipeline import Answer, answer, segment
from bidsseg.segmentation.result import Segmentation
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.contrast import render
from bidsseg.train.data import (
    Subject,
    brain_box,
    brain_folders,
    head_maps,
    into_head,
    load_brain,
    load_head,
    load_lesions,
    load_whole_head,
)
from bidsseg.train.held_out import Case, validation_cases
from bidsseg.train.options import SynthesisSettings
from bidsseg.train.synthesis import MNI_BRAIN_BOX, Material, draw

CONTRASTS = ("T1w", "T2w", "FLAIR")
BLACK_HOLE = 0.65
"Grey value of a painted lesion on T1w, against normal white matter."
UPRIGHT = SynthesisSettings((192, 224, 192), 0, 0, 0, 0, p_synthetic=1, p_head=1, p_lesions=0, p_slices=0, p_cropped=0)
LOBES = (("frontal", 1301), ("parietal", 1306), ("temporal", 1305), ("occipital", 1304))
"Lobes and the codes of their left cortex; 1000 more are the right side, 1900 more the white matter."
SCALPS = (0.3, 0.5, 2.0, 3.0)
"Brightness of everything outside the brain, against what it is."
MARKER_SHARE = 0.03
"Share of the field of view that a bright marker fills."
NECK_MM = 100
"How much of the head and neck around a brain is in view, as far as the head's map goes."
TILTS = ((0, 0), (0, 17), (0, 20), (0, 45), (1, 45), (2, 45))
"Axes (sagittal, coronal, axial ones) and degrees by which slices are tilted."
THICKNESSES = (1, 5)
"Of tilted slices, mm."
TILTED_BRAINS = 2
CSF = 24
AXES = ("left-right", "back-front", "bottom-top")
AROUND_MM = 10
"Field of view around the tilted brain."
VENTRICLES = [TISSUE["lateral-ventricle"], TISSUE["inferior-lateral-ventricle"]]


def find(image: Image, model: Model) -> Segmentation:
    return segment(image, model, PredictOptions("cpu"))


def heads(data: Path, contrast: str) -> list[Path]:
    """The real scans of whole heads in this contrast."""
    folders = (data / "ms-clinical-bids", data / "ms-clinical-lesions", data / "whole-head-t1")
    return sorted(path for folder in folders for path in folder.rglob(f"*_{contrast}.nii.gz"))


def other_scalps(image: Image, tissue: NDArray[np.uint8]) -> Iterator[tuple[str, Image]]:
    """The scan with what lies outside its brain changed, which should change no label inside."""
    data, brain = image.data, tissue > 0
    top = np.percentile(data[(tissue > 0) & (tissue != TISSUE["csf"])], 99.5)
    yield "clipped", replace(image, data=np.minimum(data, top).astype(np.float32))
    yield "stripped", replace(image, data=np.where(brain, data, 0).astype(np.float32))
    for factor in SCALPS:
        yield f"scalp x {factor:g}", replace(image, data=np.where(brain, data, factor * data).astype(np.float32))
    marked = data.copy()
    sides = [max(1, round(n * MARKER_SHARE ** (1 / 2))) for n in data.shape[:2]]
    marked[: sides[0], : sides[1]] = 3 * data.max()
    yield "marker", replace(image, data=np.where(brain, data, marked).astype(np.float32))


def whatever_the_scalp(data: Path, model: Model) -> Iterator[str]:
    """Share of the brain's voxels that keep their region when the scalp changes."""
    lowest = 1.0
    for path in heads(data, "T1w"):
        image = load(path)
        found = find(image, model)
        regions, inside = found.labels("regions"), (found.tissue > 0) & (found.tissue != TISSUE["csf"])
        kept = {
            name: float((find(scan, model).labels("regions") == regions)[inside].mean())
            for name, scan in other_scalps(image, found.tissue)
        }
        lowest = min(lowest, *kept.values())
        yield f"{path.name.split('.')[0]}: " + ", ".join(f"{name} {share:.3f}" for name, share in kept.items())
    yield f"lowest: {lowest:.3f}"


def grey_to_white(codes: NDArray[np.uint16]) -> dict[str, float]:
    """Volume of each lobe's cortex over that of its white matter, both sides together."""
    count = np.bincount(codes.reshape(-1), minlength=5000)
    both = {name: (count[code] + count[code + 1000], count[code + 1900] + count[code + 2900]) for name, code in LOBES}
    return {name: float(grey / white) if white else float("inf") for name, (grey, white) in both.items()}


def grey_and_white(data: Path, model: Model) -> Iterator[str]:
    """Each lobe's grey over white matter in every real head, against the range of all manual labels."""
    folders = [folder for held_out in (False, True) for folder in brain_folders(data, held_out)]
    manual = [grey_to_white(reference_codes(load_brain(folder)[0], "regions")) for folder in folders]
    usual = {name: (min(m[name] for m in manual), max(m[name] for m in manual)) for name, _ in LOBES}
    yield f"manual, {len(manual)} brains: " + ", ".join(f"{name} {a:.2f}-{b:.2f}" for name, (a, b) in usual.items())
    for contrast in CONTRASTS:
        for path in heads(data, contrast):
            found = grey_to_white(find(load(path), model).labels("regions"))
            cells = (
                f"{name} {x:.2f}{'' if usual[name][0] <= x <= usual[name][1] else ' !'}" for name, x in found.items()
            )
            yield f"{path.name.split('.')[0]}: " + ", ".join(cells)


def lesions_of(case: Case, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """A patient's lesions, fitted by the brains' boxes, in the scan's white matter; (I, J, K)."""
    box = brain_box(case.anatomy.tissue)
    scale = (MNI_BRAIN_BOX[1] - MNI_BRAIN_BOX[0]) / (box[1] - box[0])
    places = [
        np.clip(np.rint(MNI_BRAIN_BOX[0, d] + (np.arange(n) - box[0, d]) * scale[d]), 0, mask.shape[d] - 1).astype(int)
        for d, n in enumerate(case.image.data.shape)
    ]
    lesions: NDArray[np.bool_] = mask[np.ix_(*places)].astype(bool) & (case.anatomy.tissue == TISSUE["white-matter"])
    return lesions


def with_lesions(case: Case, mask: NDArray[np.uint8]) -> Image:
    """The scan with a patient's lesions painted into its white matter."""
    white = case.anatomy.tissue == TISSUE["white-matter"]
    level = BLACK_HOLE * float(np.median(case.image.data[white]))
    return painted(case.image, lesions_of(case, mask), level)


def painted(image: Image, lesions: NDArray[np.bool_], level: float) -> Image:
    """A scan with this grey value in lesions, softly edged."""
    amount = ndimage.gaussian_filter(lesions.astype(np.float32), 0.6)
    data: Floats = (image.data * (1 - amount) + level * amount).astype(np.float32)
    return replace(image, data=data)


def under_lesions(data: Path, model: Model) -> Iterator[str]:
    """Dice between the regions of a scan and of the same scan with the largest lesion loads painted in."""
    masks = sorted(load_lesions(data), key=lambda mask: -int(mask.sum()))[:3]
    for case, mask in zip(validation_cases(data), masks, strict=False):
        scans = (case.image, with_lesions(case, mask))
        before, after = (find(scan, model).labels("regions") for scan in scans)
        dice = [score.dice for score in compare(before, after, case.image, "regions")]
        ml = int(mask.sum()) / 1000
        yield f"{case.name}, {ml:.0f} ml of lesions: mean Dice {np.mean(dice):.4f}, lowest {min(dice):.3f}"


def tilted(case: Case, axis: int, degrees: float, slice_mm: int) -> Image:
    """The scan in axial slices, tilted about an axis of RAS, that cover the brain; its header says so.

    Interpolated by cubic splines, the mean of as many planes as a slice is mm thick.
    """
    data, affine = case.image.data, np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.eye(3)[axis]).as_matrix()
    points = np.argwhere(data > 0) @ case.image.affine[:3, :3].T + case.image.affine[:3, 3]
    along = points @ affine[:3, :3]
    low, high = along.min(0) - AROUND_MM, along.max(0) + AROUND_MM
    shape = np.ceil(high - low).astype(int)
    shape[2] = shape[2] // slice_mm * slice_mm
    affine[:3, 3] = affine[:3, :3] @ (low + 0.5)
    matrix = np.linalg.inv(case.image.affine) @ affine
    planes = ndimage.affine_transform(data, matrix[:3, :3], matrix[:3, 3], tuple(shape), order=3)
    slices: Floats = planes.reshape(*shape[:2], -1, slice_mm).mean(-1)
    affine[:3, 3] += affine[:3, 2] * (slice_mm - 1) / 2
    affine[:3, 2] *= slice_mm
    return replace(case.image, data=np.clip(slices, 0, None), affine=affine)


def on_grid_of(found: Answer, image: Image) -> Segmentation:
    """What was found in one scan, decided on the grid of another that lies in the same place."""
    grid = image.grid.along_scan
    turn = np.linalg.inv(grid.affine) @ found.grid.affine
    return decide_on_native_grid(found.probabilities, replace(grid, shape=found.grid.shape, turn=turn), gyri=False)


def in_tilted_slices(data: Path, model: Model) -> Iterator[str]:
    """Dice between the regions of a tilted scan and those of the scan as it was, both on the tilted grid."""
    dice: dict[str, list[float]] = {}
    for case in islice(validation_cases(data), TILTED_BRAINS):
        upright = answer(case.image, model, PredictOptions("cpu"))
        for (axis, degrees), slice_mm in product(TILTS, THICKNESSES):
            image = tilted(case, axis, degrees, slice_mm)
            before, after = (each.labels("regions") for each in (on_grid_of(upright, image), find(image, model)))
            name = f"{slice_mm} mm slices, {f'{degrees} deg about {AXES[axis]}' if degrees else 'not tilted'}"
            scores = [score.dice for score in compare(before, after, image, "regions") if score.index != CSF]
            dice.setdefault(name, []).append(float(np.mean(scores)))
    for name, values in dice.items():
        yield f"{name}: mean Dice {np.mean(values):.3f}, lowest of {len(values)} scans {min(values):.3f}"


def in_other_heads(data: Path, model: Model) -> Iterator[str]:
    """Dice of held-out brains amid the head and neck of others, against manual labels."""
    hosts = head_maps(data)[2::3]
    found = []
    for number, folder in enumerate(brain_folders(data, validation=True)):
        anatomy, scan = load_brain(folder)
        subject = into_head(anatomy, scan, load_whole_head(hosts[number]), folder.name, NECK_MM)
        packed, brain = torch.from_numpy(subject.packed), torch.from_numpy(np.asarray(subject.image, np.float32))
        head = render(packed, brain, p_recolour=0, difficulty=0, chance=Chance.of(number)).numpy()
        image = Image(head, np.eye(4))
        reference = np.pad(reference_codes(anatomy, "regions"), NECK_MM)
        scores = compare(reference, find(image, model).labels("regions"), image, "regions")
        found.append(np.mean([score.dice for score in scores]))
        yield f"{folder.name} in {hosts[number].name.split('.')[0]}: mean Dice {found[-1]:.3f}"
    yield f"mean: {np.mean(found):.3f}"


def on_rendered_heads(data: Path, model: Model) -> Iterator[str]:
    """Volumes of rendered head maps, those with the largest ventricles first, against the maps."""
    heads = [load_head(path) for path in head_maps(data)]
    heads.sort(key=lambda head: -float(np.isin(head.packed & 31, VENTRICLES).mean()))
    errors = []
    for number, head in enumerate(heads[:6]):
        tissue, found = rendered(head, model, number)
        brain, ventricles = (
            100 * (float(mask(found).sum()) / float(mask(tissue).sum()) - 1)
            for mask in (lambda t: t > 0, lambda t: np.isin(t, VENTRICLES))
        )
        errors.append((brain, ventricles))
        ml = np.isin(tissue, VENTRICLES).sum() / 1000
        yield f"{head.name}, ventricles {ml:.0f} ml: intracranial {brain:+.1f} %, ventricles {ventricles:+.1f} %"
    mean = np.mean(errors, 0)
    yield f"mean: intracranial {mean[0]:+.1f} %, ventricles {mean[1]:+.1f} %"


def rendered(head: Subject, model: Model, seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """True and found tissue of one random rendering."""
    sample = draw(Material.on(CPU, [head], []), UPRIGHT, 1.0, Chance.of(seed))
    image = Image(sample.image.float().numpy(), np.eye(4))
    return (sample.packed & 31).numpy(), find(image, model).tissue


def in_frames(data: Path, model: Model) -> Iterator[str]:
    """Share of the brain's voxels that keep their region, with N4, when a frame or absurd values are added.

    Frames are held against one of the scan's own darkest value: another field of view alone moves the 1 mm grid.
    """
    for path in (heads(data, "FLAIR")[-1], heads(data, "T1w")[0]):
        image = load(path)

        def regions(changed: NDArray[np.float32]) -> NDArray[np.uint16]:
            scan = replace(image, data=changed)  # noqa: B023, called before the next scan
            return segment(scan, model, PredictOptions("cpu"), bias_correction=True).labels("regions")

        darkest, brightest = float(image.data.min()), float(image.data.max())
        frame = [(n // 10, n // 10) for n in image.data.shape[:2]] + [(0, 0)]
        values = {
            "white": brightest,
            "grey": (darkest + brightest) / 2,
            "a fifth of the range below air": darkest - (brightest - darkest) / 5,
            "-32768": -32768,
            "65535": 65535,
        }
        sound, framed = regions(image.data), regions(np.pad(image.data, frame, constant_values=darkest))
        kept = {
            f"frame of {name}": (regions(np.pad(image.data, frame, constant_values=value)) == framed)[framed > 0]
            for name, value in values.items()
        }
        hit = np.random.default_rng(0).random(image.data.shape)
        for share, value in product((0.01, 0.05), (-32768, 65535)):
            spoilt = np.where(hit < share, np.float32(value), image.data)
            kept[f"{share:.0%} at {value}"] = (regions(spoilt) == sound)[sound > 0]
        yield f"{path.name.split('.')[0]}: " + ", ".join(f"{name} {same.mean():.3f}" for name, same in kept.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="anycontrast")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the tables, from 1")
    parser.add_argument("--card", action="store_true", help="write the tables into the model's card")
    options = parser.parse_args()
    model = load_model(options.model)
    found: dict[str, list[str]] = {}
    tables = (
        ("Regions of real heads when the scalp changes", whatever_the_scalp),
        ("Grey over white matter of each lobe in real heads (! outside the range of manual labels)", grey_and_white),
        ("Regions before and after painting lesions", under_lesions),
        ("Regions of held-out brains in other heads", in_other_heads),
        ("Volumes of rendered heads (these maps were trained on)", on_rendered_heads),
        ("Regions of tilted slices against those of the upright scan", in_tilted_slices),
        ("Regions of real heads with a frame around them (a third of the image), or with absurd values", in_frames),
    )
    for title, table in (tables[n - 1] for n in options.only or range(1, 1 + len(tables))):
        print(f"\n{title}")
        found[title] = []
        for line in table(options.data, model):
            print(" ", line, flush=True)
            found[title].append(" ".join(line.split()))
    if options.card:
        set_about(folder_of(options.model), "robustness", {**model.card.about.get("robustness", {}), **found})


if __name__ == "__main__":
    main()
