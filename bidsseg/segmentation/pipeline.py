"""The engine: the steps from the voxels of one scan to probabilities and labels.

``predict``, the BIDS App, fusion, the studies behind quality control, evaluation and benchmarks all take it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import SLAB_FLOATS, Grid, conform
from bidsseg.imaging.image import Image
from bidsseg.imaging.sound import sound_values
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


def prepare(image: Image, bias_correction: bool, threads: int = 1) -> Image:
    """The scan with absurd grey values replaced and, where asked for, its bias field corrected."""
    data, warnings = sound_values(image.data)
    sound = replace(image, data=data, warnings=(*image.warnings, *warnings))
    if not bias_correction:
        return sound
    from bidsseg.imaging.bias import correct_bias  # and SimpleITK, which nothing else here needs

    return correct_bias(sound, threads)


def answer(image: Image, model: Model, options: PredictOptions) -> Answer:
    """Resample a prepared scan to 1 mm RAS and ask the network."""
    if options.threads:
        torch.set_num_threads(options.threads)
    conformed, grid = conform(image)
    warnings = image.warnings
    del image  # it may be large, and not every caller needs it any more
    probabilities, volume = infer(conformed, model, options)
    return Answer(conformed, volume, grid, probabilities, warnings)


def native(found: Answer, gyri: bool, max_floats: int = SLAB_FLOATS) -> Segmentation:
    """Decide every voxel of the scan's own grid."""
    return decide_on_native_grid(found.probabilities, found.grid, gyri, max_floats)


def segment(image: Image, model: Model, options: PredictOptions, bias_correction: bool = False) -> Segmentation:
    """Label every voxel of a scan, on the scan's own grid."""
    return native(answer(prepare(image, bias_correction, options.threads or 1), model, options), options.gyri)
