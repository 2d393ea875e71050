"""The evidence that an answer of the network holds about its own quality."""

from __future__ import annotations

from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.quality.evidence import Evidence, collect
from bidsseg.quality.reorientation import quick_look, with_orientation
from bidsseg.segmentation.pipeline import Answer


def examine(given: Answer, model: Model, options: PredictOptions) -> Evidence:
    """The evidence in an answer, and the orientation that fits best, for which the network may run again."""
    evidence = collect(given.probabilities, given.volume, given.grid)
    return with_orientation(
        evidence, given.probabilities, given.volume, quick_look(model, options), min(given.grid.along_scan.shape)
    )
