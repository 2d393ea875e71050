"""From a scan and a model to a segmentation, and to what is thought of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bidsseg.evidence import Evidence, collect
from bidsseg.grid import Grid, conform
from bidsseg.image import Image
from bidsseg.inference import PredictOptions, Probabilities, infer
from bidsseg.orientation import quick_look, with_orientation
from bidsseg.quality import Assessment, assess, calibration_from, geometry
from bidsseg.restore import to_native
from bidsseg.segmentation import Segmentation
from bidsseg.volume import Floats, normalise
from bidsseg.weights import Model


@dataclass(frozen=True)
class Answer:
    """What the network says about one scan."""

    found: Probabilities
    volume: Floats
    "The normalised 1 mm volume that it was asked about."
    grid: Grid

    def segmentation(self, gyri: bool) -> Segmentation:
        """The labels on the scan's own grid."""
        return to_native(self.found, self.grid, gyri)


@dataclass(frozen=True)
class Judged:
    """The labels of a scan, and what is thought of them."""

    segmentation: Segmentation
    evidence: Evidence
    assessment: Assessment


def answer(image: Image, model: Model, options: PredictOptions) -> Answer:
    """Ask the network about a scan."""
    if options.threads:
        torch.set_num_threads(options.threads)
    conformed, grid = conform(image)
    volume = normalise(conformed)
    return Answer(infer(volume, model, options), volume, grid)


def segment(image: Image, model: Model, options: PredictOptions) -> Segmentation:
    """Label every voxel of a scan, on the scan's own grid."""
    return answer(image, model, options).segmentation(options.gyri)


def examine(given: Answer, model: Model, options: PredictOptions) -> Evidence:
    """What the answer tells about itself, and how the scan lies."""
    evidence = collect(given.found, given.volume)
    return with_orientation(evidence, given.found, given.volume, quick_look(model, options))


def segment_and_judge(image: Image, model: Model, options: PredictOptions) -> Judged:
    """``segment``, and the verdict by the calibration in the model's card."""
    given = answer(image, model, options)
    evidence = examine(given, model, options)
    assessment = assess(evidence, geometry(image), calibration_from(model.card.quality))
    return Judged(given.segmentation(options.gyri), evidence, assessment)
