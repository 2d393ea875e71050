"""Label images as DICOM segmentations that refer to the series they were made from, written by highdicom.

highdicom and pydicom are an optional extra; nothing else needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsseg.authorship import DICOM_MARK
from bidsseg.errors import FileError, UserError
from bidsseg.imaging.image import Image

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

SIDES = {"L": ("7771000", "SCT", "Left"), "R": ("24028007", "SCT", "Right")}
SERIES_NUMBERS_FROM = 900
"Added to the number of the source's series, so that viewers list the labels after all scans."


class Term(NamedTuple):
    """A coded concept of DICOM."""

    value: str
    scheme: str
    "SCT is SNOMED CT, DCM is DICOM's own; those that begin with 99 are private."
    meaning: str


@dataclass(frozen=True)
class Segment:
    """How one label is called in a DICOM segmentation."""

    label: int
    "Its number in the label image."
    name: str
    color: str
    "As #rrggbb."
    category: Term
    kind: Term
    region: Term | None = None
    "The part of the body that the label lies in, where its kind does not say it."
    side: str = ""
    "L or R; empty on the midline."


@dataclass(frozen=True)
class Maker:
    """What a segmentation says about the software that made it."""

    software: str
    version: str
    model: str
    "Name of the network's weights."
    scheme: str
    "Scheme of the labels."


def check_can_write() -> None:
    """Raise ``UserError`` with advice where highdicom is not installed."""
    if find_spec("highdicom") is None or find_spec("pydicom") is None:
        raise UserError("--dicom-seg needs highdicom, which is not installed; pip install 'bidsseg[dicom]'")


def save_dicom_seg(
    path: Path, labels: NDArray[Any], scan: Image, segments: Mapping[int, Segment], maker: Maker
) -> None:
    """Write labels (I, J, K) as a binary DICOM segmentation with a segment for each label that occurs.

    ``scan`` was read from the series, one file for each of K. Raises ``FileError`` where the series lacks what a
    segmentation has to repeat of it.
    """
    import highdicom

    present = [int(code) for code in np.unique(labels) if code]
    if not present:
        raise FileError(path, "no labels to write", "check the scan")
    numbers = np.zeros(int(labels.max()) + 1, np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    try:
        sources = _sources(scan)
        found = highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=np.ascontiguousarray(numbers[labels].transpose(2, 1, 0)),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_described(n, segments[code], maker) for n, code in enumerate(present, 1)],
            series_instance_uid=highdicom.UID(),
            series_number=int(sources[0].get("SeriesNumber") or 0) + SERIES_NUMBERS_FROM,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=maker.software,
            manufacturer_model_name=maker.model,
            software_versions=maker.version,
            device_serial_number="1",
            content_label="BRAIN",
            content_description=f"{maker.scheme} of the brain",
            series_description=f"{maker.software} {maker.scheme}",
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(scan.slices[0], f"no DICOM segmentation can refer to this series ({reason})",
                        "leave out --dicom-seg, or export the series again") from error  # fmt: skip
    found.preamble = DICOM_MARK.ljust(128, b"\0")
    found.save_as(path, enforce_file_format=True)


def _sources(scan: Image) -> list[Dataset]:
    """The headers of the slices, with distances by their places: what a header says of them may be wrong."""
    import pydicom

    found = [pydicom.dcmread(file, stop_before_pixels=True) for file in scan.slices]
    for source in found:
        source.SpacingBetweenSlices = f"{scan.spacing_mm[2]:.8g}"
    return found


def _described(number: int, segment: Segment, maker: Maker) -> SegmentDescription:
    import highdicom
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    described = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name,
        segmented_property_category=CodedConcept(*segment.category),
        segmented_property_type=CodedConcept(*segment.kind),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            maker.software, codes.DCM.ArtificialIntelligence, maker.version
        ),
        tracking_uid=highdicom.UID(),
        tracking_id=segment.name,
        anatomic_regions=None if segment.region is None else [CodedConcept(*segment.region)],
        display_color=highdicom.color.CIELabColor.from_rgb(*bytes.fromhex(segment.color[1:])),
    )
    described.SegmentDescription = f"Label {segment.label} of the {maker.scheme} of {maker.software}"
    if segment.side:
        described.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(*SIDES[segment.side])]
    return described
