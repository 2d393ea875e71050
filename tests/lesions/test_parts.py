from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.loads import lesion_loads
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.records import LesionReport
from bidsseg.lesions.tables import part_rows
from bidsseg.lesions.zones import ZONES, zone_by_voxel
from tests.lesion_phantom import Bounds, Spacing, affine_of, ball, boxes, brain, image

SPACINGS: list[Spacing] = [(1, 1, 1), (0.5, 0.5, 3), (1, 1, 6)]
THICK: Spacing = (1, 1, 6)


def measure(mask: np.ndarray, spacing: Spacing, options: LesionOptions | None = None) -> LesionReport:
    segmentation = brain(spacing)
    grey = image(np.where(mask, 150, 100), segmentation.affine)
    return lesion_features(grey, image(mask, affine_of(spacing)), segmentation, options)


def volumes(report: LesionReport) -> list[list[float]]:
    """Of the parts of each lesion."""
    return [[part.volume_mm3 for part in report.parts if part.lesion == one.lesion] for one in report.lesions]


# two blocks of 12 mm in the upper white matter, 8 mm apart: 1728 mm3 each, joined by a bar of some width
LEFT, RIGHT = (-16, -4, -6, 6, 18, 30), (4, 16, -6, 6, 18, 30)
BAR_OF: dict[int, Bounds] = {width: (-4, 4, -width / 2, width / 2, 18, 30) for width in (2, 4, 10, 12)}


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize(("width", "parts"), [(2, 2), (4, 2), (10, 1), (12, 1)])
def test_a_lesion_is_split_at_a_narrow_neck_alone(width: int, parts: int, spacing: Spacing) -> None:
    report = measure(boxes(spacing, [LEFT, RIGHT, BAR_OF[width]]), spacing)
    (found,) = volumes(report)
    assert len(found) == report.lesions[0].parts == parts
    assert sum(found) == pytest.approx(2 * 1728 + 8 * width * 12)
    if parts == 2:
        assert found[0] == pytest.approx(found[1], rel=0.1)


def test_every_voxel_has_the_part_of_its_block() -> None:
    report = measure(boxes((1, 1, 1), [LEFT, RIGHT, BAR_OF[2]]), (1, 1, 1))
    (left,), (right,) = (np.unique(report.part_labels[boxes((1, 1, 1), [block])]) for block in (LEFT, RIGHT))
    assert {left, right} == {1, 2}
    assert (report.part_labels > 0).sum() == (report.labels > 0).sum()


def test_a_bump_is_no_part() -> None:
    """2 mm wide, 2 mm long: too shallow to be a lesion of its own."""
    report = measure(boxes((1, 1, 1), [LEFT, (-4, -2, -1, 1, 20, 22)]), (1, 1, 1))
    assert volumes(report) == [[1728 + 8]]


def test_parts_are_numbered_by_lesion_and_size() -> None:
    small: list[Bounds] = [(-20, -14, 20, 26, 20, 26), (-14, -10, 22, 23, 22, 23), (-10, -4, 20, 26, 20, 26)]
    report = measure(boxes((1, 1, 1), [LEFT, RIGHT, BAR_OF[2], *small]), (1, 1, 1))
    assert [(part.part, part.lesion) for part in report.parts] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert all(found == sorted(found, reverse=True) for found in volumes(report))


# two blocks 6 mm thick, in slices that follow one another (z from 18 to 24 and from 24 to 30)
LOWER: Bounds = (-12, 0, -6, 6, 18, 24)


@pytest.mark.parametrize(
    ("upper", "lesions", "parts"),
    [
        ((0, 12, -6, 6, 24, 30), 2, 2),  # side by side, no overlap
        ((0, 12, 6, 18, 24, 30), 2, 2),  # corner to corner
        ((-2, 10, -6, 6, 24, 30), 1, 2),  # 2 mm of overlap: a narrow neck
        ((-10, 2, -6, 6, 24, 30), 1, 1),  # 10 mm of overlap
    ],
)
def test_across_thick_slices_pieces_belong_together_where_they_overlap(upper: Bounds, lesions: int, parts: int) -> None:
    report = measure(boxes(THICK, [LOWER, upper]), THICK)
    assert (len(report.lesions), len(report.parts)) == (lesions, parts)
    assert len(measure(boxes((1, 1, 1), [LOWER, upper]), (1, 1, 1)).lesions) == 1


def test_thin_lesions_are_as_thick_as_their_slice() -> None:
    """Columns of one voxel, off the 1 mm grid, over one another in two slices: one lesion."""
    spacing: Spacing = (0.75, 0.75, 6)
    report = measure(boxes(spacing, [(20.3, 21, 20.3, 21, 12, 24)]), spacing, LesionOptions(min_volume_mm3=1))
    assert [lesion.volume_mm3 for lesion in report.lesions] == pytest.approx([2 * 0.75**2 * 6])


# ---- zones of parts


CHAIN = ("periventricular", "deep-white-matter", "juxtacortical")
SIDES, ROWS_MM, HEIGHTS_MM = (-1, 1), (-12, 0, 12), (4, 6, 8)


def chain(spacing: Spacing, side: int, row: float, height: float) -> list[np.ndarray]:
    """Balls 1 mm into the ventricle, in the middle of white matter, 2 mm into the cortex; and a wall joining them."""
    radius = 4 if row else 5
    centres = [side * x for x in (5 + radius, 21, 38 - radius)]
    low, high = sorted(side * x for x in (8, 34))
    wall: Bounds = (low, high, row - 1, row + 1, height - radius, height + radius)
    return [*(ball(spacing, (x, row, height), radius) for x in centres), boxes(spacing, [wall])]


@cache
def zones_of_chains(spacing: Spacing) -> list[tuple[str, str]]:
    """Zone wanted and found at the centre of every ball."""
    zones = []
    for height in HEIGHTS_MM:
        chains = [chain(spacing, side, row, height) for side in SIDES for row in ROWS_MM]
        report = measure(np.any([piece for one in chains for piece in one], axis=0), spacing)
        for balls in chains:
            for wanted, place in zip(CHAIN, balls, strict=False):
                number = np.bincount(report.part_labels[place]).argmax()
                zones.append((wanted, report.parts[number - 1].zone if number else "none"))
    return zones


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 3), (1, 1, 6), (1, 1, 8)], ids=str)
def test_parts_at_known_places_get_their_zone(spacing: Spacing) -> None:
    found = zones_of_chains(spacing)
    assert len(found) == 54
    right = np.mean([wanted == zone for wanted, zone in found])
    assert right >= 0.95, [pair for pair in found if pair[0] != pair[1]]


def test_the_whole_has_the_zone_of_most_of_its_volume_and_touches_what_its_parts_touch() -> None:
    report = measure(np.any(chain((1, 1, 1), 1, 0, 6), axis=0), (1, 1, 1))
    (lesion,) = report.lesions
    assert sorted(part.zone for part in report.parts) == sorted(CHAIN)
    assert set(lesion.contacts) == set(CHAIN)
    assert lesion.zone == max(report.parts, key=lambda part: part.volume_mm3).zone
    assert [row["part"] for row in part_rows(report)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("block", "share", "zone"),
    [
        # a finger of one voxel reaches the cortex
        ([(20, 32, -6, 6, 6, 12), (32, 36, 0, 1, 8, 9)], "cortex_share", "deep-white-matter"),
        # a face of 72 mm2 touches it, of the 576 mm2 of a block and of the 288 of a plate
        ([(24, 36, -6, 6, 6, 12)], "cortex_share", "deep-white-matter"),
        ([(32, 36, -6, 6, 6, 12)], "cortex_share", "juxtacortical"),
    ],
)
def test_contact_is_a_share_of_the_surface(block: list[Bounds], share: str, zone: str) -> None:
    (part,) = measure(boxes((1, 1, 1), block), (1, 1, 1)).parts
    assert part.zone == zone
    assert (getattr(part, share) >= LesionOptions().cortex_share) == (zone == "juxtacortical")


def test_share_by_hand() -> None:
    """A cube of 6 mm on the cortex: 152 voxels at its surface, 36 in the first layer, a ring of 20 in the second."""
    (part,) = measure(boxes((1, 1, 1), [(30, 36, 8, 14, 18, 24)]), (1, 1, 1)).parts
    assert part.cortex_share == pytest.approx(56 / 152)
    assert part.ventricle_share == 0


# ---- zones of voxels


@pytest.mark.parametrize(
    ("tissue", "ventricle_mm", "cortex_mm", "zone"),
    [
        ("white-matter", 1, 9, "periventricular"),
        ("white-matter", 9, 1, "juxtacortical"),
        ("white-matter", 2, 2, "periventricular"),
        ("white-matter", 5.1, 5.1, "deep-white-matter"),
        ("white-matter", 5, 9, "periventricular"),
        ("white-matter", np.nan, np.nan, "deep-white-matter"),
        ("lateral-ventricle", 0, 20, "periventricular"),
        ("cortex", 20, 0, "juxtacortical"),
        ("thalamus", 0, 20, "deep-grey"),
        ("brainstem", 0, 0, "infratentorial"),
        ("csf", 20, 1, "juxtacortical"),
        ("background", 20, 20, "outside"),
    ],
)
def test_zone_of_a_voxel(tissue: str, ventricle_mm: float, cortex_mm: float, zone: str) -> None:
    from bidsseg.labels import TISSUE

    (found,) = zone_by_voxel(np.array([TISSUE[tissue]]), np.array([ventricle_mm]), np.array([cortex_mm]), near_mm=5)
    assert ZONES[found] == zone


def test_volume_by_voxel_by_hand() -> None:
    """From the ventricle (x = 6) to the cortex (x = 36), 6 x 6 mm: gaps 0 to 5 are six layers at either end."""
    report = measure(boxes((1, 1, 1), [(6, 36, 8, 14, 0, 6)]), (1, 1, 1), LesionOptions(near_mm=5))
    loads = {row.name: row.volume_mm3 for row in lesion_loads(report) if row.level == "voxel"}
    assert loads["periventricular"] == loads["juxtacortical"] == 6 * 36
    assert loads["deep-white-matter"] == 18 * 36
    assert sum(loads.values()) == 30 * 36
