"""Tables and images of a scan's lesions, as files with data dictionaries."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.files import write_text
from bidsseg.imaging.image import Image, save
from bidsseg.labels import MIDLINE_TISSUES, TISSUE, label_table
from bidsseg.lesions.components import CONNECTIVITY, THICK_MM, apply
from bidsseg.lesions.loads import NOT_IN_SCAN, TOO_SMALL, lesion_loads, not_in_scan_mm3, small_volumes_mm3
from bidsseg.lesions.records import LesionReport, findings
from bidsseg.lesions.zones import OUTSIDE
from bidsseg.segmentation.anatomy import Anatomy

LESION_CODES = (25, 57)
"Left-Lesion and Right-Lesion of FreeSurferColorLUT: what lesions are in the region map with lesions."
PARTS_ABOUT = {"Description": "Number of the part of a lesion, as in the table of parts; 0 elsewhere."}
NUMBERS_ABOUT = {
    "Description": "Number of the lesion, as in the table of lesions; 0 elsewhere and in components below the minimum."
}
REGIONS_ABOUT = {"Contents": "Regions, corrected under lesions, with lesions painted over as 25 (left) and 57 (right)."}

ZONE_LEVELS = {
    "periventricular": "in the cerebrum, abuts ventricles; if it abuts both, mostly nearer to ventricles",
    "juxtacortical": "in the cerebrum, abuts cortex; if it abuts both, mostly nearer to cortex",
    "infratentorial": "most of it in brainstem and cerebellum",
    "deep-grey": "most of it in thalamus, basal ganglia and ventral diencephalon",
    "deep-white-matter": "in the cerebrum, abuts neither ventricles nor cortex",
    "outside": "no part of it in the brain",
}
LESION_COLUMNS: dict[str, dict[str, Any]] = {
    "lesion": {
        "Description": "Number of the lesion, largest first; its value in the lesion image. 0 holds all components "
        "below the minimum volume together, n/a the lesion voxels outside the scan's field of view"
    },
    "volume_mm3": {"Description": "Counted on the lesion mask's own grid", "Units": "mm^3"},
    "long_axis_mm": {"Description": "Largest distance of two voxel centres of the 1 mm grid, plus 1 mm", "Units": "mm"},
    "centroid_x_mm": {"Description": "Centre of mass, to the right, in the header's coordinates", "Units": "mm"},
    "centroid_y_mm": {"Description": "Centre of mass, anterior", "Units": "mm"},
    "centroid_z_mm": {"Description": "Centre of mass, superior", "Units": "mm"},
    "zone": {
        "Description": "The one zone of the lesion, after the sites of the 2017 McDonald criteria: that of most of its "
        "volume, part by part",
        "Levels": {
            **ZONE_LEVELS,
            "too-small": "all components below the minimum volume",
            "outside-scan": "lesion voxels where the scan has none",
        },
    },
    "contacts": {"Description": "All zones the lesion touches, separated by commas"},
    "dist_ventricle_mm": {"Description": "Gap to the nearest lateral ventricle, 0 where they touch", "Units": "mm"},
    "dist_cortex_mm": {"Description": "Gap to the nearest cerebral cortex, 0 where they touch", "Units": "mm"},
    "main_region": {"Description": "Region that holds most of the lesion; fluid only where there is nothing else"},
    "regions": {"Description": "Share of the lesion in each region, largest first: name=fraction, comma between"},
    "relative_intensity": {
        "Description": "Mean grey value over the median of white matter outside the lesions, these dilated by 3 mm",
        "Units": "arbitrary",
    },
    "parts": {"Description": "How many parts a confluent lesion is split into at its necks; 1 for any other"},
}
PART_COLUMNS: dict[str, dict[str, Any]] = {
    "part": {"Description": "Number of the part, by lesion and then by volume; its value in the image of parts"},
    "lesion": {"Description": "Number of the lesion that the part belongs to, as in the table of lesions"},
    "volume_mm3": {"Description": "Counted on the lesion mask's own grid", "Units": "mm^3"},
    **{name: LESION_COLUMNS[name] for name in ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm")},
    "zone": {
        "Description": "The one zone of the part, after the sites of the 2017 McDonald criteria",
        "Levels": ZONE_LEVELS,
    },
    "contacts": {"Description": "All zones the part touches, separated by commas"},
    "ventricle_share": {"Description": "Share of the part's surface at the lateral ventricles"},
    "cortex_share": {"Description": "Share of the part's surface at the cerebral cortex"},
    **{name: LESION_COLUMNS[name] for name in ("dist_ventricle_mm", "dist_cortex_mm")},
    "main_region": {"Description": "Region that holds most of the part; fluid only where there is nothing else"},
}
LOAD_COLUMNS: dict[str, dict[str, Any]] = {
    "level": {
        "Description": "What the row is about; the volumes of the rows of one level add up to the total",
        "Levels": {
            "total": "the whole mask",
            "zone": "zone of each lesion",
            "part": "zone of each part of a lesion, counting parts instead of lesions",
            "voxel": "zone of each voxel: of the nearer wall up to a gap, deep beyond",
            "region": "regions of the segmentation",
            "lobe": "lobes of the segmentation",
            "band": "distance of each voxel from the lateral ventricles in mm",
        },
    },
    "name": {"Description": "Zone, region, lobe or band; outside is what lies outside the brain"},
    "index": {"Description": "Code of the region or lobe in its label table"},
    "count": {"Description": "Lesions of this zone; lesions with more volume here than in any other row of the level"},
    "count_touching": {"Description": "Lesions with any volume here; for zones, lesions in contact with it"},
    "volume_mm3": {"Description": "Lesion volume here, components below the minimum included", "Units": "mm^3"},
    "fraction_of_region": {"Description": "Lesion volume here over the volume of the region (or lobe, or brain)"},
    "fraction_of_lesions": {"Description": "Lesion volume here over that of the whole mask"},
    "largest_mm3": {"Description": "Largest volume that one lesion has here", "Units": "mm^3"},
}


def lesion_rows(report: LesionReport) -> list[dict[str, Any]]:
    """Rows of the lesions table, columns as in ``LESION_COLUMNS``; small and outside components in one row each."""
    names = region_names()
    rows = []
    for lesion in report.lesions:
        row = {name: getattr(lesion, name) for name in LESION_COLUMNS if hasattr(lesion, name)}
        row |= dict(zip(("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"), lesion.centroid_mm, strict=True))
        row |= {"contacts": ",".join(lesion.contacts), "main_region": names[lesion.main_region]}
        row["regions"] = ",".join(f"{names[code]}={share:.3f}" for code, share in lesion.regions)
        rows.append(row)
    for number, zone, small in (
        (0, TOO_SMALL, small_volumes_mm3(report)),
        (None, NOT_IN_SCAN, not_in_scan_mm3(report)),
    ):
        if len(small):
            rows.append({"lesion": number, "volume_mm3": float(small.sum()), "zone": zone})
    return rows


def part_rows(report: LesionReport) -> list[dict[str, Any]]:
    """Rows of the table of parts, columns as in ``PART_COLUMNS``."""
    names = region_names()
    rows = []
    for part in report.parts:
        row = vars(part) | dict(zip(("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"), part.centroid_mm, strict=True))
        rows.append(row | {"contacts": ",".join(part.contacts), "main_region": names[part.main_region]})
    return rows


@cache
def region_names() -> dict[int, str]:
    """Names of the region codes; 0 is outside the brain."""
    return {0: OUTSIDE} | {label.index: label.name for label in label_table("regions")}


LESION_TABLES = (tuple(LESION_COLUMNS), tuple(PART_COLUMNS), tuple(LOAD_COLUMNS))


def write_lesions(
    report: LesionReport, image: Image, files: Sequence[Path], sidecar: Mapping[str, Any] | None = None
) -> None:
    """Write tables and images, and the JSON about each, to twelve files.

    In this order, each followed by its JSON: tables of lesions, parts and loads; images of the number of the lesion, of
    that of the part, and of the regions with lesions as 25 (left) and 57 (right). ``image`` is the scan, for its
    header; ``sidecar`` is added to the JSON of the images.
    """
    pairs = list(zip(files[::2], files[1::2], strict=True))
    loads = [vars(row) for row in lesion_loads(report)]
    tables = ((lesion_rows(report), LESION_COLUMNS), (part_rows(report), PART_COLUMNS), (loads, LOAD_COLUMNS))
    for (table, _), (rows, columns) in zip(pairs, tables, strict=False):
        write_table(table, rows, columns)
    described = {**summary(report), **(sidecar or {})}
    images = (
        (report.labels, NUMBERS_ABOUT),
        (report.part_labels, PARTS_ABOUT),
        (regions_with_lesions(report), REGIONS_ABOUT),
    )
    for (path, about_path), (data, about) in zip(pairs[len(tables) :], images, strict=True):
        save(path, data, image.affine, like=image)
        _write_json(about_path, {**about, **described})


def regions_with_lesions(report: LesionReport) -> NDArray[np.uint16]:
    """The corrected region map with lesions painted over as 25 (left) and 57 (right)."""
    codes = report.anatomy.labels("regions").copy()
    lesion = report.labels > 0
    codes[lesion] = np.array(LESION_CODES)[_sides(report.anatomy, np.argwhere(lesion))]
    return codes


def _sides(anatomy: Anatomy, voxels: NDArray[np.intp]) -> NDArray[np.intp]:
    """0 left, 1 right of voxels (N, 3); on the midline, by the plane halfway between the two halves of the cerebrum."""
    side: NDArray[np.intp] = anatomy.side[tuple(voxels.T)].astype(np.intp)
    midline = np.isin(anatomy.tissue[tuple(voxels.T)], [TISSUE[name] for name in MIDLINE_TISSUES])
    white = anatomy.tissue == TISSUE["white-matter"]
    halves = [np.argwhere(white & (anatomy.side == which)) for which in (0, 1)]
    if midline.any() and all(len(half) for half in halves):
        left, right = (apply(anatomy.affine, half.mean(0)) for half in halves)
        beyond = (apply(anatomy.affine, voxels[midline]) - (left + right) / 2) @ (right - left)
        side[midline] = beyond > 0
    return side


def summary(report: LesionReport) -> dict[str, Any]:
    """How the lesions were measured, and what was found, for a JSON sidecar or a report."""
    options = report.options
    return {
        "LesionCount": len(report.lesions),
        "LesionVolumeMm3": round(report.mask_volume_mm3, 3),
        "Findings": findings(report.lesions, options),
        "MaskKind": report.kind,
        "Threshold": options.threshold if report.kind == "probability" else None,
        "Connectivity": CONNECTIVITY,
        "MinimumVolumeMm3": options.min_volume_mm3,
        "MinimumLongAxisMm": options.min_long_axis_mm,
        "FacesAloneAcrossSlicesAboveMm": THICK_MM,
        "PartCount": len(report.parts),
        "NeckShare": options.neck_share,
        "MinimumPartDepthMm": options.part_depth_mm,
        "ContactToleranceMm": options.tolerance_mm,
        "CortexContactToleranceMm": options.cortex_tolerance_mm,
        "VentricleContactShare": options.ventricle_share,
        "CortexContactShare": options.cortex_share,
        "VoxelZoneGapMm": options.near_mm,
        "CorrectedVoxels": report.corrected_voxels,
        "Warnings": list(report.warnings),
    }


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write rows as TSV, n/a for what is missing or not a number, and the columns as its JSON data dictionary."""
    handle = io.StringIO()
    writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    write_text(path, handle.getvalue())
    return [path, _write_json(path.with_suffix(".json"), columns)]


def _cell(value: Any) -> str:
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return "n/a"
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    write_text(path, json.dumps(content, indent=2) + "\n")
    return path
