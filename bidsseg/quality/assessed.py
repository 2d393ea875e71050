"""Segments and assesses one scan; ``predict`` and the Python interface share it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from bidsseg.imaging.image import Image
from bidsseg.imaging.preparation import prepare
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.quality.assessment import Assessment, assess
from bidsseg.quality.coverage import field_of_view
from bidsseg.quality.evidence import Evidence
from bidsseg.quality.expectation import calibration_from
from bidsseg.quality.judgement import examine
from bidsseg.segmentation.pipeline import Answer, answer, native
from bidsseg.segmentation.result import Segmentation


@dataclass(frozen=True)
class AssessedScan:
    """A segmented scan, and what is known of how well that went."""

    segmentation: Segmentation
    "With the scan and the assessment in it."
    evidence: Evidence
    assessment: Assessment
    warnings: tuple[str, ...]
    "What was found and repaired in the scan's header and data."


def segment_and_assess(scan: Image, model: Model, options: PredictOptions, bias_correction: bool) -> AssessedScan:
    """Label every voxel of a scan on its own grid, and judge the result."""
    return answer_and_assess(scan, model, options, bias_correction)[1]


def answer_and_assess(
    scan: Image, model: Model, options: PredictOptions, bias_correction: bool
) -> tuple[Answer, AssessedScan]:
    """The same, with what the network said, for who has more to ask of it."""
    given = answer(prepare(scan, bias_correction, options.threads or 2), model, options)
    return given, assess_answer(scan, given, model, options)


def assess_answer(scan: Image, given: Answer, model: Model, options: PredictOptions) -> AssessedScan:
    """Decide every voxel of a scan from what the network said of it, and judge the result."""
    with ThreadPoolExecutor(1) as pool:  # evidence stays here, where memory for its many arrays is at hand
        decided = pool.submit(native, given, options.gyri)
        if options.threads == 1:
            wait([decided])
        evidence = examine(given, model, options)
    found = decided.result()
    assessment = assess(evidence, field_of_view(scan), calibration_from(model.card.quality))
    return AssessedScan(replace(found, scan=scan, assessment=assessment), evidence, assessment, given.warnings)
