"""A scan without a dataset around it: its lesions filled, or all of it in the template's space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bidsseg.authorship import refuse_inputs, refuse_to_replace
from bidsseg.bids.outputs import TemplateOutputs
from bidsseg.errors import ALONE, one_line_errors
from bidsseg.files import all_whole, leftovers_of, remove_temporaries
from bidsseg.imaging.grid import grid_of
from bidsseg.imaging.image import Image, load, save
from bidsseg.imaging.preparation import prepare
from bidsseg.labels import Scheme
from bidsseg.lesions.filling import fill_lesions
from bidsseg.lesions.masks import is_probability, read_labels
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.defaults import BIAS_CORRECTION
from bidsseg.segmentation.pipeline import answer, segment
from bidsseg.segmentation.template import InTemplate, to_template
from bidsseg.workflow.template_space import write_in_template


@dataclass(frozen=True)
class Request:
    """A scan, the mask of its lesions, and how both are read."""

    scan: Path
    mask: Path | None
    threshold: float
    series: str | None
    predicting: PredictOptions
    overwrite: bool

    def check(self, files: list[Path]) -> None:
        """Raise ``UserError`` where one of the files to be written must not be."""
        refuse_inputs(files, [path for path in (self.scan, self.mask) if path is not None])
        if not self.overwrite:
            refuse_to_replace(files)

    def lesions(self) -> Image | None:
        if self.mask is None:
            return None
        with one_line_errors(str(self.mask), ALONE):
            return load(self.mask, uniform_ok=True)


def fill_scan(request: Request, target: Path, model: Model) -> tuple[int, list[str]]:
    """Write a scan with its lesions filled; returns how many voxels were, and warnings."""
    request.check([target])
    lesions = request.lesions()
    assert lesions is not None
    assert request.mask is not None
    with one_line_errors(str(request.scan), ALONE):
        image = load(request.scan, series=request.series)
        segmentation = segment(image, model, request.predicting, BIAS_CORRECTION)
    with one_line_errors(str(request.mask), ALONE):
        named = is_probability(request.mask.name)
        filled = fill_lesions(image, lesions, segmentation, request.threshold, named)
    save(target, filled.image.data, image.affine, image)
    told = [
        *_told(request.scan, image.warnings),
        *_told(request.mask, (*lesions.warnings, *filled.warnings, *filled.not_filled)),
    ]
    return filled.voxels, told


def normalise_scan(request: Request, base: Path, scheme: Scheme, model: Model) -> tuple[list[Path], list[str]]:
    """Write a scan, its labels and lesions on the template's grid, and the transforms; returns files and warnings."""
    written = TemplateOutputs(base)
    files = [written.scan, written.labels(scheme), *([written.lesions] if request.mask else []), *written.transforms]
    request.check(files)
    lesions = request.lesions()
    told: list[str] = []
    if lesions is not None and request.mask is not None:
        with one_line_errors(str(request.mask), ALONE):
            read = read_labels(lesions.data, request.threshold, is_probability(request.mask.name))
            told += _told(request.mask, (*lesions.warnings, *read.warnings))
    with one_line_errors(str(request.scan), ALONE):
        image = load(request.scan, series=request.series)
        prepared = prepare(image, BIAS_CORRECTION, request.predicting.threads or 1)
        found = answer(prepared, model, request.predicting)
        grid = grid_of(found.volume.shape, found.grid.affine).along_scan
        segmentation = decide_on_native_grid(found.probabilities, grid, request.predicting.gyri)
        deformation = to_template(segmentation)
        there = InTemplate.of(deformation)
        grey = there.scan(found.conformed, grid.native_affine)
        images: list[NDArray[Any]] = [grey, there.labels(segmentation, scheme)]
        if lesions is not None:
            images.append(there.mask(read.labels > 0, lesions.affine))
        remove_temporaries(leftovers_of(files))
        with all_whole(files) as temporaries:
            write_in_template(temporaries, images, deformation)
    return files, [*_told(request.scan, image.warnings), *told]


def _told(path: Path, warnings: tuple[str, ...]) -> Iterator[str]:
    return (f"{path}: {warning}" for warning in warnings)
