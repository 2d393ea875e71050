"""Labels one scan outside a dataset: writes labels, brain mask, volumes, verdict and picture beside each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg import __version__
from bidsseg.authorship import SOFTWARE
from bidsseg.errors import ALONE, FULL, UserError, full_disk
from bidsseg.files import all_whole, leftovers_of, remove_temporaries, write_json
from bidsseg.imaging.dicom_seg import Maker, save_dicom_seg
from bidsseg.imaging.image import Image, save
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.quality.assessed import AssessedScan, assess_answer
from bidsseg.quality.assessment import quality_file
from bidsseg.segmentation.dicom_terms import segments_of
from bidsseg.segmentation.mosaic import mosaic
from bidsseg.segmentation.pipeline import answer_conformed
from bidsseg.segmentation.volumes import write_volumes
from bidsseg.workflow.single_reading import ReadScan, SingleScanOptions, read_scan


def label_scan(scan: Path, target: Path, model: Model, options: SingleScanOptions) -> dict[str, Any]:
    """Label a scan and write everything beside ``target``; returns the content of its quality file."""
    return label_read_scan(read_scan(scan, target, options), scan, target, model, options)


def label_read_scan(
    read: ReadScan, scan: Path, target: Path, model: Model, options: SingleScanOptions
) -> dict[str, Any]:
    """The same, for a scan that was read from its file already."""
    predicting = PredictOptions(options.device, options.threads, options.scheme == "gyri", options.mirror)
    given = answer_conformed(read.conformed, model, predicting)
    found = assess_answer(read.image, given, model, predicting)
    made_with = options.made_with(scan, model)
    quality = quality_file((found.evidence, found.assessment), found.segmentation, found.warnings, made_with)
    try:
        _write(options, target, read.image, found, quality)
    except OSError as error:
        if error.errno in FULL:
            raise UserError(full_disk(target, ALONE)) from error
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
