"""Reads a scan outside a dataset, and knows what is written for it. No torch: it goes on while that is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bidsseg import __version__
from bidsseg.authorship import refuse_to_replace
from bidsseg.files import stem_of
from bidsseg.imaging.image import Image, load
from bidsseg.imaging.preparation import Conformed, conformed, prepare
from bidsseg.labels import Scheme
from bidsseg.segmentation.volumes import VOLUME_COLUMNS

if TYPE_CHECKING:
    from bidsseg.network.weights import Model


@dataclass(frozen=True)
class SingleScanOptions:
    """How a scan is labelled, and what is written."""

    scheme: Scheme
    bias_correction: bool
    mirror: bool = False
    picture: bool = True
    device: str = "auto"
    threads: int = 0
    "CPU threads; 0 takes all."
    overwrite: bool = False
    "Also replace files that bidsseg did not write."
    series: str | None = None
    "Which of several DICOM series in a folder, by number or UID."
    dicom_seg: Path | None = None
    "Where to write the labels as a DICOM segmentation of the series."

    def files_of(self, target: Path) -> list[Path]:
        """All files that are written for a label image: brain mask, volumes, verdict, picture, DICOM segmentation, and
        last the labels. The mask has the format of the labels."""
        mask = "_mask.mgz" if target.name.endswith(".mgz") else "_mask.nii.gz"
        endings = (mask, "_volumes.tsv", "_qc.json", *([".png"] if self.picture else []))
        dicom = [] if self.dicom_seg is None else [self.dicom_seg]
        return [*(target.with_name(stem_of(target) + ending) for ending in endings), *dicom, target]

    def made_with(self, scan: Path, model: Model) -> dict[str, Any]:
        """Where the labels come from, for the quality file."""
        return {
            "Sources": [str(scan)],
            "SoftwareVersion": __version__,
            "Model": model.card.name,
            "WeightsSHA256": model.card.sha256,
            "BiasFieldCorrection": self.bias_correction,
            "LabelSchemes": [self.scheme],
            "MirrorAveraging": self.mirror,
        }


class ReadScan(NamedTuple):
    """A scan, as it is stored and as the network is to see it."""

    image: Image
    conformed: Conformed


def read_scan(scan: Path, target: Path, options: SingleScanOptions) -> ReadScan:
    """Read and prepare a scan, of which the labels go to ``target``.

    Raises ``UserError`` for a scan that cannot be used, and first where the results would replace what bidsseg did not
    write.
    """
    if not options.overwrite:
        refuse_to_replace(options.files_of(target), [tuple(VOLUME_COLUMNS)])
    image = load(scan, series=options.series)
    return ReadScan(image, conformed(prepare(image, options.bias_correction, options.threads or 2)))
