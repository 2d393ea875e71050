"""Images on the template's grid, and the transforms between it and a scan, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.deformation import Deformation
from bidsseg.imaging.image import in_mni, save
from bidsseg.imaging.transforms import resampled, write_transforms
from bidsseg.lesions.components import LesionComponents
from bidsseg.segmentation.template import InTemplate, to_template
from bidsseg.segmentation.template_labels import template

__all__ = ["InTemplate", "lesions_in_template", "template", "to_template", "write_in_template", "write_transforms"]


def write_in_template(files: Sequence[Path], images: Sequence[NDArray[Any]], deformation: Deformation) -> None:
    """Write images (I, J, K) on the template's grid, and after them the transforms there and back."""
    *paths, onward, back = files
    for path, voxels in zip(paths, images, strict=True):
        save(path, voxels, template().affine, in_mni(voxels, template().affine))
    write_transforms(onward, back, deformation)


def lesions_in_template(path: Path, transform: Path, placed: LesionComponents) -> None:
    """Write a mask of lesions, placed in a scan, on the template's grid: voxels of which at least half is lesion."""
    lesions = (placed.isotropic > 0).astype(np.float32)
    grid = (template().tissue.shape, template().affine)
    there = (resampled(lesions, placed.grid.affine, transform, grid) >= 0.5).astype(np.uint8)
    save(path, there, template().affine, in_mni(there, template().affine))
