"""How well do scans lie in the template's space?

    python benchmarks/template_space.py DATA [--write]

For each scan: Dice of its lobes with the template's after the affine by labels, after the whole deformation, and after
an affine of grey values by SimpleITK (mutual information, brains alone); the least Jacobian; processor seconds. For
pairs of contrasts of one patient on one day: how far apart they put the points of the template's brain. For the
held-out brains with manual labels: Dice of the manual gyri of one with those of another, which no step of
the registration sees.
``--write`` remakes the packaged labels of the template first, with the network, averaged over mirror images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from bidsseg import __version__
from bidsseg.cli.demo import template as template_scan
from bidsseg.evaluation.scores import reference_codes
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.deformation import moved, points_of, sampled
from bidsseg.imaging.grid import grid_of
from bidsseg.imaging.image import load
from bidsseg.imaging.preparation import prepare
from bidsseg.labels import N_GYRI, TISSUE, gyri, label_table
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model, load_model
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.pipeline import Answer, answer, segment
from bidsseg.segmentation.result import Segmentation
from bidsseg.segmentation.template import InTemplate, to_template
from bidsseg.segmentation.template_labels import TEMPLATE_FILE, template
from bidsseg.train.held_out import validation_cases

CEREBRAL = ("Frontal", "Parietal", "Temporal", "Occipital", "Insula")
PATIENTS = ("sub-06", "sub-08", "sub-09")
"Of ms-clinical-lesions, whose T1w lie on the FLAIR's grid."


def write(model: Model) -> None:
    """The labels of the template, as they are packaged."""
    found = segment(template_scan(), model, PredictOptions("cpu", gyri=True, mirror=True))
    path = Path(__file__).parents[1] / "bidsseg" / "tables" / TEMPLATE_FILE
    about = f"bidsseg {__version__}, weights {model.card.sha256}"
    volumes = {name: getattr(found, name) for name in ("tissue", "side", "parcel", "affine")}
    np.savez_compressed(path, made_with=np.array(about), **volumes)


def on_1mm(path: Path, model: Model) -> tuple[Answer, Segmentation]:
    found = answer(prepare(load(path), False), model, PredictOptions("cpu"))
    return found, decide_on_native_grid(
        found.probabilities, grid_of(found.volume.shape, found.grid.affine).along_scan, False
    )


def lobes_dice(points: torch.Tensor, segmentation: Segmentation) -> list[float]:
    """Of each cerebral lobe, where points (I, J, K, 3) of the scan stand for the template's voxels."""
    found, usual = InTemplate(points).labels(segmentation, "lobes"), template().labels("lobes")
    codes = [label.index for label in label_table("lobes") if any(part in label.name for part in CEREBRAL)]
    in_view = InTemplate(points).scan(np.ones(segmentation.tissue.shape, np.float32), segmentation.affine) > 0.5
    return [dice(found == code, (usual == code) & in_view) for code in codes]


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def grey_value_affine(conformed: Floats, segmentation: Segmentation) -> NDArray[np.float64]:
    """From the template's mm to the scan's, as SimpleITK finds it; RAS stands in for LPS on both sides."""
    fixed, moving = template_scan(), np.where(segmentation.tissue > 0, conformed, 0).astype(np.float32)
    target, source = (
        _sitk(data, affine) for data, affine in ((fixed.data, fixed.affine), (moving, segmentation.affine))
    )
    start = sitk.CenteredTransformInitializer(
        target, source, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsGradientDescent(1.0, 200, 1e-6, 10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetInitialTransform(start)
    found = method.Execute(target, source)
    columns = [found.TransformPoint(point) for point in ((0.0, 0.0, 0.0), *np.eye(3).tolist())]
    affine = np.eye(4)
    affine[:3, 3] = columns[0]
    affine[:3, :3] = np.array(columns[1:]).T - affine[:3, 3:]
    return affine


def _sitk(data: Floats, affine: NDArray[np.float64]) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).reshape(-1).tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def brain_points() -> torch.Tensor:
    """Every fourth voxel of the template's brain without the fluid around it, (1, 1, N, 3) mm."""
    tissue = template().tissue
    inside = torch.from_numpy((tissue > 0) & (tissue != TISSUE["csf"]))
    return points_of(tissue.shape, template().affine)[inside][::4][None, None]


def cases(data: Path) -> Iterator[tuple[str, Path]]:
    for patient in PATIENTS:
        for contrast in ("FLAIR", "T1w"):
            yield f"{patient} {contrast}", data / f"ms-clinical-lesions/{patient}/anat/{patient}_{contrast}.nii.gz"
    for session in sorted((data / "ms-clinical-bids").glob("sub-*/ses-*/anat")):
        for contrast in ("FLAIR", "T1w"):
            (path,) = session.glob(f"*_{contrast}.nii.gz")
            yield f"{path.name.removesuffix(f'_{contrast}.nii.gz')} {contrast}", path
    yield "whole-head T1w", data / "whole-head-t1" / "whole-head_T1w.nii.gz"


def against_the_template(data: Path, model: Model) -> Iterator[str]:
    """Scans in the template's space, and contrasts of one patient against each other."""
    all_points = points_of(template().tissue.shape, template().affine)
    there: dict[str, torch.Tensor] = {}
    means = []
    for name, path in cases(data):
        found, segmentation = on_1mm(path, model)
        began = time.process_time()
        deformation = to_template(segmentation)
        registered = time.process_time()
        inside = InTemplate.of(deformation)
        inside.labels(segmentation, "regions"), inside.scan(found.conformed, segmentation.affine)
        resampled = time.process_time()
        grey = moved(grey_value_affine(found.conformed, segmentation), all_points)
        rows = (moved(deformation.affine, all_points), inside.points, grey)
        mean = [float(np.mean(lobes_dice(points, segmentation))) for points in rows]
        means.append(mean)
        there[name] = deformation.to_scan(brain_points())
        yield (
            f"{name}: Dice of lobes {mean[1]:.3f}, by the affine alone {mean[0]:.3f}, by grey values {mean[2]:.3f}; "
            f"least Jacobian {deformation.least_jacobian():.2f}; {registered - began:.1f} s, "
            f"resampling {resampled - registered:.1f} s"
        )
    total = np.mean(means, 0)
    yield f"mean: {total[1]:.3f}, by the affine alone {total[0]:.3f}, by grey values {total[2]:.3f}"
    for name in there:
        if name.endswith("FLAIR"):
            apart = torch.linalg.norm(there[name] - there[name.replace("FLAIR", "T1w")], dim=-1)
            middle, most = (float(apart.quantile(share)) for share in (0.5, 0.95))
            yield f"{name} against T1w: {middle:.2f} mm apart (median), {most:.2f} mm (95 %)"


def manual_gyri(data: Path, model: Model) -> Iterator[str]:
    """Dice of manual gyri between brains in the template's space, after the affine and after all."""
    ways: dict[str, list[NDArray[np.uint16]]] = {"affine": [], "deformation": []}
    for case in validation_cases(data):
        found = segment(case.image, model, PredictOptions("cpu"))
        deformation = to_template(found)
        straight = replace(deformation, velocity=torch.zeros_like(deformation.velocity))
        manual = torch.from_numpy(reference_codes(case.anatomy, "gyri").astype(np.float32))[None]
        for how, one in zip(ways, (straight, deformation), strict=True):
            points = InTemplate.of(one).points
            ways[how].append(sampled(manual, case.image.affine, points, "nearest")[0].numpy().astype(np.uint16))
    codes = [code for gyrus in gyri() for code in (gyrus.index_left, gyrus.index_right)]
    for how, maps in ways.items():
        found_dice = [dice(a == code, b == code) for a, b in combinations(maps, 2) for code in codes]
        yield f"{N_GYRI * 2} manual gyri of {len(maps)} brains in pairs, {how}: Dice {np.mean(found_dice):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="anycontrast")
    parser.add_argument("--write", action="store_true", help="remake the packaged labels of the template first")
    options = parser.parse_args()
    model = load_model(options.model)
    if options.write:
        write(model)
    for table in (manual_gyri, against_the_template):
        print(f"\n{(table.__doc__ or '').splitlines()[0]}")
        for line in table(options.data, model):
            print(" ", line, flush=True)


if __name__ == "__main__":
    main()
