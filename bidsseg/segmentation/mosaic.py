"""A mosaic of a scan and its labels: every slice plain and coloured, so that an error can be seen.

Neurological convention (the left of the picture is the patient's left, and the picture says so), true proportions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from bidsseg.authorship import SOFTWARE
from bidsseg.files import whole
from bidsseg.imaging.arrays import Box, Floats, box_around
from bidsseg.imaging.grid import Grid, to_ras_order
from bidsseg.imaging.image import Image
from bidsseg.labels import Label, Scheme, label_table

Bytes = NDArray[np.uint8]

WIDTH_PX = 1900
LONGEST_SIDE_PX = 260
GAP_PX = 3
MAX_COLUMNS = 10
MARGIN_MM = 12.0
"Shown around the labelled brain, to see what was left out."
OPACITY = 0.38
OUTLINE_OPACITY = 0.95
TEXT_COLOR = (235, 235, 235)
FAINT_COLOR = (150, 150, 150)
LEGEND_COLUMN_PX = 190
LEGEND_ROW_PX = 20
IN_FULL = {"Inf lat vent": "Inferior lateral ventricle", "VentralDC": "Ventral diencephalon"}


@dataclass(frozen=True)
class View:
    """A direction of slicing, in RAS axes."""

    across: int
    "The axis the slices follow."
    horizontal: int
    vertical: int
    left_mark: str
    right_mark: str


VIEWS = (View(2, 0, 1, "L", "R"), View(1, 0, 2, "L", "R"), View(0, 1, 2, "P", "A"))


class Window(NamedTuple):
    """Grey values that are shown as different."""

    low: float
    "Shown as nearly black."
    width: float
    "From there to what is shown as nearly white."

    def levels(self, values: Floats) -> Bytes:
        """0-255; there is head room, so that what is brighter than the brain still differs from it."""
        levels: Bytes = np.clip((values - self.low) / self.width * 225 + 15, 0, 255).astype(np.uint8)
        return levels


@dataclass(frozen=True)
class Scene:
    """A scan and its labels in RAS axis order, with the box to show."""

    scan: Floats
    window: Window
    codes: NDArray[np.uint16]
    grid: Grid
    box: Box
    labelled: Box
    "From the first to the last labelled slice of each axis."
    colors: Bytes
    "RGB by code, (codes, 3)."

    @cached_property
    def pixels_per_mm(self) -> float:
        return LONGEST_SIDE_PX / max(self.extent_mm(axis) for axis in range(3))

    def extent_mm(self, axis: int) -> float:
        return float((self.box[axis].stop - self.box[axis].start) * self.grid.spacing_mm[axis])

    def tile_size(self, view: View) -> tuple[int, int]:
        """Width and height of one slice, in pixels."""
        width, height = (
            max(8, round(self.extent_mm(a) * self.pixels_per_mm)) for a in (view.horizontal, view.vertical)
        )
        return width, height


def mosaic(path: Path, image: Image, codes: NDArray[np.uint16], scheme: Scheme) -> None:
    """Write the ``page`` of a scan as a PNG, which appears complete or not at all."""
    write_png(path, page(image, codes, scheme))


def page(image: Image, codes: NDArray[np.uint16], scheme: Scheme) -> Bytes:
    """Axial, coronal and sagittal slices, plain and with the labels' colours and outlines: (height, width, 3).

    ``codes`` (I, J, K) lie on the image's own grid; any orientation and spacing. Raises ``ValueError`` where they
    do not.
    """
    if codes.shape != image.data.shape:
        raise ValueError(f"codes must have the image's shape {image.data.shape}, got {codes.shape}")
    scene = scene_of(image, codes, scheme)
    strips = [strip for view in VIEWS for strip in view_strips(scene, view)]
    strips.append(legend(shown_labels(scene.codes[scene.box], scheme), scheme))
    return np.concatenate([framed(strip) for strip in strips])


def scene_of(image: Image, codes: NDArray[np.uint16], scheme: Scheme) -> Scene:
    """Bring a scan and its labels to RAS axis order and frame the labelled brain."""
    grid = image.grid
    ordered = to_ras_order(codes, grid)
    labelled = box_around(ordered > 0)
    box = widened(labelled, ordered.shape, grid.spacing_mm)
    scan = to_ras_order(image.data, grid)
    return Scene(
        scan, window_of(scan, ordered, box), ordered, grid, box, labelled, color_table(scheme, int(codes.max()))
    )


def widened(box: Box, shape: tuple[int, ...], spacing_mm: NDArray[np.float64]) -> Box:
    """The box with a margin, within the field of view."""
    margins = np.ceil(MARGIN_MM / spacing_mm).astype(int)
    i, j, k = (
        slice(max(0, side.start - int(margin)), min(size, side.stop + int(margin)))
        for side, margin, size in zip(box, margins, shape, strict=True)
    )
    return i, j, k


def window_of(volume: Floats, codes: NDArray[np.uint16], box: Box) -> Window:
    """The contrast of the labelled brain in the box, or of the whole scan where nothing is labelled."""
    counted = volume[box][codes[box] > 0]
    if counted.size < 100 or counted.min() == counted.max():
        counted = volume[volume > volume.min()] if volume.min() < volume.max() else volume.reshape(-1)
    low, high = np.percentile(counted[:: max(1, counted.size // 200_000)], (0.5, 99.7))
    return Window(low, float(high - low) or 1.0)


def color_table(scheme: Scheme, highest: int) -> Bytes:
    """RGB by code, (codes, 3); white for a code the scheme does not have."""
    table = label_table(scheme)
    colors = np.full((max(highest, *(label.index for label in table)) + 1, 3), 255, np.uint8)
    for label in table:
        colors[label.index] = tuple(bytes.fromhex(label.color.lstrip("#")))
    return colors


def view_strips(scene: Scene, view: View) -> Iterator[Bytes]:
    """One row of plain slices and one of the same slices with labels."""
    width, height = scene.tile_size(view)
    columns = int(np.clip((WIDTH_PX + GAP_PX) // (width + GAP_PX), 1, MAX_COLUMNS))
    slices = spread(scene.labelled[view.across], columns)
    plain = [grey_tile(scene, view, index) for index in slices]
    colored = [
        overlay(tile, code_tile(scene, view, index), scene.colors) for tile, index in zip(plain, slices, strict=True)
    ]
    for tiles in (plain, colored):
        annotated = [
            annotate(tile, view, slice_name(scene, view, index)) for tile, index in zip(tiles, slices, strict=True)
        ]
        yield side_by_side(annotated, height)


def spread(side: slice, count: int) -> list[int]:
    """Up to ``count`` different slices, evenly over the side without its outermost tips."""
    tip = (side.stop - side.start) * 0.06
    return sorted(set(np.rint(np.linspace(side.start + tip, side.stop - 1 - tip, count)).astype(int).tolist()))


def slice_name(scene: Scene, view: View, index: int) -> str:
    """The slice's axis and number in the stored scan, as any viewer counts them from 0."""
    axis = int(np.flatnonzero(scene.grid.orientation[:, 0] == view.across)[0])
    size = scene.grid.native_shape[axis]
    stored = size - 1 - index if scene.grid.orientation[axis, 1] < 0 else index
    return f"{'ijk'[axis]} {stored}"


def plane(volume: NDArray[Any], scene: Scene, view: View, index: int) -> NDArray[Any]:
    """One slice within the box as a picture: rows from top to bottom, columns from left to right."""
    window: list[slice | int] = list(scene.box)
    window[view.across] = index
    return np.ascontiguousarray(volume[tuple(window)].T[::-1])


def grey_tile(scene: Scene, view: View, index: int) -> Bytes:
    """(height, width, 3) of the plain slice."""
    picture = Pillow.fromarray(scene.window.levels(plane(scene.scan, scene, view, index)))
    smooth = np.asarray(picture.resize(scene.tile_size(view), Pillow.Resampling.BICUBIC))
    return np.repeat(smooth[..., None], 3, axis=-1)


def code_tile(scene: Scene, view: View, index: int) -> NDArray[np.uint16]:
    """(height, width) of the label codes: voxels stay as they are, however thick."""
    codes = plane(scene.codes, scene, view, index)
    width, height = scene.tile_size(view)
    rows = (np.arange(height) + 0.5) * codes.shape[0] / height
    columns = (np.arange(width) + 0.5) * codes.shape[1] / width
    return codes[np.ix_(rows.astype(int), columns.astype(int))]


def overlay(tile: Bytes, codes: NDArray[np.uint16], colors: Bytes) -> Bytes:
    """The tile with half-transparent labels and their outlines."""
    opacity = np.where(codes > 0, OPACITY, 0.0)
    opacity[outlines(codes)] = OUTLINE_OPACITY
    blend: Bytes = (tile * (1 - opacity[..., None]) + colors[codes] * opacity[..., None]).astype(np.uint8)
    return blend


def outlines(codes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """The labelled pixels whose right or lower neighbour differs, and those that border on background."""
    edge = np.zeros(codes.shape, bool)
    below, right = codes[:-1] != codes[1:], codes[:, :-1] != codes[:, 1:]
    edge[:-1] |= below
    edge[:, :-1] |= right
    edge[1:] |= below & (codes[:-1] == 0)
    edge[:, 1:] |= right & (codes[:, :-1] == 0)
    return edge & (codes > 0)


def annotate(tile: Bytes, view: View, name: str) -> Bytes:
    """Write the sides and the slice's name into a copy of the tile."""
    picture = Pillow.fromarray(tile)
    pen = ImageDraw.Draw(picture)
    middle = tile.shape[0] // 2
    pen.text((3, middle), view.left_mark, TEXT_COLOR, font(13), anchor="lm", stroke_width=1, stroke_fill=(0, 0, 0))
    at_right = (tile.shape[1] - 3, middle)
    pen.text(at_right, view.right_mark, TEXT_COLOR, font(13), anchor="rm", stroke_width=1, stroke_fill=(0, 0, 0))
    pen.text((3, 2), name, FAINT_COLOR, font(10), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(picture)


def font(size: float) -> Any:
    """Pillow's built-in font."""
    return ImageFont.load_default(size)


def side_by_side(tiles: list[Bytes], height: int) -> Bytes:
    gap = np.zeros((height, GAP_PX, 3), np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)][:-1]
    return np.concatenate(parts, axis=1)


def framed(strip: Bytes) -> Bytes:
    """The strip in the middle of the page's width, with a gap beneath."""
    page = np.zeros((strip.shape[0] + GAP_PX, max(WIDTH_PX, strip.shape[1]), 3), np.uint8)
    left = (page.shape[1] - strip.shape[1]) // 2
    page[: strip.shape[0], left : left + strip.shape[1]] = strip
    return page


def shown_labels(codes: NDArray[np.uint16], scheme: Scheme) -> list[Label]:
    """The labels found in the scan, one for both sides of a structure."""
    found = {code for plane in codes for code in np.flatnonzero(np.bincount(plane.reshape(-1))).tolist()}
    labels = [label for label in label_table(scheme) if label.index in found]
    return list({readable_name(label.name): label for label in labels}.values())


def readable_name(name: str) -> str:
    """A label's name without its side, in words: ``ctx-lh-frontal-lobe`` is frontal cortex."""
    lobar = re.fullmatch(r"(ctx|wm)-[lr]h-(.+?)(?:-lobe)?", name)
    if lobar:
        return f"{lobar[2].capitalize()} {'cortex' if lobar[1] == 'ctx' else 'white matter'}"
    sideless = re.sub(r"^(left|right|midline)[- ]", "", name, flags=re.IGNORECASE)
    first, *others = (sideless if " " in sideless else sideless.replace("-", " ")).split()
    words = " ".join([first, *(word.lower() if word.istitle() else word for word in others)])
    return IN_FULL.get(words, words[:1].upper() + words[1:])


def legend(labels: list[Label], scheme: Scheme) -> Bytes:
    """Colour patches with names, in as many rows as they need."""
    column_px = LEGEND_COLUMN_PX // 2 if scheme == "gyri" else LEGEND_COLUMN_PX
    columns = WIDTH_PX // column_px
    rows = -(-len(labels) // columns)
    picture = Pillow.new("RGB", (WIDTH_PX, rows * LEGEND_ROW_PX + 8))
    pen = ImageDraw.Draw(picture)
    for number, label in enumerate(labels):
        x, y = number % columns * column_px + 6, number // columns * LEGEND_ROW_PX + 6
        pen.rectangle((x, y, x + 12, y + 12), label.color)
        name = label.abbreviation[2:] if scheme == "gyri" and label.hemisphere else label.abbreviation
        pen.text(
            (x + 18, y + 6), name if scheme == "gyri" else readable_name(label.name), TEXT_COLOR, font(12), anchor="lm"
        )
    return np.asarray(picture)


def write_png(path: Path, picture: Bytes) -> None:
    """Write the file whole or not at all."""
    with whole(path) as temporary:
        # Level 3 makes these pictures as small as 6 does, in half its time.
        about = PngInfo()
        about.add_text("Software", SOFTWARE)
        Pillow.fromarray(picture).save(temporary, format="PNG", compress_level=3, pnginfo=about)
