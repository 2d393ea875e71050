"""Lesions coloured by the zone of their parts: slices with the most lesion, plain and coloured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw

from bidsseg.imaging.grid import to_ras_order
from bidsseg.imaging.image import Image
from bidsseg.lesions.records import LesionReport
from bidsseg.lesions.zones import ZONES
from bidsseg.segmentation.mosaic import (
    GAP_PX,
    LEGEND_ROW_PX,
    MAX_COLUMNS,
    TEXT_COLOR,
    VIEWS,
    WIDTH_PX,
    Bytes,
    Scene,
    View,
    annotate,
    code_tile,
    font,
    framed,
    grey_tile,
    outlines,
    scene_of,
    side_by_side,
    slice_name,
    write_png,
)

ZONE_COLORS = ("#e6194b", "#ffb000", "#3cb44b", "#00b5d8", "#c77dff", "#9a9a9a")
"Colours of ``ZONES``, in their order; distinct on grey and on white, also for the colour-blind."
OPACITY, OUTLINE_OPACITY = 0.6, 1.0


def zone_codes(report: LesionReport) -> NDArray[np.uint16]:
    """1 + the zone's place in ``ZONES`` of every lesion voxel on the scan's own grid, 0 elsewhere; (I, J, K)."""
    codes = np.array([0, *(1 + ZONES.index(part.zone) for part in report.parts)], np.uint16)
    return codes[report.part_labels]


def zone_mosaic(path: Path, image: Image, report: LesionReport) -> None:
    """Write a PNG of axial, coronal and sagittal slices, plain and with lesions coloured by zone, whole or not at all.

    Shown are the slices that hold the most lesion, at some distance from one another, in the box of the brain.
    """
    regions = report.anatomy.labels("regions")
    scene = scene_of(image, regions, "regions")
    grid = image.grid
    colors = np.array([(0, 0, 0), *(tuple(bytes.fromhex(color[1:])) for color in ZONE_COLORS)], np.uint8)
    scene = replace(scene, codes=to_ras_order(zone_codes(report), grid), colors=colors)
    strips = [strip for view in VIEWS for strip in _strips(scene, view)]
    page = np.concatenate([framed(strip) for strip in (*strips, _legend(report))])
    write_png(path, page)


def _strips(scene: Scene, view: View) -> list[Bytes]:
    """One row of plain slices and one with lesions."""
    width, height = scene.tile_size(view)
    columns = int(np.clip((WIDTH_PX + GAP_PX) // (width + GAP_PX), 1, MAX_COLUMNS))
    slices = fullest(scene, view, columns)
    plain = [grey_tile(scene, view, index) for index in slices]
    painted = [_painted(tile, code_tile(scene, view, n), scene.colors) for tile, n in zip(plain, slices, strict=True)]
    names = [slice_name(scene, view, index) for index in slices]
    return [
        side_by_side([annotate(tile, view, name) for tile, name in zip(tiles, names, strict=True)], height)
        for tiles in (plain, painted)
    ]


def fullest(scene: Scene, view: View, count: int) -> list[int]:
    """Up to ``count`` slices, in order: of as many equal parts of the lesions' extent, those with most lesion.

    Without lesions, slices evenly through the labelled brain.
    """
    others = tuple(axis for axis in range(3) if axis != view.across)
    lesion = np.count_nonzero(scene.codes, axis=others)
    found = np.flatnonzero(lesion)
    if len(found) == 0:
        side = scene.labelled[view.across]
        return sorted(set(np.linspace(side.start, side.stop - 1, count + 2)[1:-1].astype(int).tolist()))
    parts = np.array_split(np.arange(found[0], found[-1] + 1), count)
    return [int(part[lesion[part].argmax()]) for part in parts if len(part)]


def _painted(tile: Bytes, codes: NDArray[np.uint16], colors: Bytes) -> Bytes:
    opacity = np.where(codes > 0, OPACITY, 0.0)
    opacity[outlines(codes)] = OUTLINE_OPACITY
    blend: Bytes = (tile * (1 - opacity[..., None]) + colors[codes] * opacity[..., None]).astype(np.uint8)
    return blend


def _legend(report: LesionReport) -> Bytes:
    """Colour and name of every zone, how many parts of lesions it has and their volume."""
    picture = Pillow.new("RGB", (WIDTH_PX, LEGEND_ROW_PX + 8))
    pen = ImageDraw.Draw(picture)
    for number, zone in enumerate(ZONES):
        found = [part.volume_mm3 for part in report.parts if part.zone == zone]
        x, y = number * WIDTH_PX // len(ZONES) + 6, 6
        pen.rectangle((x, y, x + 12, y + 12), ZONE_COLORS[number])
        text = f"{zone.replace('-', ' ')}: {len(found)}, {sum(found) / 1000:.2f} mL"
        pen.text((x + 18, y + 6), text, TEXT_COLOR, font(13), anchor="lm")
    return np.asarray(picture)
