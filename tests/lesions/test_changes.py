from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image, load
from bidsseg.imaging.registration import rigid_transform
from bidsseg.lesions.changes import (
    ChangeOptions,
    Session,
    change_counts,
    follow,
    status_of,
    write_changes,
)
from bidsseg.lesions.components import apply, look_up
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.records import LesionReport
from bidsseg.segmentation.anatomy import Anatomy
from tests.lesion_phantom import Bounds, Spacing, affine_of, boxes, brain, image

CLINICAL = Path(__file__).parents[3] / "shared" / "data" / "ms-clinical-bids" / "sub-01"


def report_of(lesions: list[Bounds], spacing: Spacing = (1, 1, 1)) -> LesionReport:
    return _report_of(tuple(lesions), spacing)


def session(name: str, report: LesionReport, from_first: NDArray[np.float64]) -> Session:
    return Session(name, report.lesions, report.components, from_first)


@cache
def _report_of(lesions: tuple[Bounds, ...], spacing: Spacing) -> LesionReport:
    segmentation = brain(spacing)
    scan = image(segmentation.tissue, segmentation.affine)
    return lesion_features(scan, image(boxes(spacing, lesions), segmentation.affine), segmentation)


def follow_up(before: list[Bounds], after: list[Bounds], spacing: Spacing = (1, 1, 1)) -> list[tuple[object, ...]]:
    sessions = [session("1", report_of(before), np.eye(4)), session("2", report_of(after, spacing), np.eye(4))]
    return [(c.status, c.lesions_before, c.lesions_after, c.change_mm3) for c in follow(sessions)]


BOX: Bounds = (20, 26, 20, 26, 0, 6)
SMALL: Bounds = (20, 23, 20, 22, 0, 2)  # 12 mm3: below the minimum
CASES: dict[str, tuple[list[Bounds], list[Bounds], list[tuple[object, ...]]]] = {
    "stable": ([BOX], [(20, 26, 20, 26, 0, 7)], [("stable", (1,), (1,), 36)]),
    "enlarged": ([BOX], [(20, 26, 20, 26, 0, 9)], [("enlarged", (1,), (1,), 108)]),
    "shrunken": ([BOX], [(20, 26, 20, 26, 0, 4)], [("shrunken", (1,), (1,), -72)]),
    "new": ([], [BOX], [("new", (), (1,), 216)]),
    "vanished": ([BOX], [], [("vanished", (1,), (), -216)]),
    "new beside an old one": (
        [BOX], [BOX, (28, 31, 20, 23, 0, 3)], [("stable", (1,), (1,), 0), ("new", (), (2,), 27)]),
    "moved by a slice": ([BOX], [(20, 26, 20, 26, 7, 13)], [("stable", (1,), (1,), 0)]),
    "another lesion": ([BOX], [(20, 26, 20, 26, 9, 15)], [("vanished", (1,), (), -216), ("new", (), (1,), 216)]),
    "flowed together": (
        [BOX, (28, 34, 20, 26, 0, 6)], [(20, 34, 20, 26, 0, 6)], [("stable", (1, 2), (1,), 72)]),
    "fallen apart": (
        [(20, 34, 20, 26, 0, 6)], [BOX, (27, 34, 20, 26, 0, 6)], [("stable", (1,), (1, 2), -36)]),
    "was too small": ([SMALL], [(20, 23, 20, 22, 0, 3)], [("enlarged", (), (1,), 6)]),
    "still too small": ([SMALL], [SMALL], []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_changes(case: str) -> None:
    before, after, expected = CASES[case]
    assert follow_up(before, after) == expected


@pytest.mark.parametrize("spacing", [(1, 1, 6), (0.5, 0.5, 3)], ids=str)
def test_another_slice_thickness_is_no_change(spacing: Spacing) -> None:
    lesions: list[Bounds] = [BOX, (-13, -7, 8, 14, 0, 6), (30, 36, -16, -10, 12, 24)]
    assert {status for status, *_ in follow_up(lesions, lesions, spacing)} == {"stable"}


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (0, 20, "new"), (20, 0, "vanished"), (20, 25, "enlarged"), (20, 24, "stable"), (8, 10, "stable"),
        (8, 11, "enlarged"), (20, 15, "shrunken"), (20, 16, "stable"), (8, 6, "stable"), (8, 5, "shrunken"),
    ],
)  # fmt: skip
def test_least_change(before: float, after: float, status: str) -> None:
    assert status_of(before, after, ChangeOptions()) == status


def rotation(degrees: float, shift_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    a = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    matrix[:3, 3] = shift_mm
    return matrix


def test_moved_head() -> None:
    """The second session is the first in other coordinates: its header is moved, its voxels are not."""
    moved = rotation(12, (5, -8, 3))
    first = report_of([BOX, (-13, -7, 8, 14, 0, 6)])
    segmentation = brain((1, 1, 1))
    affine = moved @ segmentation.affine
    later = lesion_features(
        image(segmentation.tissue, affine), image(boxes((1, 1, 1), [BOX, (-13, -7, 8, 14, 0, 6)]), affine), segmentation
    )
    changes = follow([session("1", first, np.eye(4)), session("2", later, moved)])
    assert [change.status for change in changes] == ["stable", "stable"]
    centroids = sorted(change.centroid_mm for change in changes)
    assert np.allclose(centroids, [(-10, 11, 3), (23, 23, 3)])


def test_not_covered() -> None:
    """A lesion that the later scan's field of view leaves out has not vanished."""
    first = report_of([BOX, (-13, -7, 8, 14, 30, 36)])
    whole = brain((1, 1, 1))
    lower = slice(0, 70)  # z < 22
    tissue, side, parcel = (volume[..., lower] for volume in (whole.tissue, whole.side, whole.parcel))
    part = Anatomy(tissue, side, parcel, whole.affine, has_gyri=False)
    mask = image(boxes((1, 1, 1), [BOX])[..., lower], affine_of((1, 1, 1)))
    later = lesion_features(image(part.tissue, part.affine), mask, part)
    changes = follow([session("1", first, np.eye(4)), session("2", later, np.eye(4))])
    assert change_counts(changes) == {
        "new": 0, "enlarged": 0, "stable": 1, "shrunken": 0, "vanished": 0, "not-covered": 1,
    }  # fmt: skip


def test_table(tmp_path: Path) -> None:
    sessions = [session(name, report_of(boxes), np.eye(4)) for name, boxes in (("1", [BOX]), ("2", []), ("3", [BOX]))]
    table, columns = write_changes(follow(sessions), tmp_path / "sub-01_changes.tsv")
    rows = list(csv.DictReader(table.open(encoding="utf-8"), delimiter="\t"))
    assert [(row["session_before"], row["session_after"], row["status"]) for row in rows] == [
        ("1", "2", "vanished"), ("2", "3", "new"),
    ]  # fmt: skip
    assert rows[1]["change_fraction"] == "n/a"
    assert rows[1]["lesions_before"] == "n/a"
    assert list(json.loads(columns.read_text(encoding="utf-8"))) == list(rows[0])


# ---- registration


def head(spacing: Spacing, pose: NDArray[np.float64], contrast: int) -> Image:
    """A head of ellipsoids, seen after the rigid motion ``pose``; slices average what they cover."""
    fine = np.array((2.0, 2.0, 1.0))
    counts = (100, 100, 200)
    affine = np.diag((*fine, 1.0))
    affine[:3, 3] = -100 + fine / 2
    indices = np.moveaxis(np.indices(counts), 0, -1)
    back = np.linalg.inv(pose)
    mm = ((indices @ affine[:3, :3].T + affine[:3, 3]) @ back[:3, :3].T + back[:3, 3]).astype(np.float32)
    grey = np.zeros(counts, np.float32)
    shapes = [
        ((0, 0, 0), (70, 85, 65), 1), ((0, -5, 5), (60, 72, 52), 2), ((-18, -8, 10), (10, 32, 12), 3),
        ((18, -4, 12), (9, 28, 14), 3), ((0, -40, -35), (40, 25, 18), 4), ((25, 40, 10), (12, 10, 14), 5),
    ]  # fmt: skip
    values = [(0, 40, 100, 20, 80, 60), (0, 70, 50, 120, 40, 95)][contrast]
    for centre, radii, tissue in shapes:
        scaled = (mm - np.array(centre, np.float32)) / np.array(radii, np.float32)
        grey[np.einsum("ijka,ijka->ijk", scaled, scaled) < 1] = values[tissue]
    thick = round(spacing[2])
    grey = grey.reshape(*counts[:2], -1, thick).mean(-1)
    affine[2, 2] = thick
    affine[2, 3] = -100 + thick / 2
    return image(grey, affine)


def error_mm(found: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    corners = np.array(np.meshgrid(*[(-60, 60)] * 3)).reshape(3, -1)
    difference = found - truth
    return float(np.linalg.norm(difference[:3, :3] @ corners + difference[:3, 3:], axis=0).max())


def test_registers_thick_slices_of_another_contrast() -> None:
    pose = rotation(8, (6, -9, 5))
    found = rigid_transform(head((2, 2, 4), np.eye(4), 0), head((2, 2, 5), pose, 1))
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3))
    assert error_mm(found, pose) < 1.5


def test_registers_scans_whose_headers_put_them_far_apart() -> None:
    fixed = head((4, 4, 4), np.eye(4), 0)
    pose = np.eye(4)
    pose[:3, 3] = (300, 0, -20)
    found = rigid_transform(fixed, replace(fixed, affine=pose @ fixed.affine))
    assert error_mm(found, pose) < 1


@pytest.mark.skipif(not CLINICAL.exists(), reason="no clinical scans at hand")
def test_registers_real_sessions() -> None:
    """Two FLAIR of 4 and 3 mm slices, whose grey values correlate by 0.7 before."""
    first, second = (load(CLINICAL / f"ses-{n}" / "anat" / f"sub-01_ses-{n}_FLAIR.nii.gz") for n in (1, 2))
    (fixed, grid), (moving, other) = conform(first), conform(second)
    points = np.argwhere(fixed > 30)[::50]
    there = apply(rigid_transform(first, second), apply(grid.affine, points))
    seen = look_up(moving, np.rint(apply(np.linalg.inv(other.affine), there)).astype(np.intp))
    assert np.corrcoef(fixed[tuple(points.T)], seen)[0, 1] > 0.9


def test_a_lesion_is_stable_in_a_scan_registered_to_itself() -> None:
    report = report_of([BOX])
    scan = image(report.anatomy.tissue.astype(np.float32), report.anatomy.affine)
    from_first = rigid_transform(scan, scan, report.anatomy.tissue > 0)
    assert error_mm(from_first, np.eye(4)) < 0.5
    sessions = [session("1", report, np.eye(4)), session("2", report, from_first)]
    assert [change.status for change in follow(sessions)] == ["stable"]
