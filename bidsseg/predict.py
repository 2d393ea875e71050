"""From a scan and a model to a segmentation."""

from __future__ import annotations

import torch

from bidsseg.grid import conform
from bidsseg.image import Image
from bidsseg.inference import PredictOptions, infer
from bidsseg.restore import to_native
from bidsseg.segmentation import Segmentation
from bidsseg.volume import normalise
from bidsseg.weights import Model


def segment(image: Image, model: Model, options: PredictOptions) -> Segmentation:
    """Label every voxel of a scan, on the scan's own grid."""
    if options.threads:
        torch.set_num_threads(options.threads)
    volume, grid = conform(image)
    found = infer(normalise(volume), model, options)
    return to_native(found, grid, options.gyri)
