"""Lesion loads of a scan by region, lobe, zone and distance band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsseg.labels import Scheme, label_table
from bidsseg.lesions.components import Reals
from bidsseg.lesions.measures import at_pieces, composition
from bidsseg.lesions.records import Lesion, LesionReport, Part
from bidsseg.lesions.zones import OUTSIDE, ZONES, zone_by_voxel

TOO_SMALL, NOT_IN_SCAN = "too-small", "outside-scan"


@dataclass(frozen=True)
class Load:
    """Lesion load of one region, lobe, zone or distance band; columns as in ``LOAD_COLUMNS``."""

    level: str
    name: str
    index: int | None
    count: int
    count_touching: int
    volume_mm3: float
    fraction_of_region: float
    fraction_of_lesions: float
    largest_mm3: float


def lesion_loads(report: LesionReport) -> list[Load]:
    """Total, zones of lesions, of parts and of voxels, regions, lobes and, if asked for, distance bands.

    Every level adds up to the mask's volume.
    """
    zones = [*_zones(report, "zone", report.lesions), *_zones(report, "part", report.parts), *_voxels(report)]
    rows = [_total(report), *zones, *_labels(report, "regions"), *_labels(report, "lobes")]
    return rows + (_bands(report) if report.options.bands_mm else [])


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _total(report: LesionReport) -> Load:
    brain = float((report.anatomy.tissue > 0).sum()) * report.anatomy.voxel_volume_mm3
    total, count = report.mask_volume_mm3, len(report.lesions)
    largest = max((lesion.volume_mm3 for lesion in report.lesions), default=0.0)
    return Load("total", "all", None, count, count, total, _share(total, brain), _share(total, total), largest)


def _zones(report: LesionReport, level: str, found: Sequence[Lesion] | Sequence[Part]) -> list[Load]:
    """Loads of lesions or of their parts by zone, and of what belongs to none."""
    total = report.mask_volume_mm3
    rows = []
    for zone in ZONES:
        volumes = [one.volume_mm3 for one in found if one.zone == zone]
        touching = sum(zone == one.zone or zone in one.contacts for one in found)
        volume = sum(volumes)
        share = _share(volume, total)
        rows.append(Load(level, zone, None, len(volumes), touching, volume, math.nan, share, max(volumes, default=0.0)))
    for name, small in ((TOO_SMALL, small_volumes_mm3(report)), (NOT_IN_SCAN, not_in_scan_mm3(report))):
        volume = float(small.sum())
        largest = float(small.max(initial=0))
        rows.append(Load(level, name, None, 0, 0, volume, math.nan, _share(volume, total), largest))
    return rows


def _voxels(report: LesionReport) -> list[Load]:
    """Loads by the zone of each voxel."""
    tissue = at_pieces(report.anatomy.tissue, report.pieces)
    zones = zone_by_voxel(tissue, report.ventricle_mm, report.cortex_mm, report.options.near_mm)
    return _by_column(report, "voxel", ZONES, zones)


def small_volumes_mm3(report: LesionReport) -> Reals:
    """Volumes of the components below the minimum volume."""
    return report.components.volumes_mm3[len(report.lesions) :]


def not_in_scan_mm3(report: LesionReport) -> Reals:
    """Volumes of the mask's lesion voxels outside the scan's field of view."""
    return np.full(int((report.components.component == 0).sum()), report.components.voxel_volume_mm3)


def _labels(report: LesionReport, scheme: Scheme) -> list[Load]:
    codes = report.anatomy.labels(scheme)
    volumes = composition(report.pieces.component, report.pieces, codes, len(report.lesions))
    sizes = np.bincount(codes.reshape(-1)) * report.anatomy.voxel_volume_mm3
    names = {0: OUTSIDE} | {label.index: label.name for label in label_table(scheme)}
    rows = _columns(volumes, sorted(names), report)
    level = scheme.rstrip("s")
    return [
        Load(
            level,
            names[code],
            code,
            *row[:3],
            _share(row[2], float(sizes[code])) if 0 < code < len(sizes) else math.nan,
            *row[3:],
        )
        for code, row in zip(sorted(names), rows, strict=True)
    ]


def _columns(
    volumes: Reals, columns: Sequence[int], report: LesionReport
) -> list[tuple[int, int, float, float, float]]:
    """count, count_touching, volume, fraction of lesions, largest: of columns of a composition; 0 beyond its last."""
    padded = np.pad(volumes, ((0, 0), (0, max(0, max(columns) + 1 - volumes.shape[1]))))
    lesions = padded[1:]
    mainly = np.bincount(lesions.argmax(1), minlength=padded.shape[1]) if len(lesions) else np.zeros(padded.shape[1])
    return [
        (
            int(mainly[column]),
            int((lesions[:, column] > 0).sum()),
            float(padded[:, column].sum()),
            _share(float(padded[:, column].sum()), report.mask_volume_mm3),
            float(lesions[:, column].max(initial=0)),
        )
        for column in columns
    ]


def _bands(report: LesionReport) -> list[Load]:
    """A gap equal to an edge belongs to the nearer band; without ventricles all is in the last."""
    edges = sorted(report.options.bands_mm)
    names = [f"{low:g}-{high:g}" for low, high in zip([0, *edges], edges, strict=False)] + [f">{edges[-1]:g}"]
    return _by_column(report, "band", names, np.searchsorted(edges, np.nan_to_num(report.ventricle_mm, nan=np.inf)))


def _by_column(report: LesionReport, level: str, names: Sequence[str], column: NDArray[np.intp]) -> list[Load]:
    """Loads by a column, given for each piece (M,)."""
    count = len(report.lesions)
    component = np.where(report.pieces.component <= count, report.pieces.component, 0)
    counts = np.bincount(component * len(names) + column, minlength=(count + 1) * len(names)).reshape(count + 1, -1)
    rows = _columns(counts * report.pieces.volume_mm3, range(len(names)), report)
    return [Load(level, name, None, *row[:3], math.nan, *row[3:]) for name, row in zip(names, rows, strict=True)]
