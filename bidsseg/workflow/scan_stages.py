"""The steps of one scan, file in, file out: what a workflow's nodes call. No nipype here."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.errors import one_line_errors
from bidsseg.files import json_content, write_json
from bidsseg.imaging.grid import grid_of
from bidsseg.imaging.image import Image, load, save
from bidsseg.network.card import folder_of, read_card
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.quality.assessment import Assessment, assess, calibration_from, geometry
from bidsseg.quality.evidence import Evidence, as_sure_as, collect, evidence_from
from bidsseg.quality.judgement import examine
from bidsseg.segmentation.decision import FEW_FLOATS, SLAB_FLOATS, to_native
from bidsseg.segmentation.fusion import fuse
from bidsseg.segmentation.pipeline import answer
from bidsseg.segmentation.pipeline import prepare as prepare_voxels
from bidsseg.segmentation.probseg import write_probabilities
from bidsseg.segmentation.result import Segmentation
from bidsseg.workflow.derivatives import Result, refuse_to_replace_of, write_scan
from bidsseg.workflow.jobs import Job

EVIDENCE, WARNINGS = "evidence.json", "warnings.json"
VOLUMES = ("tissue", "side", "parcel", "confidence")


def prepare(job: dict[str, Any], folder: Path) -> str:
    """Read and prepare the scan; returns the path of the prepared image.

    Raises ``UserError`` first where the results would replace what bidsseg did not write.
    """
    with one_line_errors(job["scan"]):
        if not job["overwrite"]:
            refuse_to_replace_of(Job(**job).place, Job(**job).made_with())
        image = read(job["scan"], job["recipe"]["bias_correction"], job["threads"])
        write_json(folder / WARNINGS, {"Warnings": image.warnings})
        corrected = folder / "corrected.nii"
        save(corrected, image.data, image.affine, image)
        return str(corrected)


def read(scan: str, bias_correction: bool, threads: int) -> Image:
    """A scan, prepared for the network."""
    return prepare_voxels(load(scan), bias_correction, threads)


def segment(job: dict[str, Any], corrected: str, folder: Path) -> str:
    """Segment the corrected image in all spaces asked for; returns the path of the voxels' anatomy (.npz)."""
    with one_line_errors(job["scan"]):
        recipe = job["recipe"]
        gyri = "gyri" in recipe["schemes"]
        scratch = folder if job["low_memory"] else None
        options = PredictOptions(job["device"], job["threads"], gyri, recipe["mirror"], scratch)
        floats = FEW_FLOATS if job["low_memory"] else SLAB_FLOATS
        image, model = load(corrected), load_model(job["model"])
        of_scan = answer(image, model, options)
        evidence = examine(of_scan, model, options)
        volume, grid, found = of_scan.volume, of_scan.grid, of_scan.probabilities
        del of_scan  # or fusing would hold one answer more
        if job["partners"]:
            others = [read(path, recipe["bias_correction"], job["threads"]) for path in job["partners"]]
            found = fuse(image, found, grid, others, model, options)
            evidence = as_sure_as(collect(found, volume), evidence)
        grids = {"orig": grid, "1mm": grid_of(volume.shape, grid.affine)}
        spaces = dict.fromkeys(("orig", *recipe["spaces"]))
        answers = {space: to_native(found, grids[space], gyri, floats) for space in spaces}
        for space, scheme in product(recipe["spaces"], recipe["schemes"]) if recipe["probseg"] else ():
            write_probabilities(probabilities_file(folder, space, scheme), found, grids[space], scheme, floats)
        write_json(folder / EVIDENCE, evidence.as_json())
        path = folder / "segmentation.npz"
        save_segmentations(path, answers)
        return str(path)


def write(job: dict[str, Any], corrected: str, segmentation: str) -> str:
    """Write all derivatives; returns the path of the file that marks the scan as complete."""
    with one_line_errors(job["scan"]):
        answers = load_segmentations(Path(segmentation))
        warnings = json_content(Path(corrected).with_name(WARNINGS))["Warnings"]
        image = replace(load(job["scan"]), warnings=tuple(warnings))
        smooth = load(corrected)
        work = Job(**job)
        corrected_image = Image(smooth.data, image.affine, image.header)
        judged = judge(Path(segmentation).with_name(EVIDENCE), image, work.model)
        recipe = work.made_with()
        folder = Path(segmentation).parent
        wanted = list(product(recipe.spaces, recipe.schemes)) if recipe.probseg else []
        probabilities: dict[tuple[str, str], Path] = {(a, b): probabilities_file(folder, a, b) for a, b in wanted}
        if not work.overwrite:  # they may have been written meanwhile
            refuse_to_replace_of(work.place, recipe)
        result = Result(image, corrected_image, answers["orig"], answers.get("1mm"), probabilities, judged)
        return str(write_scan(work.place, recipe, result, max(1, work.threads)))


def probabilities_file(folder: Path, space: str, scheme: str) -> Path:
    return folder / f"probabilities-{space}-{scheme}.npy"


def judge(evidence: Path, image: Image, model: str) -> tuple[Evidence, Assessment]:
    """What the stored evidence says, by the calibration in the model's card."""
    found = evidence_from(json_content(evidence))
    return found, assess(found, geometry(image), calibration_from(read_card(folder_of(model)).quality))


def save_segmentations(path: Path, answers: dict[str, Segmentation]) -> None:
    """Segmentations by name, in one .npz."""
    arrays: dict[str, Any] = {}
    for name, segmentation in answers.items():
        arrays |= {f"{name}_{volume}": getattr(segmentation, volume) for volume in VOLUMES}
        arrays |= {f"{name}_affine": segmentation.affine}
        arrays |= {f"{name}_rest": np.array([segmentation.has_gyri, segmentation.edge_fraction])}
    np.savez(path, **arrays)


def load_segmentations(path: Path) -> dict[str, Segmentation]:
    """What ``save_segmentations`` wrote."""
    with np.load(path) as arrays:
        names = sorted({key.partition("_")[0] for key in arrays.files})
        return {name: _segmentation_from(arrays, name) for name in names}


def _segmentation_from(arrays: Any, name: str) -> Segmentation:
    tissue, side, parcel, confidence = (arrays[f"{name}_{volume}"] for volume in VOLUMES)
    has_gyri, edge = arrays[f"{name}_rest"]
    return Segmentation(tissue, side, parcel, confidence, arrays[f"{name}_affine"], bool(has_gyri), float(edge))
