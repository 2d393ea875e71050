"""Lesions as a layer of the viewer: images on the scan's grid, and what is told of each lesion at the cursor."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.bids.names import parse_scan
from bidsseg.bids.outputs import LesionOutputs, ScanOutputs, lesions_beside
from bidsseg.errors import FileError
from bidsseg.files import read_json, read_tsv
from bidsseg.imaging.image import Image, load
from bidsseg.lesions.records import FOUND
from bidsseg.lesions.zones import ZONES
from bidsseg.report.lesion_mosaic import ZONE_COLORS


@dataclass(frozen=True)
class LesionLayer:
    """What the viewer shows of the lesions of a scan; empty for a scan without lesions."""

    codes: Mapping[str, Image]
    "``lesions`` holds the number of each voxel's lesion and ``parts``, where it is known, that of its part."
    probability: Image | None
    "Of lesion, 0 to 1, where the network found them."
    about: Mapping[str, Any]
    "For the viewer's script; empty where the tables cannot be read."


def lesion_layer(place: ScanOutputs, labels: Image) -> LesionLayer:
    """The lesions of the scan's session that lie on the grid of the scan's labels."""
    for found in lesions_beside(place):
        lesions = _on_grid_of(labels, found.image)
        if lesions is None or not lesions.data.any():
            continue
        about = lesions_in_words(found)
        parts = _on_grid_of(labels, found.parts_image) if "zone_of_part" in about else None
        codes = {"lesions": lesions} | ({"parts": parts} if parts else {})
        return LesionLayer(codes, _probability(place, found, labels), about)
    return LesionLayer({}, None, {})


def _on_grid_of(labels: Image, path: Path) -> Image | None:
    """An image, if there is one on the grid of the labels."""
    try:
        found = load(path, uniform_ok=True)
    except FileError:
        return None
    fits = found.data.shape == labels.data.shape and np.allclose(found.affine, labels.affine, atol=1e-3)
    return found if fits else None


def _probability(place: ScanOutputs, found: LesionOutputs, labels: Image) -> Image | None:
    """Of the scan that the lesions were found in, which need not be the one that is shown."""
    content = read_json(found.summary)
    if content.get("LesionsFrom") != FOUND:
        return None
    try:
        scan = parse_scan(Path(f"{content.get('Scan')}.nii.gz"))
    except ValueError:
        return None
    return _on_grid_of(labels, ScanOutputs(scan, place.out, place.out).lesion_probabilities)


def lesions_in_words(found: LesionOutputs) -> dict[str, Any]:
    """Zones with their colours, and by number each lesion's volume and the place of its zone among them."""
    try:
        lesions = {int(row["lesion"]): row for row in read_tsv(found.table) if row["lesion"].isdigit()}
        volumes_ml = {number: float(row["volume_mm3"]) / 1000 for number, row in lesions.items()}
        zone_of = _by_number({number: row["zone"] for number, row in lesions.items()})
    except (OSError, ValueError, KeyError, csv.Error):
        return {}
    numbers = range(len(zone_of))
    return {
        "base": found.base.name,
        "zones": [
            {"name": name.replace("-", " "), "color": color} for name, color in zip(ZONES, ZONE_COLORS, strict=True)
        ],
        "zone_of": zone_of,
        "ml_of": [round(volumes_ml.get(number, 0.0), 4) for number in numbers],
        **_zones_of_parts(found),
    }


def _zones_of_parts(found: LesionOutputs) -> dict[str, list[int]]:
    """Empty in results of versions that knew no parts: lesions then have the colours of their own zones."""
    try:
        return {"zone_of_part": _by_number({int(row["part"]): row["zone"] for row in read_tsv(found.parts_table)})}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}


def _by_number(zones: Mapping[int, str]) -> list[int]:
    """1 + place of the zone by number of the lesion or part, from 0; the last for a zone that is none of ours."""
    named = (zones.get(number, "") for number in range(max(zones, default=0) + 1))
    return [1 + ZONES.index(zone) if zone in ZONES else len(ZONES) for zone in named]
