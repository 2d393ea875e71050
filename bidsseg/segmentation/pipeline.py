"""The engine: the steps from the voxels of one scan to probabilities and labels.

``predict``, the BIDS App, fusion, the studies behind quality control, evaluation and benchmarks all take it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grey import on_scale_of
from bidsseg.imaging.grid import SLAB_FLOATS, Grid
from bidsseg.imaging.image import Image
from bidsseg.imaging.preparation import Conformed, conformed, prepare
from bidsseg.network.inference import PredictOptions, infer
from bidsseg.network.probabilities import Probabilities
from bidsseg.network.weights import Model
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.result import Segmentation


@dataclass(frozen=True)
class Answer:
    """What the network says of a scan."""

    conformed: Floats
    "(I, J, K): the prepared scan on the 1 mm RAS grid, with its own grey values."
    volume: Floats
    "(I, J, K): the same as the network saw it, 0-1."
    grid: Grid
    probabilities: Probabilities
    warnings: tuple[str, ...] = ()
    "Those of the prepared scan."


def answer(image: Image, model: Model, options: PredictOptions) -> Answer:
    """Resample a prepared scan to 1 mm RAS and ask the network."""
    _keep_to_threads(options)
    seen = conformed(image)
    del image  # it may be large, and not every caller needs it any more
    return answer_conformed(seen, model, options)


def answer_conformed(seen: Conformed, model: Model, options: PredictOptions) -> Answer:
    """Ask the network about a prepared scan that was resampled already."""
    _keep_to_threads(options)
    probabilities, volume = infer(seen.volume, model, options, partial(on_scale_of, seen))
    return Answer(seen.volume, volume, seen.grid, probabilities, seen.warnings)


def _keep_to_threads(options: PredictOptions) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)


def native(found: Answer, gyri: bool, max_floats: int = SLAB_FLOATS) -> Segmentation:
    """Decide every voxel of the scan's own grid."""
    return decide_on_native_grid(found.probabilities, found.grid, gyri, max_floats)


def segment(image: Image, model: Model, options: PredictOptions, bias_correction: bool = False) -> Segmentation:
    """Label every voxel of a scan, on the scan's own grid."""
    return native(answer(prepare(image, bias_correction, options.threads or 1), model, options), options.gyri)
