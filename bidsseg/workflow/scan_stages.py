"""The stages of one scan, from files to files: the functions of the workflow's nodes. No nipype here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg import __version__
from bidsseg.bids.outputs import OutputSettings
from bidsseg.errors import UserError, one_line_errors
from bidsseg.files import json_content, write_json
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.blocks import blocks_along
from bidsseg.imaging.grid import FEW_FLOATS, SLAB_FLOATS, grid_of
from bidsseg.imaging.image import Image, load, save
from bidsseg.imaging.preparation import prepare
from bidsseg.labels import SCHEMES, Scheme
from bidsseg.lesions.finding import FoundLesions, find_lesions
from bidsseg.network.card import folder_of, read_card
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_config import LoadErrors, Thresholds
from bidsseg.network.lesion_model import load_lesion_model
from bidsseg.network.lesion_net import Contrast as LesionContrast
from bidsseg.network.probabilities import Probabilities
from bidsseg.network.weights import load_model
from bidsseg.quality.agreement import agreement, agreement_file
from bidsseg.quality.assessment import Assessment, assess
from bidsseg.quality.coverage import field_of_view
from bidsseg.quality.evidence import Evidence, as_sure_as, collect, evidence_from
from bidsseg.quality.expectation import calibration_from
from bidsseg.quality.judgement import examine
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.fusion import Answered, Contrast, Listed, Matrix, answered_in, contrast_of, fuse, register
from bidsseg.segmentation.lesion_probability import LesionAnswer, lesion_answer
from bidsseg.segmentation.pipeline import Answer, answer
from bidsseg.segmentation.probseg import write_probabilities
from bidsseg.segmentation.result import Segmentation
from bidsseg.spaces import TEMPLATE
from bidsseg.workflow.derivatives import ScanResult, refuse_to_replace_of, write_scan
from bidsseg.workflow.jobs import Job

EVIDENCE, WARNINGS, SEGMENTATION = "evidence.json", "warnings.json", "segmentation.npz"
CONFORMED, LESION_ANSWER = "conformed.npy", "lesions.npz"
AGREEMENT = "agreement.json"
ANSWER, VOLUME, TABLE, PLACES = "answer.json", "answer-volume.npy", "answer-{}-table.npy", "answer-{}-places.npy"
FUSED_AT_ONCE = 2
"Contrasts of a session; each takes the memory of a brain's probabilities."
VOLUMES = ("tissue", "side", "parcel", "confidence")


def bias_stage(job: dict[str, Any], folder: Path) -> str:
    """Read and prepare the scan; returns the path of the prepared image.

    Raises ``UserError`` first where the results would replace what bidsseg did not write.
    """
    with one_line_errors(job["scan"]):
        if not job["overwrite"]:
            refuse_to_replace_of(Job(**job).outputs, Job(**job).made_with())
        image = read(job["scan"], job["recipe"]["bias_correction"], job["threads"])
        write_json(folder / WARNINGS, {"Warnings": image.warnings})
        corrected = folder / "corrected.nii"
        save(corrected, image.data, image.affine, image)
        return str(corrected)


def read(scan: str, bias_correction: bool, threads: int) -> Image:
    """A scan, prepared for the network."""
    return prepare(load(scan), bias_correction, threads)


def segmentation_stage(job: dict[str, Any], corrected: str, folder: Path) -> str:
    """Segment the corrected image in all spaces asked for; returns the path of the voxels' anatomy (.npz)."""
    with one_line_errors(job["scan"]):
        recipe = job["recipe"]
        scratch = folder if job["low_memory"] else None
        options = PredictOptions(job["device"], job["threads"], "gyri" in recipe["schemes"], recipe["mirror"], scratch)
        model = load_model(job["model"])
        of_scan = answer(load(corrected), model, options)
        evidence = examine(of_scan, model, options)
        if job["keep_answer"]:
            keep_answer(folder, corrected, of_scan)
        if Job(**job).finds_lesions:
            keep_lesions(folder, lesion_answer(of_scan, load_lesion_model(), job["device"]))
        return _decide(job, of_scan, evidence, folder)


def fuse_session(jobs: Sequence[dict[str, Any]], answers: Mapping[str, str], folder: Path) -> str:
    """Average the answers to the contrasts of a session, for each of the jobs; returns the folder with its own folders.

    ``answers`` has, by scan, what ``segmentation_stage`` returned. Each pair of contrasts is registered once, which
    also tells how far their own labels agree. Much of the rest keeps one thread busy, so that several jobs share the
    threads.
    """
    with one_line_errors(jobs[0]["scan"]):
        threads = max(1, jobs[0]["threads"])
        contrasts = {scan: kept_contrast(Path(path).parent) for scan, path in answers.items()}
        transforms: dict[tuple[str, str], Matrix] = {}
        for own, other in ((job["scan"], other) for job in jobs for other in job["partners"]):
            if (own, other) not in transforms:
                both = register(contrasts[own], contrasts[other], threads)
                transforms[own, other], transforms[other, own] = both
        at_once = min(threads, len(jobs), FUSED_AT_ONCE)

        def decide_fused(job: dict[str, Any]) -> None:
            own = job["scan"]
            others = [(contrasts[other], transforms[own, other]) for other in job["partners"]]
            found = fuse(contrasts[own], others, threads // at_once)
            source = Path(answers[own]).parent
            decide_with_others(job, contrasts[own], np.load(source / VOLUME), found, source, fused_folder(folder, job))

        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(decide_fused, jobs))
        keep_agreements(jobs, answers, transforms, folder)
        return str(folder)


def keep_agreements(
    jobs: Sequence[dict[str, Any]],
    answers: Mapping[str, str],
    transforms: Mapping[tuple[str, str], Matrix],
    folder: Path,
) -> None:
    """Keep, in the folder of each job, how far its scan's own labels agree with those of its partners.

    ``transforms``, 4x4, take RAS mm of the first scan to RAS mm of the second.
    """
    scheme = next(scheme for scheme in SCHEMES if scheme in jobs[0]["recipe"]["schemes"])  # the coarsest
    labels = {scan: kept_labels(Path(path), scheme) for scan, path in answers.items()}
    for job in jobs:
        own, work = job["scan"], Job(**job)
        by_other = {
            work.alone(other).outputs.scan.stem: agreement(labels[own], labels[other], transforms[own, other])
            for other in work.partners
        }
        write_json(fused_folder(folder, job) / AGREEMENT, agreement_file(by_other, {"SoftwareVersion": __version__}))


def kept_labels(path: Path, scheme: Scheme) -> Image:
    """The labels that ``save_segmentations`` kept on the scan's own grid."""
    with np.load(path) as arrays:
        native = _segmentation_from(arrays, "orig")
    return Image(native.labels(scheme).astype(np.float32), native.affine)


def fused_output_stage(job: dict[str, Any], corrected: str, fused: str) -> str:
    """``output_stage`` of a fused scan; also says how far the scan's own labels agree with those of its partners.

    The derivatives of the scan by itself have to be there, since writing them removes what was known of this.
    """
    folder = fused_folder(Path(fused), job)
    written = output_stage(job, corrected, str(folder / SEGMENTATION))
    write_json(Job(**job).alone(job["scan"]).outputs.agreement, json_content(folder / AGREEMENT))
    return written


def fused_folder(folder: Path, job: dict[str, Any]) -> Path:
    """Where ``fuse_session`` leaves what it found for a job."""
    return folder / Job(**job).outputs.scan.stem


def decide_with_others(
    job: dict[str, Any], own: Contrast, volume: Floats, found: Probabilities, source: Path, target: Path
) -> str:
    """What ``_decide`` does, for a scan's probabilities that those of others had a part in, in a folder of their own.

    ``source`` holds the evidence of its own answer, which tells how sure the network was.
    """
    evidence = as_sure_as(collect(found, volume, own.grid, how_sure=False), read_evidence(source))
    target.mkdir(exist_ok=True)
    return _decide(job, Answer(own.image.data, volume, own.grid, found), evidence, target)


def _decide(job: dict[str, Any], answered: Answer, evidence: Evidence, folder: Path) -> str:
    """Decide all voxels, in all spaces asked for, and keep them, and the evidence, in a folder; returns their path."""
    recipe, found, grid = job["recipe"], answered.probabilities, answered.grid
    floats = FEW_FLOATS if job["low_memory"] else SLAB_FLOATS
    grids = {"orig": grid, "1mm": grid_of(answered.volume.shape, grid.affine).along_scan}
    asked = Job(**job).made_with().grids
    spaces = dict.fromkeys(("orig", *asked, *(["1mm"] if TEMPLATE in recipe["spaces"] else [])))
    decided = {
        space: decide_on_native_grid(found, grids[space], "gyri" in recipe["schemes"], floats) for space in spaces
    }
    for space, scheme in product(asked, recipe["schemes"]) if recipe["probseg"] else ():
        write_probabilities(probabilities_file(folder, space, scheme), found, grids[space], scheme, floats)
    write_json(folder / EVIDENCE, evidence.as_json())
    np.save(folder / CONFORMED, answered.conformed)
    path = folder / SEGMENTATION
    save_segmentations(path, decided)
    return str(path)


def keep_answer(folder: Path, corrected: str, answered: Answer) -> None:
    """Keep what the network said of a corrected image in files of a folder, beside its ``CONFORMED``."""

    listed = answered_in(answered.probabilities)
    for name, kind in (("voxels", listed.voxels), ("blocks", listed.blocks)):
        np.save(folder / PLACES.format(name), kind.places)
        np.save(folder / TABLE.format(name), kind.table)
    np.save(folder / VOLUME, answered.volume)
    write_json(folder / ANSWER, {"corrected": corrected, "origin": listed.origin, "shape": listed.voxels.shape})


def kept_contrast(folder: Path) -> Contrast:
    """What ``keep_answer`` kept; the probabilities stay in their files until they are used."""
    about = json_content(folder / ANSWER)
    origin, shape = (tuple(about[name]) for name in ("origin", "shape"))
    voxels, blocks = (
        Listed(box, np.load(folder / PLACES.format(name)), np.load(folder / TABLE.format(name), mmap_mode="c"))
        for name, box in (("voxels", shape), ("blocks", blocks_along(shape)))
    )
    return contrast_of(load(about["corrected"]), np.load(folder / CONFORMED), Answered(origin, voxels, blocks))


def keep_lesions(folder: Path, found: LesionAnswer) -> None:
    """Keep what the lesion network said of a scan in a file of a folder."""
    np.savez(
        folder / LESION_ANSWER,
        probability=found.probability,
        contrast=np.array([found.contrast.cortex, found.contrast.fluid]),
    )


def kept_lesions(
    folder: Path, segmentation: Segmentation, recipe: OutputSettings, spacing_mm: Iterable[float]
) -> FoundLesions:
    """The lesions that ``keep_lesions`` kept the probabilities of; raises ``UserError`` for a scan that is no FLAIR."""
    spacing = tuple(spacing_mm)
    errors = LoadErrors.read(recipe.lesion_load_errors)
    decided = Thresholds(*recipe.lesion_thresholds).of(spacing), errors.of(spacing) if errors else None
    with np.load(folder / LESION_ANSWER) as kept:
        cortex, fluid = map(float, kept["contrast"])
        return find_lesions(LesionAnswer(kept["probability"], LesionContrast(cortex, fluid)), segmentation, *decided)


def output_stage(job: dict[str, Any], corrected: str, segmentation: str) -> str:
    """Write all derivatives; returns the path of the file that marks the scan as complete."""
    with one_line_errors(job["scan"]):
        answers = load_segmentations(Path(segmentation))
        warnings = json_content(Path(corrected).with_name(WARNINGS))["Warnings"]
        image = replace(load(job["scan"]), warnings=tuple(warnings))
        work = Job(**job)
        judged = judge(Path(segmentation).parent, image, work.model)
        recipe = work.made_with()
        folder = Path(segmentation).parent
        wanted = list(product(recipe.grids, recipe.schemes)) if recipe.probseg else []
        probabilities: dict[tuple[str, str], Path] = {(a, b): probabilities_file(folder, a, b) for a, b in wanted}
        if not work.overwrite:  # they may have been written meanwhile
            refuse_to_replace_of(work.outputs, recipe)
        conformed = np.load(folder / CONFORMED, mmap_mode="r")
        lesions = None
        if work.finds_lesions:
            try:
                lesions = kept_lesions(folder, answers["orig"], recipe, image.spacing_mm)
            except UserError as error:
                image = replace(image, warnings=(*image.warnings, str(error)))
        result = ScanResult(image, answers["orig"], conformed, answers.get("1mm"), probabilities, judged, lesions)
        return str(write_scan(work.outputs, recipe, result, max(1, work.threads)))


def probabilities_file(folder: Path, space: str, scheme: str) -> Path:
    return folder / f"probabilities-{space}-{scheme}.npy"


def judge(folder: Path, image: Image, model: str) -> tuple[Evidence, Assessment]:
    """What the stored evidence says, by the calibration in the model's card."""
    found = read_evidence(folder)
    return found, assess(found, field_of_view(image), calibration_from(read_card(folder_of(model)).quality))


def read_evidence(folder: Path) -> Evidence:
    """The evidence that a stage left in its folder."""
    return evidence_from(json_content(folder / EVIDENCE))


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
    volumes = {volume: arrays[f"{name}_{volume}"] for volume in VOLUMES}
    has_gyri, edge = arrays[f"{name}_rest"]
    affine = arrays[f"{name}_affine"]
    return Segmentation(**volumes, affine=affine, has_gyri=bool(has_gyri), edge_fraction=float(edge))
