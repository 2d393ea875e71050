"""From the network's answer to all that is known of it without a second opinion."""

from __future__ import annotations

from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.quality.evidence import Evidence, collect
from bidsseg.quality.reorientation import quick_look, with_orientation
from bidsseg.segmentation.pipeline import Answer


def examine(given: Answer, model: Model, options: PredictOptions) -> Evidence:
    """What an answer tells about itself, and how the scan lies, for which the network may be asked again."""
    evidence = collect(given.probabilities, given.volume, given.grid)
    return with_orientation(
        evidence, given.probabilities, given.volume, quick_look(model, options), min(given.grid.along_scan.shape)
    )
