"""The scans of a session with their lesions filled, by the mask of one of them. No nipype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bidsseg.bids.outputs import ScanOutputs, sidecar_of
from bidsseg.errors import UserError, failure_of, one_line_errors
from bidsseg.files import write_json
from bidsseg.imaging.image import Image, load, save
from bidsseg.lesions.filling import Filled, fill_lesions
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.workflow.labelled import anatomy_of

ABOUT = "The scan on its own grid, its lesions redrawn as normal-appearing white matter."


@dataclass(frozen=True)
class Masked:
    """A scan and the mask of its lesions."""

    outputs: ScanOutputs
    image: Image
    anatomy: Anatomy
    mask: Image
    threshold: float
    "Of the mask, where it has probabilities."
    is_probability: bool
    "Whether its name says so."


def fill_session(
    masked: Masked, others: Sequence[ScanOutputs], sidecar: dict[str, Any], threads: int
) -> tuple[list[Path], list[str]]:
    """Fill the lesions of a scan, and of the others of its session; returns the files written, and warnings.

    Patients move between two scans, so the mask is moved onto the others by rigid registration. One that cannot be
    filled costs no more than a warning.
    """
    written, filled = _fill(masked, sidecar)
    warnings = [*filled.warnings, *_not_filled(masked.outputs, filled)]
    for other in others:
        try:
            with one_line_errors(str(other.scan.path)):
                moved = _moved(masked, other, threads)
                files, filled = _fill(moved, {**sidecar, "Sources": [sidecar["Sources"][0], other.source_uri]})
                written += files
                warnings += _not_filled(other, filled)
        except UserError as error:
            warnings.append(f"lesions were not filled in {other.scan.path.name}: {failure_of(error).error}")
    return written, warnings


def _moved(masked: Masked, other: ScanOutputs, threads: int) -> Masked:
    """Another scan of the session, with the mask where its lesions are."""
    from bidsseg.imaging.registration import rigid_transform

    image = load(other.scan.path)
    to_other = rigid_transform(masked.image, image, masked.anatomy.brain_mask, threads)
    mask = replace(masked.mask, affine=to_other @ masked.mask.affine)
    return replace(masked, outputs=other, image=image, anatomy=anatomy_of(other, image), mask=mask)


def _not_filled(outputs: ScanOutputs, filled: Filled) -> list[str]:
    return [f"{outputs.scan.path.name}: {line}" for line in filled.not_filled]


def _fill(masked: Masked, sidecar: dict[str, Any]) -> tuple[list[Path], Filled]:
    filled = fill_lesions(masked.image, masked.mask, masked.anatomy, masked.threshold, masked.is_probability)
    path = masked.outputs.filled
    save(path, filled.image.data, filled.image.affine, filled.image)
    write_json(sidecar_of(path), {"Description": ABOUT, "SkullStripped": False, **sidecar})
    return [path, sidecar_of(path)], filled
