"""A segmentation on a scan's own grid, and what follows from it: label maps, volumes, masks, confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.files import write_text
from bidsseg.imaging.arrays import voxel_volume_mm3
from bidsseg.labels import LOBAR_TISSUES, TISSUE, Label, Scheme, code_lookup, encode, label_table

Codes = NDArray[np.uint16]


@dataclass(frozen=True)
class Segmentation:
    """The anatomy of every voxel of a scan, in the scan's own axes; shapes (I, J, K)."""

    tissue: NDArray[np.uint8]
    side: NDArray[np.uint8]
    parcel: NDArray[np.uint8]
    "Without ``has_gyri``, one gyrus stands for the whole lobe."
    confidence: NDArray[np.float16]
    "Probability of the chosen tissue; 0 outside the brain."
    affine: NDArray[np.float64]
    has_gyri: bool
    edge_fraction: float = 0.0
    "Largest share of brain on a face of the field of view: large where the scan cuts the brain."

    @property
    def voxel_volume_mm3(self) -> float:
        return voxel_volume_mm3(self.affine)


def labels(segmentation: Segmentation, scheme: Scheme) -> Codes:
    """The label map of a scheme; raises ``ValueError`` for gyri that were not computed."""
    if scheme == "gyri" and not segmentation.has_gyri:
        raise ValueError("this segmentation was made without gyri")
    return encode(segmentation.tissue, segmentation.side, segmentation.parcel, scheme)


def from_labels(regions: Codes, lobes: Codes, affine: NDArray[np.float64]) -> Segmentation:
    """The segmentation whose label maps of regions and lobes, both (I, J, K), these are; without gyri and confidence.

    Raises ``ValueError`` for codes that no anatomy has.
    """
    if regions.shape != lobes.shape:
        raise ValueError(f"label images of one scan must have one shape, got {regions.shape} and {lobes.shape}")
    pairs, inverse = np.unique(regions.astype(np.int64) << 16 | lobes, return_inverse=True)
    known = _factors_of_codes()
    missing = [(int(pair) >> 16, int(pair) & 0xFFFF) for pair in pairs if int(pair) not in known]
    if missing:
        raise ValueError(f"region {missing[0][0]} and lobe {missing[0][1]} don't go together in one voxel")
    factors = np.array([known[int(pair)] for pair in pairs], np.uint8)[inverse.reshape(regions.shape)]
    tissue, side, parcel = (np.ascontiguousarray(factors[..., n]) for n in range(3))
    return Segmentation(tissue, side, parcel, np.zeros(regions.shape, np.float16), affine, has_gyri=False)


@cache
def _factors_of_codes() -> dict[int, tuple[int, int, int]]:
    """The first (tissue, side, parcel) that has each pair of codes, region << 16 | lobe."""
    pairs = code_lookup("regions").astype(np.int64) << 16 | code_lookup("lobes")
    found, first = np.unique(pairs, return_index=True)
    places = np.stack(np.unravel_index(first, pairs.shape), 1)
    return {int(pair): (int(t), int(s), int(p)) for pair, (t, s, p) in zip(found, places, strict=True)}


def brain_mask(segmentation: Segmentation) -> NDArray[np.uint8]:
    """1 for brain and the CSF around it, 0 elsewhere."""
    return (segmentation.tissue > 0).astype(np.uint8)


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


def quality(segmentation: Segmentation) -> dict[str, Any]:
    """Numbers that tell a doubtful segmentation from a good one."""
    brain = segmentation.tissue > 0
    cerebrum = np.isin(segmentation.tissue, [TISSUE[name] for name in LOBAR_TISSUES])
    left = int((cerebrum & (segmentation.side == 0)).sum())
    right = int((cerebrum & (segmentation.side == 1)).sum())
    return {
        "IntracranialVolumeMm3": round(float(brain.sum()) * segmentation.voxel_volume_mm3, 1),
        "CerebralAsymmetry": round((left - right) / max(left + right, 1), 4),
        "MeanConfidence": round(float(segmentation.confidence[brain].mean(dtype=np.float64)), 4)
        if brain.any()
        else 0.0,
        "EdgeFraction": round(segmentation.edge_fraction, 4),
    }
