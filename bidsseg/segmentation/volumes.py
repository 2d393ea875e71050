"""The volume of every label of a segmentation, and its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.files import write_text
from bidsseg.labels import Codes, Label, Scheme, label_table

if TYPE_CHECKING:
    from pandas import DataFrame

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


def volumes_of(
    codes: Codes, confidence: NDArray[np.floating[Any]], voxel_volume_mm3: float, scheme: Scheme
) -> tuple[Volume, ...]:
    """The volume of every label of a scheme, also of those not found, from codes and confidence, both (I, J, K)."""
    size = max(label.index for label in label_table(scheme)) + 1
    counts, sums = np.zeros(size, np.int64), np.zeros(size)
    for plane, sure in zip(codes, confidence, strict=True):  # all at once would be many times the codes' memory
        found = plane > 0
        inside = plane[found]
        counts += np.bincount(inside, minlength=size)
        sums += np.bincount(inside, sure[found], minlength=size)
    total = max(int(counts.sum()), 1)
    rows = []
    for label in label_table(scheme):
        n = int(counts[label.index])
        mean = float(sums[label.index] / n) if n else float("nan")
        rows.append(Volume(label, n, n * voxel_volume_mm3, n / total, mean))
    return tuple(rows)


def frame_of(rows: Sequence[Volume]) -> DataFrame:
    """A table of pandas, by the numbers of the labels, with the columns of ``VOLUME_COLUMNS`` that volumes have."""
    import pandas as pd

    columns = {
        "name": [row.label.name for row in rows],
        "hemisphere": [row.label.hemisphere or None for row in rows],
        "voxels": [row.voxels for row in rows],
        "volume_mm3": [row.volume_mm3 for row in rows],
        "fraction_of_intracranial": [row.fraction_of_intracranial for row in rows],
        "confidence": [row.confidence for row in rows],
    }
    return pd.DataFrame(columns, index=pd.Index([row.label.index for row in rows], name="index"))


def write_volumes(
    path: Path,
    by_scheme: Mapping[Scheme, Sequence[Volume]],
    expected_dice: Mapping[str, Mapping[int, float]] | None = None,
) -> None:
    """Tab-separated volumes of every label of the schemes; columns as in ``VOLUME_COLUMNS``.

    ``expected_dice`` is by scheme and code, see ``bidsseg.quality.assessment``.
    """
    lines = ["\t".join(VOLUME_COLUMNS)]
    for scheme, rows in by_scheme.items():
        expected = (expected_dice or {}).get(scheme, {})
        for row in rows:
            label, confidence = row.label, f"{row.confidence:.4f}" if row.voxels else "n/a"
            numbers = (row.voxels, f"{row.volume_mm3:.2f}", f"{row.fraction_of_intracranial:.6f}", confidence)
            worth = f"{expected[label.index]:.3f}" if row.voxels and label.index in expected else "n/a"
            cells = (scheme, label.index, label.name, label.hemisphere or "n/a", *numbers, worth)
            lines.append("\t".join(map(str, cells)))
    write_text(path, "\n".join(lines) + "\n")
