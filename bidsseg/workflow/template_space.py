"""Images on the template's grid, and the transforms between it and a scan, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bidsseg.imaging.deformation import Deformation
from bidsseg.imaging.image import in_mni, save
from bidsseg.imaging.transforms import write_transforms
from bidsseg.segmentation.template import InTemplate, template, to_template

__all__ = ["InTemplate", "template", "to_template", "write_in_template", "write_transforms"]


def write_in_template(files: Sequence[Path], images: Sequence[NDArray[Any]], deformation: Deformation) -> None:
    """Write images (I, J, K) on the template's grid, and after them the transforms there and back."""
    *paths, onward, back = files
    for path, voxels in zip(paths, images, strict=True):
        save(path, voxels, template().affine, in_mni(voxels, template().affine))
    write_transforms(onward, back, deformation)
