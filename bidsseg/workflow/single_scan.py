"""Labels one scan outside a dataset: writes labels, brain mask, volumes, verdict and picture beside each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg import __version__
from bidsseg.authorship import SOFTWARE, refuse_to_replace
from bidsseg.errors import FULL, UserError, full_disk
from bidsseg.files import all_whole, leftovers_of, remove_temporaries, stem_of, write_json
from bidsseg.imaging.dicom_seg import Maker, save_dicom_seg
from bidsseg.imaging.image import Image, load, save
from bidsseg.labels import Scheme
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.quality.assessed import AssessedScan, segment_and_assess
from bidsseg.quality.assessment import quality_file
from bidsseg.segmentation.dicom_terms import segments_of
from bidsseg.segmentation.mosaic import mosaic
from bidsseg.segmentation.volumes import VOLUME_COLUMNS, write_volumes


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


def label_scan(scan: Path, target: Path, model: Model, options: SingleScanOptions) -> dict[str, Any]:
    """Label a scan and write everything beside ``target``; returns the content of its quality file."""
    files = options.files_of(target)
    if not options.overwrite:
        refuse_to_replace(files, [tuple(VOLUME_COLUMNS)])
    predicting = PredictOptions(options.device, options.threads, options.scheme == "gyri", options.mirror)
    image = load(scan, series=options.series)
    found = segment_and_assess(image, model, predicting, options.bias_correction)
    made_with = options.made_with(scan, model)
    quality = quality_file((found.evidence, found.assessment), found.segmentation, found.warnings, made_with)
    try:
        _write(options, target, image, found, quality)
    except OSError as error:
        if error.errno in FULL:
            raise UserError(full_disk(target)) from error
        raise UserError(f"{target}: cannot be written ({error.strerror}); choose another output") from error
    return quality


def _write(options: SingleScanOptions, target: Path, scan: Image, found: AssessedScan, quality: dict[str, Any]) -> None:
    """Write all of ``SingleScanOptions.files_of``, or none."""
    segmentation, scheme, files = found.segmentation, options.scheme, options.files_of(target)
    labels = segmentation.labels(scheme)
    remove_temporaries(leftovers_of(files))
    with all_whole(files) as (mask, volumes, quality_json, *others, label_image):
        with ThreadPoolExecutor(options.threads or None) as pool:  # compression takes most of the time
            written = [pool.submit(segmentation.save, label_image, scheme)]
            if options.picture:
                written.append(pool.submit(mosaic, others.pop(0), scan, labels, scheme))
            written.append(pool.submit(save, mask, segmentation.brain_mask.astype(np.uint8), scan.affine, scan))
            write_volumes(volumes, {scheme: segmentation.volumes(scheme)}, found.assessment.expected)
            write_json(quality_json, quality)
            for path in others:
                maker = Maker(SOFTWARE, __version__, quality["Model"], scheme)
                save_dicom_seg(path, labels, scan, segments_of(scheme), maker)
        for done in written:
            done.result()
