"""The lesions of a scan without a dataset around it: found by the network, or given as a mask; and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.authorship import refuse_inputs, refuse_to_replace
from bidsseg.bids.outputs import LesionOutputs, sidecar_of
from bidsseg.errors import ALONE, UserError, one_line_errors
from bidsseg.files import all_whole, leftovers_of, remove_temporaries, write_json
from bidsseg.imaging.image import Image, load, save
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.finding import FoundLesions, find_lesions
from bidsseg.lesions.masks import is_probability
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.records import LesionReport
from bidsseg.lesions.tables import LESION_TABLES, write_lesions
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_model import LesionModel, load_lesion_model
from bidsseg.network.weights import Model
from bidsseg.quality.assessed import answer_and_assess
from bidsseg.quality.assessment import Assessment
from bidsseg.quality.verdicts import KEYS, in_words
from bidsseg.report.lesion_mosaic import zone_mosaic
from bidsseg.segmentation.lesion_probability import lesion_answer
from bidsseg.segmentation.result import Segmentation


@dataclass(frozen=True)
class SingleLesionOptions:
    """How the lesions of a scan are found and described, and what is written."""

    mask: Path | None = None
    "Given lesions; None has the network find them."
    found_threshold: float | None = None
    "Probability from which the network's voxels are lesion; None takes that of its card."
    probseg: bool = False
    "Also write the network's probabilities."
    described: LesionOptions = field(default_factory=LesionOptions)
    predicting: PredictOptions = field(default_factory=PredictOptions)
    bias_correction: bool = True
    series: str | None = None
    "Which of several DICOM series in a folder, by number or UID."
    overwrite: bool = False
    "Also replace files that bidsseg did not write."


@dataclass(frozen=True)
class DescribedLesions:
    """What was found and written."""

    report: LesionReport
    verdict: str
    "On the labels that lesions are placed in, with its reasons, as ``predict`` gives it."
    files: list[Path]
    warnings: list[tuple[Path, str]]
    "With the file that each is about."
    expected_error_ml: float | None = None
    "Of the load that was found."


def describe_scan(scan: Path, base: Path, model: Model, options: SingleLesionOptions) -> DescribedLesions:
    """Find or read the lesions of a scan, describe them, and write everything under names that begin with ``base``."""
    files = _files(base, options)
    refuse_inputs(files, [scan, *([options.mask] if options.mask else [])])
    if not options.overwrite:
        refuse_to_replace(files, LESION_TABLES)
    given = None
    if options.mask is not None:
        with one_line_errors(str(options.mask), ALONE):
            given = load(options.mask, uniform_ok=True)
    with one_line_errors(str(scan), ALONE):
        image = load(scan, series=options.series)
        network = None if given else load_lesion_model()
        segmentation, found, assessment = _segment(image, model, network, options)
    about, mask = options.mask or scan, found.image(image) if found else given
    assert mask is not None  # it is given, or found
    with one_line_errors(str(about), ALONE):
        report = lesion_features(image, mask, segmentation, options.described, is_probability(about.name))
    with one_line_errors(str(scan), ALONE):
        _write(files, image, report, found, network)
    of_mask = [*(given.warnings if given else ()), *report.warnings]
    warnings = [*((scan, text) for text in image.warnings), *((about, text) for text in of_mask)]
    verdict = in_words(dict(zip(KEYS, (assessment.verdict, list(assessment.reasons)), strict=True)))
    return DescribedLesions(report, verdict, files, warnings, found.expected_error_ml if found else None)


def _files(base: Path, options: SingleLesionOptions) -> list[Path]:
    """Tables and images, a picture, and of lesions that the network found mask and perhaps probabilities."""
    named = LesionOutputs(base)
    found = [] if options.mask else [named.mask, named.probabilities][: 1 + options.probseg]
    return [*named.files, named.picture, *(path for image in found for path in (image, sidecar_of(image)))]


def _segment(
    image: Image, model: Model, network: LesionModel | None, options: SingleLesionOptions
) -> tuple[Segmentation, FoundLesions | None, Assessment]:
    answered, judged = answer_and_assess(image, model, options.predicting, options.bias_correction)
    segmentation, assessment = judged.segmentation, judged.assessment
    if network is None:
        return segmentation, None, assessment
    threshold, error = network.card.decided_by(image.spacing_mm, options.found_threshold)
    probable = lesion_answer(answered, network, options.predicting.device)
    try:
        return segmentation, find_lesions(probable, segmentation, threshold, error), assessment
    except UserError as unfit:
        raise UserError("; ".join([str(unfit), *image.warnings])) from unfit  # the header may be the cause


def _write(
    files: list[Path], image: Image, report: LesionReport, found: FoundLesions | None, network: LesionModel | None
) -> None:
    """Write all of the files, or none."""
    remove_temporaries(leftovers_of(files))
    n_tables = len(LesionOutputs(Path("scan")).files)
    with all_whole(files) as temporary:
        write_lesions(report, image, temporary[:n_tables])
        zone_mosaic(temporary[n_tables], image, report)
        if found is None or network is None:
            return
        about = {**found.about, "WeightsSHA256": network.card.sha256}
        pairs = temporary[n_tables + 1 :]
        volumes: tuple[NDArray[Any], ...] = (found.mask.astype(np.uint8), found.probability)
        for path, sidecar, data in zip(pairs[::2], pairs[1::2], volumes, strict=False):
            save(path, data, image.affine, image)
            write_json(sidecar, about)
