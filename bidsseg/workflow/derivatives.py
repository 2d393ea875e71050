"""Writes all BIDS derivatives of one scan.

Every file appears under its name only when whole. The quality file of a scan is written last: it is there, with the
recipe of this run and all that it lists, if and only if the scan is complete. When a scan is done again, what was there
goes first, since another recipe may write less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.authorship import refuse_to_replace
from bidsseg.bids.completeness import listed, remove_outputs
from bidsseg.bids.outputs import OutputSettings, ScanOutputs, sidecar_of
from bidsseg.bids.root_files import LABELS_ABOUT
from bidsseg.errors import UserError
from bidsseg.files import write_json
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.image import Image, in_mni, save
from bidsseg.labels import Scheme, label_table
from bidsseg.lesions.finding import FoundLesions
from bidsseg.quality.assessment import Assessment, quality_file
from bidsseg.quality.evidence import Evidence
from bidsseg.segmentation.result import Segmentation
from bidsseg.segmentation.volumes import VOLUME_COLUMNS, write_volumes
from bidsseg.spaces import TEMPLATE

ONE_MM = "1 mm isotropic, in the orientation of the scan's own axes"


PROBABILITIES_ABOUT = "Probability of each label of the {0}, one volume for each row of seg-{0}_dseg.tsv."
LESIONS_ABOUT = "White-matter lesions that the network found in this scan. A finding, not a diagnosis."
LESION_PROBABILITIES_ABOUT = "Probability that a voxel is lesion, 0-1."
IN_TEMPLATE = "The scan, bias field corrected unless switched off, on the template's grid."
PREPROCESSED = "The scan, bias field corrected unless switched off, resampled to 1 mm."


@dataclass(frozen=True)
class ScanResult:
    """What was computed for one scan."""

    image: Image
    "As stored."
    native: Segmentation
    "On the scan's own grid."
    conformed: Floats
    "The scan as prepared for the network, (I, J, K) on the 1 mm grid."
    one_mm: Segmentation | None = None
    "On the 1 mm grid, where asked for."
    probabilities: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    "By space and scheme, .npy files (labels, I, J, K) of 255 times the probability."
    judged: tuple[Evidence, Assessment] | None = None
    "What the network's probabilities tell about its answer, and what is thought of it."
    lesions: FoundLesions | None = None
    "What was found, where lesions were looked for."


def write_scan(outputs: ScanOutputs, recipe: OutputSettings, result: ScanResult, threads: int = 1) -> Path:
    """Write all derivatives of a scan and return its marker, which is written last."""
    outputs.agreement.unlink(missing_ok=True)  # with labels that go now
    remove_outputs(outputs.out, outputs.quality)
    writer = _Writer(outputs, recipe, [])
    try:
        _write_all(writer, result, threads)
    except BaseException:  # half of a scan is of no use, and takes room
        for path in writer.written:
            path.unlink(missing_ok=True)
        raise
    return outputs.quality


def _write_all(writer: _Writer, result: ScanResult, threads: int) -> None:
    for scheme in writer.recipe.schemes:  # once, before threads ask for it at the same time
        result.native.labels(scheme)
    with ThreadPoolExecutor(threads) as pool:  # most of the time goes into compression, which threads share well
        told = [pool.submit(_write_figure, writer, result, scheme) for scheme in writer.recipe.schemes]
        if TEMPLATE in writer.recipe.spaces and result.one_mm is not None:
            told.append(pool.submit(_write_in_template, writer, result, result.one_mm))
        others = [
            pool.submit(_write_labels, writer, result, space, segmentation)
            for space, segmentation in (("orig", result.native), ("1mm", result.one_mm))
            if space in writer.recipe.spaces and segmentation is not None
        ]
        if not writer.outputs.partners:  # else it is there already, from the scan by itself
            others.append(pool.submit(_write_preprocessed, writer, result))
        others.append(pool.submit(_write_volumes, writer, result))
        if result.lesions is not None:
            others.append(pool.submit(_write_lesions, writer, result.image, result.lesions))
    for done in others:
        done.result()
    warnings = dict.fromkeys(line for lines in told for line in lines.result())  # all pictures may fail alike
    _write_marker(writer, result, [*result.image.warnings, *warnings])


def refuse_to_replace_of(outputs: ScanOutputs, recipe: OutputSettings) -> None:
    """Raise ``UserError`` where what ``write_scan`` replaces is not as bidsseg wrote it."""
    images = [path for path in listed(outputs.out, outputs.quality) if path.name.endswith(".nii.gz")]
    refuse_to_replace([*images, outputs.agreement, *outputs_of(outputs, recipe)], [tuple(VOLUME_COLUMNS)])


def outputs_of(outputs: ScanOutputs, recipe: OutputSettings) -> list[Path]:
    """All files of a scan but its marker, whether they are there or not."""
    described = [outputs.volumes] if outputs.partners else [outputs.volumes, outputs.preprocessed]
    for space in recipe.grids:
        described.append(outputs.brain_mask(space))
        for scheme in recipe.schemes:
            described.append(outputs.labels(scheme, space))
            described += [outputs.probabilities(scheme, space)] if recipe.probseg else []
    if recipe.finds_lesions_in(outputs.scan):
        described += [outputs.lesion_mask, outputs.lesion_probabilities]
    transforms: tuple[Path, ...] = ()
    if TEMPLATE in recipe.spaces:
        described += [outputs.in_template, *(outputs.labels(scheme, TEMPLATE) for scheme in recipe.schemes)]
        transforms = outputs.transforms
    return [
        *transforms,
        *described,
        *map(sidecar_of, described),
        *(outputs.figure(scheme) for scheme in recipe.schemes),
    ]


@dataclass(frozen=True)
class _Writer:
    """Where to write, with which provenance, and what has been written."""

    outputs: ScanOutputs
    recipe: OutputSettings
    written: list[Path]

    def metadata(self, **more: Any) -> dict[str, Any]:
        provenance = {"Sources": self.outputs.source_uris, **self.outputs.together(), **self.recipe.metadata()}
        return {**more, **provenance}

    def image(self, path: Path, data: Any, like: Image, sidecar: dict[str, Any], slope: float | None = None) -> None:
        self.written.append(path)
        save(path, data, like.affine, like, slope)
        self.json(sidecar_of(path), sidecar)

    def json(self, path: Path, content: dict[str, Any]) -> None:
        self.written.append(path)
        write_json(path, content)


def _reference(space: str) -> dict[str, Any]:
    """Sidecar fields of the grid an image lies on; in the world all are aligned with the scan itself."""
    return {"SpatialReference": "orig", **({"Resolution": {"1mm": ONE_MM}} if space == "1mm" else {})}


def _write_labels(writer: _Writer, result: ScanResult, space: str, segmentation: Segmentation) -> None:
    """Label images of all schemes, and the brain mask, in one space."""
    outputs, like = writer.outputs, _on_grid_of(result, space)
    for scheme in writer.recipe.schemes:
        path = outputs.labels(scheme, space)
        sidecar = writer.metadata(
            Description=LABELS_ABOUT.format(scheme),
            **_reference(space),
        )
        writer.image(path, segmentation.labels(scheme), like, sidecar)
        if (space, scheme) in result.probabilities:
            _write_probabilities(writer, result.probabilities[space, scheme], space, scheme, like)
    path = outputs.brain_mask(space)
    sidecar = writer.metadata(
        Type="Brain", Description="Brain and the cerebrospinal fluid around it.", **_reference(space)
    )
    writer.image(path, segmentation.brain_mask.astype(np.uint8), like, sidecar)


def _write_probabilities(writer: _Writer, stored: Path, space: str, scheme: Scheme, like: Image) -> None:
    """The probability of each label as one volume of a 4D image, in the order of the label table."""
    path = writer.outputs.probabilities(scheme, space)
    sidecar = writer.metadata(
        Description=PROBABILITIES_ABOUT.format(scheme),
        LabelMap=[label.abbreviation for label in label_table(scheme)],
        **_reference(space),
    )
    volumes = np.moveaxis(np.load(stored, mmap_mode="r"), 0, -1)
    writer.image(path, volumes, like, sidecar, slope=1 / 255)


def _write_lesions(writer: _Writer, like: Image, found: FoundLesions) -> None:
    """The mask of the lesions that were found, and the probabilities that sessions are compared by."""
    about = {**_reference("orig"), **writer.recipe.lesion_metadata(), **found.about}
    sidecar = writer.metadata(Type="Lesion", Description=LESIONS_ABOUT, **about)
    writer.image(writer.outputs.lesion_mask, found.mask.astype(np.uint8), like, sidecar)
    sidecar = writer.metadata(Description=LESION_PROBABILITIES_ABOUT, **about)
    probability = np.rint(255 * found.probability).astype(np.uint8)
    writer.image(writer.outputs.lesion_probabilities, probability, like, sidecar, slope=1 / 255)


def _on_grid_of(result: ScanResult, space: str) -> Image:
    """An image whose affine and header fit a space; its voxels don't matter."""
    if space == "orig":
        return result.image
    return replace(result.image, affine=result.image.grid.affine)


def _write_preprocessed(writer: _Writer, result: ScanResult) -> None:
    """The scan as the network saw it: bias corrected, at 1 mm."""
    path = writer.outputs.preprocessed
    sidecar = writer.metadata(SkullStripped=False, Description=PREPROCESSED, **_reference("1mm"))
    writer.image(path, result.conformed, _on_grid_of(result, "1mm"), sidecar)


def _write_in_template(writer: _Writer, result: ScanResult, one_mm: Segmentation) -> list[str]:
    """The scan and its labels on the template's grid, and the transforms; returns why not, where it cannot be."""
    from bidsseg.workflow.template_space import InTemplate, template, to_template, write_transforms

    outputs = writer.outputs
    try:
        deformation = to_template(one_mm)
    except UserError as error:
        return [str(error)]
    found = InTemplate.of(deformation)
    grey = found.scan(result.conformed, one_mm.affine)
    like = in_mni(grey, template().affine)
    about = {"SpatialReference": TEMPLATE}
    for scheme in writer.recipe.schemes:
        sidecar = writer.metadata(Description=LABELS_ABOUT.format(scheme), **about)
        writer.image(outputs.labels(scheme, TEMPLATE), found.labels(one_mm, scheme), like, sidecar)
    sidecar = writer.metadata(SkullStripped=False, Description=IN_TEMPLATE, **about)
    writer.image(outputs.in_template, grey, like, sidecar)
    writer.written.extend(outputs.transforms)
    write_transforms(*outputs.transforms, deformation)
    return []


def _write_volumes(writer: _Writer, result: ScanResult) -> None:
    path = writer.outputs.volumes
    expected = result.judged[1].expected if result.judged else None
    writer.written.append(path)
    by_scheme = {scheme: result.native.volumes(scheme) for scheme in writer.recipe.schemes}
    write_volumes(path, by_scheme, expected)
    columns = {name: {"Description": description} for name, description in VOLUME_COLUMNS.items()}
    writer.json(sidecar_of(path), {**columns, **writer.metadata()})


def _write_figure(writer: _Writer, result: ScanResult, scheme: Scheme) -> list[str]:
    """A picture of a scheme's labels; returns what went wrong, since a scan without a picture is still segmented."""
    try:
        from bidsseg.segmentation.mosaic import mosaic

        path = writer.outputs.figure(scheme)
        mosaic(path, result.image, result.native.labels(scheme), scheme)
        writer.written.append(path)
    except Exception as error:
        return [f"no picture ({type(error).__name__}: {error})"]
    return []


def _made_with(writer: _Writer) -> dict[str, Any]:
    return {**writer.metadata(), **writer.recipe.metadata_of(writer.outputs.scan)}


def _write_marker(writer: _Writer, result: ScanResult, warnings: Sequence[str]) -> None:
    outputs = writer.outputs
    listed_outputs = sorted(path.relative_to(outputs.out).as_posix() for path in writer.written)
    content = {
        **quality_file(result.judged, result.native, warnings, _made_with(writer)),
        **outputs.source_state(),
        "Outputs": listed_outputs,
    }
    write_json(outputs.quality, content)
