"""The volume of every label of a segmentation, and its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bidsseg.files import write_text
from bidsseg.labels import Label, Scheme, label_table
from bidsseg.segmentation.result import Segmentation, labels

VOLUME_COLUMNS = {
    "scheme": "Which division of the brain the row belongs to: regions, lobes or gyri.",
    "index": "The label's number in the segmentation image.",
    "name": "The label's name.",
    "hemisphere": "L or R; n/a on the midline.",
    "voxels": "Number of voxels with the label.",
    "volume_mm3": "Volume in cubic millimetres: voxels times the volume of one.",
    "fraction_of_intracranial": "Volume over that of brain and surrounding CSF together.",
    "confidence": "Mean probability that the network gave to the chosen tissue, 0-1; n/a without voxels.",
    "expected_dice": "Dice with a manual outline that is to be expected, 0-1; n/a without voxels or calibration.",
}


@dataclass(frozen=True)
class Volume:
    """One row of a volumes table."""

    label: Label
    voxels: int
    volume_mm3: float
    fraction_of_intracranial: float
    confidence: float
    "Mean probability of the chosen tissue over the label's voxels; nan where there are none."


def volumes(segmentation: Segmentation, scheme: Scheme) -> list[Volume]:
    """Volume of every label of the scheme, also of those not found."""
    codes = labels(segmentation, scheme)
    found = codes > 0
    codes, confident = codes[found], segmentation.confidence[found]
    size = max(label.index for label in label_table(scheme)) + 1
    counts = np.bincount(codes, minlength=size)
    sums = np.bincount(codes, confident.astype(np.float64), minlength=size)
    total = max(len(codes), 1)
    voxel = segmentation.voxel_volume_mm3
    rows = []
    for label in label_table(scheme):
        n = int(counts[label.index])
        confidence = float(sums[label.index] / n) if n else float("nan")
        rows.append(Volume(label, n, n * voxel, n / total, confidence))
    return rows


def write_volumes(
    path: Path,
    segmentation: Segmentation,
    schemes: tuple[Scheme, ...],
    expected_dice: Mapping[str, Mapping[int, float]] | None = None,
) -> None:
    """Tab-separated volumes of every label of the schemes; columns as in ``VOLUME_COLUMNS``.

    ``expected_dice`` is by scheme and code, see ``bidsseg.quality.assessment``.
    """
    lines = ["\t".join(VOLUME_COLUMNS)]
    for scheme in schemes:
        expected = (expected_dice or {}).get(scheme, {})
        for row in volumes(segmentation, scheme):
            label, confidence = row.label, f"{row.confidence:.4f}" if row.voxels else "n/a"
            numbers = (row.voxels, f"{row.volume_mm3:.2f}", f"{row.fraction_of_intracranial:.6f}", confidence)
            worth = f"{expected[label.index]:.3f}" if row.voxels and label.index in expected else "n/a"
            cells = (scheme, label.index, label.name, label.hemisphere or "n/a", *numbers, worth)
            lines.append("\t".join(map(str, cells)))
    write_text(path, "\n".join(lines) + "\n")
