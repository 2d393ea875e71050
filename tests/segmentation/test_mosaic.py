"""Mosaics: where left is, true proportions, any orientation and spacing."""

from __future__ import annotations

import io
from itertools import permutations, product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from bidsseg.imaging.image import Image
from bidsseg.labels import Scheme, label_table
from bidsseg.segmentation.figure import figure_of
from bidsseg.segmentation.mosaic import (
    LONGEST_SIDE_PX,
    VIEWS,
    WIDTH_PX,
    mosaic,
    outlines,
    page,
    plane,
    readable_name,
    scene_of,
    slice_name,
    spread,
)
from tests.segmentation.test_result import two_putamens_and_csf

AXIAL, CORONAL, SAGITTAL = VIEWS
LEFT_FRONTAL, RIGHT_FRONTAL = 3201, 4201
ORIENTATIONS = [(axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def phantom(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> tuple[Image, NDArray[np.uint16]]:
    """An ellipsoid in RAS axes; left is darker and labelled left."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = i**2 + j**2 + k**2 < 0.5
    data = np.where(inside, np.where(i < 0, 100, 200), 10).astype(np.float32)
    codes = np.where(inside, np.where(i < 0, LEFT_FRONTAL, RIGHT_FRONTAL), 0).astype(np.uint16)
    return Image(data, np.diag((*spacing_mm, 1.0))), codes


def reoriented(
    image: Image, codes: NDArray[np.uint16], axes: tuple[int, ...], signs: tuple[int, ...]
) -> tuple[Image, NDArray[np.uint16]]:
    """The same scan stored with other axes."""
    flips = tuple(slice(None, None, sign) for sign in signs)
    stored = np.eye(4)
    stored[:3] = 0
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        stored[old, new] = sign
        stored[old, 3] += 0 if sign > 0 else image.data.shape[old] - 1
    data, moved = image.data.transpose(axes)[flips], codes.transpose(axes)[flips]
    return Image(data, image.affine @ stored, image.header), moved


def test_a_figure_shows_the_page_pixel_by_pixel() -> None:
    image, codes = phantom((40, 48, 12), (1.0, 1.0, 4.0))
    figure = figure_of(image, codes, "regions")
    assert plt.get_fignums() == []
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pixels = np.asarray(Pillow.open(buffer).convert("RGB")).astype(int)
    expected = page(image, codes, "regions").astype(int)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 1


def test_without_its_scan_a_segmentation_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="not at hand"):
        two_putamens_and_csf().plot()


def test_left_is_left_of_the_picture() -> None:
    image, codes = phantom((40, 48, 12), (1.0, 1.0, 4.0))
    scene = scene_of(image, codes, "regions")
    for view in (AXIAL, CORONAL):
        middle = plane(scene.codes, scene, view, scene.codes.shape[view.across] // 2)
        assert middle[middle.shape[0] // 2, middle.shape[1] // 2 - 5] == LEFT_FRONTAL
        assert middle[middle.shape[0] // 2, middle.shape[1] // 2 + 5] == RIGHT_FRONTAL


def test_all_orientations_make_the_same_picture(tmp_path: Path) -> None:
    image, codes = phantom((30, 36, 8), (1.0, 1.0, 4.0))
    expected = scene_of(image, codes, "regions")
    for axes, signs in ORIENTATIONS:
        scene = scene_of(*reoriented(image, codes, axes, signs), "regions")
        assert np.array_equal(scene.codes, expected.codes), (axes, signs)
        assert np.array_equal(scene.scan, expected.scan), (axes, signs)
        assert scene.window == expected.window, (axes, signs)
        assert scene.box == expected.box


def test_slice_numbers_are_those_of_the_stored_scan() -> None:
    image, codes = phantom((30, 36, 8), (1.0, 1.0, 4.0))
    assert slice_name(scene_of(image, codes, "regions"), AXIAL, 2) == "k 2"
    flipped = scene_of(*reoriented(image, codes, (2, 0, 1), (-1, 1, 1)), "regions")
    assert slice_name(flipped, AXIAL, 2) == "i 5"


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.5, 6.0), (5.0, 1.0, 1.0), (10.0, 10.0, 10.0)])
def test_proportions_are_those_of_the_head(spacing_mm: tuple[float, float, float]) -> None:
    shape = tuple(round(200 / mm) for mm in spacing_mm)
    scene = scene_of(*phantom((shape[0], shape[1], shape[2]), spacing_mm), "regions")
    for view in VIEWS:
        width, height = scene.tile_size(view)
        assert width / height == pytest.approx(
            scene.extent_mm(view.horizontal) / scene.extent_mm(view.vertical), rel=0.02
        )
        assert max(width, height) <= LONGEST_SIDE_PX


@pytest.mark.parametrize("scheme", ["regions", "lobes", "gyri"])
@pytest.mark.parametrize("shape", [(40, 44, 40), (60, 60, 1), (64, 64, 5), (1, 40, 40)])
def test_a_mosaic_is_written_whole(tmp_path: Path, scheme: Scheme, shape: tuple[int, int, int]) -> None:
    image, codes = phantom(shape, (2.0, 2.0, 5.0))
    path = tmp_path / "figures" / "mosaic.png"
    mosaic(path, image, np.where(codes > 0, label_table(scheme)[0].index, 0).astype(np.uint16), scheme)
    with Pillow.open(path) as picture:
        assert picture.mode == "RGB"
        assert picture.size[0] == WIDTH_PX
        assert picture.size[1] > 100
    assert [p.name for p in path.parent.iterdir()] == ["mosaic.png"]


def test_colors_lie_over_the_labels(tmp_path: Path) -> None:
    image, codes = phantom((40, 40, 40), (1.0, 1.0, 1.0))
    path = tmp_path / "mosaic.png"
    mosaic(path, image, codes, "regions")
    with Pillow.open(path) as picture:
        pixels = np.asarray(picture).astype(int)
    reddish = (pixels[..., 0] > pixels[..., 1] + 40).sum()  # frontal white matter is #eb235f
    assert reddish > 0.05 * pixels[..., 0].size


def test_no_labels_show_the_whole_scan(tmp_path: Path) -> None:
    image, codes = phantom((40, 40, 20), (1.0, 1.0, 2.0))
    mosaic(tmp_path / "mosaic.png", image, np.zeros_like(codes), "regions")
    assert (tmp_path / "mosaic.png").exists()


def test_codes_on_another_grid_are_refused(tmp_path: Path) -> None:
    image, codes = phantom((40, 40, 20), (1.0, 1.0, 2.0))
    with pytest.raises(ValueError, match=r"shape \(40, 40, 20\), got \(20, 40, 20\)"):
        mosaic(tmp_path / "mosaic.png", image, codes[:20], "regions")
    assert not list(tmp_path.iterdir())


def test_outlines_stay_inside_the_labels() -> None:
    codes = np.zeros((6, 7), np.uint16)
    codes[1:5, 1:4], codes[1:5, 4:6] = 1, 2
    edge = outlines(codes)
    assert not edge[codes == 0].any()
    assert not edge[2:4, 2].any()  # inside label 1
    assert edge[2, 3]  # where label 1 meets label 2
    assert edge[1, 1:6].all()


def test_slices_are_spread_and_differ() -> None:
    assert spread(slice(4, 5), 8) == [4]
    assert spread(slice(0, 3), 8) == [0, 1, 2]
    many = spread(slice(10, 110), 8)
    assert len(many) == 8
    assert (many[0], many[-1]) == (16, 103)


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("ctx-lh-frontal-lobe", "Frontal cortex"),
        ("wm-rh-insula-lobe", "Insula white matter"),
        ("Left-Inf-Lat-Vent", "Inferior lateral ventricle"),
        ("3rd-Ventricle", "3rd ventricle"),
        ("Right-Deep-Grey", "Deep grey"),
        ("Left ACgG anterior cingulate gyrus", "ACgG anterior cingulate gyrus"),
        ("Cerebellar Vermal Lobules VI-VII", "Cerebellar vermal lobules VI-VII"),
        ("CSF", "CSF"),
        ("Midline-Ventricles", "Ventricles"),
    ],
)
def test_readable_names(name: str, readable: str) -> None:
    assert readable_name(name) == readable
