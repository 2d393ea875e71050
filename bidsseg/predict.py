"""From a scan and a model to a segmentation."""

from __future__ import annotations

from bidsseg.image import Image
from bidsseg.inference import PredictOptions
from bidsseg.pipeline import answer, native, prepare
from bidsseg.segmentation import Segmentation
from bidsseg.weights import Model


def segment(image: Image, model: Model, options: PredictOptions, bias_correction: bool = False) -> Segmentation:
    """Label every voxel of a scan, on the scan's own grid; see ``pipeline``."""
    return native(answer(prepare(image, bias_correction, options.threads or 1), model, options), options.gyri)
