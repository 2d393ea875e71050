"""BIDS out: everything written for one scan.

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
from bidsseg.files import write_json
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.image import Image, save
from bidsseg.labels import Scheme, label_table
from bidsseg.quality.assessment import Assessment, quality_file
from bidsseg.quality.evidence import Evidence
from bidsseg.segmentation.result import Segmentation
from bidsseg.segmentation.volumes import VOLUME_COLUMNS, write_volumes

ONE_MM = "1 mm isotropic, in the orientation of the scan's own axes"


PROBABILITIES_ABOUT = "Probability of each label of the {0}, one volume for each row of seg-{0}_dseg.tsv."
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


def write_scan(place: ScanOutputs, recipe: OutputSettings, result: ScanResult, threads: int = 1) -> Path:
    """Write all derivatives of a scan and return its marker, which is written last."""
    place.agreement.unlink(missing_ok=True)  # with labels that go now
    remove_outputs(place.out, place.quality)
    writer = _Writer(place, recipe, [])
    try:
        _write_all(writer, result, threads)
    except BaseException:  # half of a scan is of no use, and takes room
        for path in writer.written:
            path.unlink(missing_ok=True)
        raise
    return place.quality


def _write_all(writer: _Writer, result: ScanResult, threads: int) -> None:
    for scheme in writer.recipe.schemes:  # once, before threads ask for it at the same time
        result.native.labels(scheme)
    with ThreadPoolExecutor(threads) as pool:  # most of the time goes into compression, which threads share well
        pictures = pool.submit(_write_figures, writer, result)
        others = [
            pool.submit(_write_labels, writer, result, space, segmentation)
            for space, segmentation in (("orig", result.native), ("1mm", result.one_mm))
            if space in writer.recipe.spaces and segmentation is not None
        ]
        if not writer.place.partners:  # else it is there already, from the scan by itself
            others.append(pool.submit(_write_preprocessed, writer, result))
        others.append(pool.submit(_write_volumes, writer, result))
    for done in others:
        done.result()
    _write_marker(writer, result, [*result.image.warnings, *pictures.result()])


def refuse_to_replace_of(place: ScanOutputs, recipe: OutputSettings) -> None:
    """Raise ``UserError`` where what ``write_scan`` replaces is not as bidsseg wrote it."""
    images = [path for path in listed(place.out, place.quality) if path.name.endswith(".nii.gz")]
    refuse_to_replace([*images, place.agreement, *outputs_of(place, recipe)], [tuple(VOLUME_COLUMNS)])


def outputs_of(place: ScanOutputs, recipe: OutputSettings) -> list[Path]:
    """All files of a scan but its marker, whether they are there or not."""
    described = [place.volumes] if place.partners else [place.volumes, place.preprocessed]
    for space in recipe.spaces:
        described.append(place.brain_mask(space))
        for scheme in recipe.schemes:
            described.append(place.labels(scheme, space))
            described += [place.probabilities(scheme, space)] if recipe.probseg else []
    return [*described, *map(sidecar_of, described), *(place.figure(scheme) for scheme in recipe.schemes)]


@dataclass(frozen=True)
class _Writer:
    """Where to write, with which provenance, and what has been written."""

    place: ScanOutputs
    recipe: OutputSettings
    written: list[Path]

    def metadata(self, **more: Any) -> dict[str, Any]:
        provenance = {"Sources": self.place.source_uris, **self.recipe.metadata()}
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
    place, like = writer.place, _on_grid_of(result, space)
    for scheme in writer.recipe.schemes:
        path = place.labels(scheme, space)
        sidecar = writer.metadata(
            Description=LABELS_ABOUT.format(scheme),
            **_reference(space),
        )
        writer.image(path, segmentation.labels(scheme), like, sidecar)
        if (space, scheme) in result.probabilities:
            _write_probabilities(writer, result.probabilities[space, scheme], space, scheme, like)
    path = place.brain_mask(space)
    sidecar = writer.metadata(
        Type="Brain", Description="Brain and the cerebrospinal fluid around it.", **_reference(space)
    )
    writer.image(path, segmentation.brain_mask.astype(np.uint8), like, sidecar)


def _write_probabilities(writer: _Writer, stored: Path, space: str, scheme: Scheme, like: Image) -> None:
    """The probability of each label as one volume of a 4D image, in the order of the label table."""
    path = writer.place.probabilities(scheme, space)
    sidecar = writer.metadata(
        Description=PROBABILITIES_ABOUT.format(scheme),
        LabelMap=[label.abbreviation for label in label_table(scheme)],
        **_reference(space),
    )
    volumes = np.moveaxis(np.load(stored, mmap_mode="r"), 0, -1)
    writer.image(path, volumes, like, sidecar, slope=1 / 255)


def _on_grid_of(result: ScanResult, space: str) -> Image:
    """An image whose affine and header fit a space; its voxels don't matter."""
    if space == "orig":
        return result.image
    return replace(result.image, affine=result.image.grid.affine)


def _write_preprocessed(writer: _Writer, result: ScanResult) -> None:
    """The scan as the network saw it: bias corrected, at 1 mm."""
    path = writer.place.preprocessed
    sidecar = writer.metadata(SkullStripped=False, Description=PREPROCESSED, **_reference("1mm"))
    writer.image(path, result.conformed, _on_grid_of(result, "1mm"), sidecar)


def _write_volumes(writer: _Writer, result: ScanResult) -> None:
    path = writer.place.volumes
    expected = result.judged[1].expected if result.judged else None
    writer.written.append(path)
    by_scheme = {scheme: result.native.volumes(scheme) for scheme in writer.recipe.schemes}
    write_volumes(path, by_scheme, expected)
    columns = {name: {"Description": description} for name, description in VOLUME_COLUMNS.items()}
    writer.json(sidecar_of(path), {**columns, **writer.metadata()})


def _write_figures(writer: _Writer, result: ScanResult) -> list[str]:
    """Pictures of all schemes; returns what went wrong, since a scan without a picture is still segmented."""
    try:
        from bidsseg.segmentation.mosaic import mosaic

        for scheme in writer.recipe.schemes:
            path = writer.place.figure(scheme)
            mosaic(path, result.image, result.native.labels(scheme), scheme)
            writer.written.append(path)
    except Exception as error:
        return [f"no picture ({type(error).__name__}: {error})"]
    return []


def _write_marker(writer: _Writer, result: ScanResult, warnings: Sequence[str]) -> None:
    place = writer.place
    outputs = sorted(path.relative_to(place.out).as_posix() for path in writer.written)
    content = {
        **quality_file(result.judged, result.native, warnings, writer.metadata()),
        **place.source_state(),
        "Outputs": outputs,
    }
    write_json(place.quality, content)
