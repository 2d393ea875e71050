"""Images of a scan in the template's space, and the transforms between both, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.deformation import Deformation
from bidsseg.imaging.grid import grid_of
from bidsseg.imaging.image import Image, in_mni, save
from bidsseg.imaging.transforms import write_transforms
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.defaults import BIAS_CORRECTION
from bidsseg.segmentation.pipeline import answer, prepare
from bidsseg.segmentation.result import Segmentation
from bidsseg.segmentation.template import template


def on_1mm(image: Image, model: Model, options: PredictOptions) -> tuple[Floats, Segmentation]:
    """A scan, prepared, and its labels on its 1 mm grid, whatever its own."""
    found = answer(prepare(image, BIAS_CORRECTION, options.threads or 1), model, options)
    grid = grid_of(found.volume.shape, found.grid.affine)
    return found.conformed, decide_on_native_grid(found.probabilities, grid, options.gyri)


def write_in_template(files: Sequence[Path], images: Sequence[NDArray[Any]], deformation: Deformation) -> None:
    """Write images (I, J, K) on the template's grid, and after them the transforms there and back."""
    *paths, to_template, to_scan = files
    for path, voxels in zip(paths, images, strict=True):
        save(path, voxels, template().affine, in_mni(voxels, template().affine))
    write_transforms(to_template, to_scan, deformation)
