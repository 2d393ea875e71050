from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from numpy.typing import NDArray

from bidsseg.bids.outputs import LesionOutputs
from bidsseg.imaging.image import Image, load
from bidsseg.labels import TISSUE
from bidsseg.lesions.correction import correct_under_lesions
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.loads import lesion_loads
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.records import Lesion, LesionReport, findings
from bidsseg.lesions.tables import regions_with_lesions, summary, write_lesions
from bidsseg.lesions.zones import Cubes, zone_of
from bidsseg.segmentation.anatomy import Anatomy
from tests.lesion_phantom import Bounds, Spacing, affine_of, ball, boxes, brain, image
from tests.phantoms import ORIENTATIONS

MM1: Spacing = (1, 1, 1)
SPACINGS: list[Spacing] = [(1, 1, 1), (1, 1, 6), (0.5, 0.5, 3)]
MASKS = sorted((Path(__file__).parents[3] / "shared" / "data" / "ms-lesions-mni").glob("*mask.nii.gz"))

# name: boxes | volume, zone, contacts, gap to the ventricles, gap to the cortex, main region
CASES: dict[str, tuple[list[Bounds], float, str, str, float, float, str]] = {
    "touches the ventricle": (
        [(6, 12, 8, 14, 0, 6)], 216, "periventricular", "periventricular", 0, 22, "4201"),
    "1 mm from the ventricle": (
        [(-13, -7, 8, 14, 0, 6)], 216, "periventricular", "periventricular", 1, 22, "3201"),
    "2 mm from the ventricle": (
        [(8, 14, -16, -10, 0, 6)], 216, "periventricular", "periventricular", 2, 20, "4206"),
    "3 mm from the ventricle": (
        [(9, 15, -16, -10, 0, 6)], 216, "deep-white-matter", "deep-white-matter", 3, 20, "4206"),
    "touches the cortex": (
        [(30, 36, -16, -10, 0, 6)], 216, "juxtacortical", "juxtacortical", 24, 0, "4206"),
    "in the cortex": (
        [(36, 42, 8, 14, 0, 6)], 216, "juxtacortical", "juxtacortical", 30, 0, "2301"),
    "2 mm from the cortex": (
        [(-34, -28, 8, 14, 0, 6)], 216, "deep-white-matter", "deep-white-matter", 22, 2, "3201"),
    "in the brainstem": (
        [(-6, 0, -6, 0, -24, -18)], 216, "infratentorial", "infratentorial", 18, 30.780, "16"),
    "in the thalamus, beside the ventricle": (
        [(6, 12, -3, 3, -6, 0)], 216, "deep-grey", "deep-grey", 0.414, 24, "49"),
    "from ventricle to cortex, mostly at the cortex": (
        [(-30, -6, -16, -12, 0, 6), (-36, -30, -34, 30, 0, 24)], 9792, "juxtacortical",
        "juxtacortical", 0, 0, "3206"),
    "confluent at the ventricle, a bridge to the cortex": (
        [(6, 30, -4, 4, 0, 18), (30, 36, -2, 2, 6, 12)], 3600, "periventricular",
        "periventricular", 0, 0, "4201"),
    "confluent, reaches the brainstem": (
        [(-11, -6, -5, 5, 0, 12), (-11, -6, -5, 5, -18, 0)], 1500, "deep-grey",
        "periventricular,infratentorial,deep-grey", 0, 24, "10"),
    "beside the brain": (
        [(42, 48, 0, 6, 0, 6)], 216, "outside", "juxtacortical", 36, 0, "0"),
}  # fmt: skip


def measure(spacing: Spacing, lesions: list[Bounds], options: LesionOptions | None = None) -> LesionReport:
    segmentation = brain(spacing)
    return measure_mask(boxes(spacing, lesions), segmentation, options)


def measure_mask(mask: object, segmentation: Anatomy, options: LesionOptions | None = None) -> LesionReport:
    grey = np.where(segmentation.tissue == TISSUE["white-matter"], 100, 50) + 50 * np.asarray(mask)
    scan = image(grey, segmentation.affine)
    return lesion_features(scan, image(np.asarray(mask), segmentation.affine), segmentation, options)


APART_MM = 7
"Lesions farther apart than a slice of any phantom are measured at once."


def rounds() -> list[list[str]]:
    """The cases in groups whose lesions lie apart."""
    groups: list[list[str]] = []
    for name in CASES:
        room = (group for group in groups if all(lie_apart(CASES[name][0], CASES[other][0]) for other in group))
        found = next(room, None)
        if found is None:
            groups.append([name])
        else:
            found.append(name)
    return groups


def lie_apart(some: list[Bounds], others: list[Bounds]) -> bool:
    gaps = (max(a[2 * x] - b[2 * x + 1], b[2 * x] - a[2 * x + 1]) for a in some for b in others for x in range(3))
    return all(max(gap) >= APART_MM for gap in zip(*[gaps] * 3, strict=True))


@cache
def found_lesions(spacing: Spacing) -> dict[str, Lesion]:
    """The one lesion of every case."""
    found: dict[str, Lesion] = {}
    for group in rounds():
        report = measure(spacing, [box for name in group for box in CASES[name][0]])
        assert len(report.lesions) == len(group)
        for name in group:
            inside = boxes(spacing, CASES[name][0])
            (number,) = np.unique(report.labels[inside])
            found[name] = report.lesions[number - 1]
    return found


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_one_lesion(case: str, spacing: Spacing) -> None:
    _, volume, zone, contacts, to_ventricle, to_cortex, region = CASES[case]
    lesion = found_lesions(spacing)[case]
    assert lesion.volume_mm3 == pytest.approx(volume)
    assert lesion.zone == zone
    assert ",".join(lesion.contacts) == contacts
    assert lesion.dist_ventricle_mm == pytest.approx(to_ventricle, abs=1e-3)
    assert lesion.dist_cortex_mm == pytest.approx(to_cortex, abs=1e-3)
    assert lesion.main_region == int(region)
    assert sum(share for _, share in lesion.regions) == pytest.approx(1)


BALLS: list[tuple[tuple[float, float, float], float]] = [
    ((15, 0, 6), 9.5), ((0, 26, 21), 8), ((-30, 0, 15), 9), ((0, 0, -27), 10),
]  # fmt: skip


@cache
def found_balls(spacing: Spacing) -> list[Lesion]:
    """The lesions of ``BALLS``, in their order."""
    masks = [ball(spacing, centre, radius) for centre, radius in BALLS]
    report = measure_mask(np.any(masks, axis=0), brain(spacing))
    return [report.lesions[np.unique(report.labels[mask]).item() - 1] for mask in masks]


@pytest.mark.parametrize("spacing", SPACINGS[1:], ids=str)
@pytest.mark.parametrize("number", range(len(BALLS)))
def test_balls_do_not_depend_on_spacing(number: int, spacing: Spacing) -> None:
    centre, radius = BALLS[number]
    fine, coarse = found_balls(MM1)[number], found_balls(spacing)[number]
    assert coarse.zone == fine.zone
    assert coarse.volume_mm3 == pytest.approx(fine.volume_mm3, rel=0.1)
    assert coarse.volume_mm3 == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.1)
    assert coarse.long_axis_mm == pytest.approx(2 * radius, abs=6)  # one slice
    assert np.abs(np.subtract(coarse.centroid_mm, centre)).max() < 1.1


BRIDGE: Bounds = (12, 30, -1, 1, 5, 7)
AT_VENTRICLE: dict[str, Bounds] = {"small": (6, 12, -3, 3, 3, 9), "large": (6, 12, -9, 9, 0, 12)}
AT_CORTEX: dict[str, Bounds] = {
    "small": (30, 36, -3, 3, 3, 9), "medium": (30, 36, -9, 9, 3, 9), "large": (30, 36, -18, 18, 0, 18),
}  # fmt: skip


@pytest.mark.parametrize(
    ("ventricle", "cortex", "zone"),
    [
        ("large", "small", "periventricular"),  # 1296 and 216 mm3
        ("small", "large", "juxtacortical"),  # 216 and 3888 mm3
        ("large", "large", "juxtacortical"),  # 1296 and 3888 mm3
        ("small", "medium", "juxtacortical"),  # 216 and 648 mm3
        ("large", "medium", "periventricular"),  # 1296 and 648 mm3
    ],
)
def test_merged_lesions(ventricle: str, cortex: str, zone: str) -> None:
    """A lesion at the ventricle and one at the cortex, joined by a thin bridge, stay what the larger one was."""
    lesions = [AT_VENTRICLE[ventricle], AT_CORTEX[cortex]]
    (lesion,) = measure(MM1, [*lesions, BRIDGE]).lesions
    assert lesion.contacts == ("periventricular", "juxtacortical")
    assert lesion.zone == zone
    volumes = [boxes(MM1, [box]).sum() for box in lesions]
    assert lesion.zone == ("periventricular", "juxtacortical")[int(np.argmax(volumes))]


@pytest.mark.parametrize(
    ("size", "long_axis"),
    [((14, 1, 1), 14), ((3, 4, 1), 1 + math.hypot(2, 3)), ((6, 6, 6), 1 + 5 * math.sqrt(3)), ((1, 1, 15), 15)],
)
def test_long_axis(size: tuple[int, int, int], long_axis: float) -> None:
    a, b, c = size
    report = measure(MM1, [(20, 20 + a, 20, 20 + b, 0, c)], LesionOptions(min_volume_mm3=1))
    assert report.lesions[0].long_axis_mm == pytest.approx(long_axis)


def test_corners_connect_and_gaps_do_not() -> None:
    corner: list[Bounds] = [(20, 23, 20, 23, 0, 3), (23, 26, 23, 26, 3, 6)]
    gap: list[Bounds] = [(20, 23, 20, 23, 0, 3), (24, 27, 20, 23, 0, 3)]
    assert [lesion.volume_mm3 for lesion in measure(MM1, corner).lesions] == [54]
    assert [lesion.volume_mm3 for lesion in measure(MM1, gap).lesions] == [27, 27]


def test_touching_labels_stay_apart() -> None:
    mask = 3 * boxes(MM1, [(20, 23, 20, 23, 0, 3)]) + 7 * boxes(MM1, [(23, 27, 20, 23, 0, 3)])
    report = measure_mask(mask, brain(MM1))
    assert report.kind == "labels"
    assert [lesion.volume_mm3 for lesion in report.lesions] == [36, 27]
    assert sorted(np.unique(report.labels)) == [0, 1, 2]


def test_labels_on_another_grid_stay_apart() -> None:
    fine: Spacing = (0.5, 0.5, 3)
    mask = 3 * boxes(fine, [(20, 23, 20, 23, 0, 3)]) + 7 * boxes(fine, [(23, 27, 20, 23, 0, 3)])
    segmentation = brain(MM1)
    scan = image(segmentation.tissue, segmentation.affine)
    report = lesion_features(scan, image(mask, affine_of(fine)), segmentation)
    assert [lesion.volume_mm3 for lesion in report.lesions] == pytest.approx([36, 27])
    assert np.bincount(report.labels.reshape(-1))[1:].tolist() == [36, 27]


def test_a_mask_stored_in_another_direction_is_no_cause_for_a_warning() -> None:
    segmentation = brain(MM1)
    scan = image(segmentation.tissue, segmentation.affine)
    mask = boxes(MM1, [(6, 12, 8, 14, 0, 6)])
    for orientation in ORIENTATIONS[::7]:
        turned = apply_orientation(mask, orientation)
        affine = segmentation.affine @ inv_ornt_aff(orientation, mask.shape)
        assert lesion_features(scan, image(turned, affine), segmentation).warnings == ()
    elsewhere = segmentation.affine.copy()
    elsewhere[:3, 3] += 5
    assert "another position" in lesion_features(scan, image(mask, elsewhere), segmentation).warnings[0]


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
@pytest.mark.parametrize("cut", [0, 7])
def test_a_mask_with_the_scans_voxels_keeps_each_in_whatever_order_it_is_stored(
    orientation: NDArray[np.int64], cut: int
) -> None:
    """Also voxels that are finer than 1 mm, and a mask of a part of the scan."""
    spacing: Spacing = (0.75, 0.75, 6)
    segmentation = brain(spacing)
    scan = image(segmentation.tissue, segmentation.affine)
    mask = boxes(spacing, [(20, 26, 20, 23, 0, 6), (20, 20.7, 6, 18, 0, 6)])
    expected = lesion_features(scan, image(mask, segmentation.affine), segmentation).labels
    assert np.array_equal(expected > 0, mask)
    turned = apply_orientation(mask, orientation)
    affine = segmentation.affine @ inv_ornt_aff(orientation, mask.shape)
    affine[:3, 3] = (affine @ (cut, 0, 0, 1))[:3]
    found = lesion_features(scan, image(turned[cut:], affine), segmentation).labels
    assert np.array_equal(found, expected)


TOTALS: list[Bounds] = [
    (6, 12, 8, 14, 0, 6), (-13, -7, 8, 14, 0, 6), (30, 36, -16, -10, 0, 6), (-6, 0, -6, 0, -24, -18),
    (20, 22, 20, 22, 20, 23), (-20, -19, 20, 22, 20, 21), (39, 45, 0, 6, 0, 6),
]  # fmt: skip


def assert_totals(report: LesionReport, volume_mm3: float) -> None:
    loads = lesion_loads(report)
    assert report.mask_volume_mm3 == pytest.approx(volume_mm3, rel=1e-12)
    for level in {row.level for row in loads}:
        rows = [row for row in loads if row.level == level]
        assert sum(row.volume_mm3 for row in rows) == pytest.approx(volume_mm3, rel=1e-9), level
        assert sum(row.count for row in rows) == len(report.parts if level == "part" else report.lesions), level
    unlisted = [("zone", "too-small"), ("zone", "outside-scan")]
    small = sum(row.volume_mm3 for row in loads if (row.level, row.name) in unlisted)
    assert sum(part.volume_mm3 for part in report.parts) + small == pytest.approx(volume_mm3, rel=1e-9)
    assert sum(lesion.volume_mm3 for lesion in report.lesions) + small == pytest.approx(volume_mm3, rel=1e-9)


@pytest.mark.parametrize("mask_spacing", [*SPACINGS, (0.72, 0.72, 4)], ids=str)
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_totals_equal_the_mask(spacing: Spacing, mask_spacing: Spacing) -> None:
    segmentation = brain(spacing)
    mask = boxes(mask_spacing, TOTALS)
    scan = image(segmentation.tissue, segmentation.affine)
    options = LesionOptions(bands_mm=(3, 10))
    report = lesion_features(scan, image(mask, affine_of(mask_spacing)), segmentation, options)
    assert_totals(report, float(mask.sum() * np.prod(mask_spacing)))
    assert not (report.components.component == 0).any()


def test_loads_by_hand() -> None:
    report = measure(MM1, TOTALS, LesionOptions(bands_mm=(3, 10)))
    loads = {(row.level, row.name): row for row in lesion_loads(report)}
    assert loads["total", "all"].volume_mm3 == 5 * 216 + 12 + 2
    assert (loads["zone", "periventricular"].count, loads["zone", "periventricular"].volume_mm3) == (2, 432)
    assert (loads["zone", "juxtacortical"].count, loads["zone", "juxtacortical"].count_touching) == (2, 2)
    assert loads["zone", "too-small"].volume_mm3 == 14
    assert loads["region", "outside"].volume_mm3 == 108  # half of the lesion at the brain's edge
    brainstem = loads["region", "Brain-Stem"]
    assert (brainstem.count, brainstem.volume_mm3, brainstem.largest_mm3) == (1, 216, 216)
    assert brainstem.fraction_of_region == pytest.approx(216 / (24 * 24 * 30))
    # at the right ventricle gaps of 0, 1, ... 5 mm, on the left 1, ... 6: an edge of 3 mm takes 4 and 3 layers of 36
    assert loads["band", "0-3"].volume_mm3 == 36 * 7
    assert loads["band", "3-10"].volume_mm3 == 36 * 5
    assert findings(report.lesions, report.options) == "periventricular: 2, juxtacortical: 2, infratentorial: 1"


def test_findings_tell_what_else_is_touched_and_leave_out_short_lesions() -> None:
    spanning = [AT_VENTRICLE["large"], BRIDGE, AT_CORTEX["large"]]
    report = measure(MM1, [*spanning, (-8, -6, 8, 10, 0, 2)], LesionOptions(min_volume_mm3=1, min_long_axis_mm=4.5))
    assert [lesion.zone for lesion in report.lesions] == ["juxtacortical", "periventricular"]
    expected = "periventricular: 0 (+1), juxtacortical: 1, infratentorial: 0"
    assert findings(report.lesions, report.options) == expected


@pytest.mark.parametrize("least", [0.0, 14.0])
def test_any_part_of_a_lesion_counts_where_no_volume_is_too_small(least: float) -> None:
    compartments = np.array([0.0, 75.0, 0.0, 100.0])
    nowhere = np.full(4, 20.0)
    cubes = Cubes(np.zeros((4, 3)), nowhere, nowhere, np.ones(4, bool), np.ones(4, bool), compartments)
    contacts, zone = zone_of(cubes, LesionOptions(min_volume_mm3=least))
    assert contacts == ("infratentorial", "deep-white-matter")
    assert zone == "deep-white-matter"


def test_relative_intensity() -> None:
    (lesion,) = measure(MM1, [(20, 26, 20, 26, 0, 6)]).lesions
    assert lesion.relative_intensity == pytest.approx(1.5)


def test_no_lesions() -> None:
    report = measure(MM1, [])
    assert report.lesions == ()
    assert report.warnings == ()
    assert {row.volume_mm3 for row in lesion_loads(report)} == {0}


# ---- regions under lesions


@pytest.mark.parametrize(
    ("hole", "tissue", "corrected"),
    [
        ((20, 26, 20, 26, 12, 18), "background", True),
        ((20, 26, 20, 26, 12, 18), "lateral-ventricle", True),
        ((20, 26, 20, 26, 12, 18), "cortex", True),
        ((20, 26, 20, 26, 12, 18), "thalamus", False),
        ((6, 12, 8, 14, 0, 6), "lateral-ventricle", False),  # goes on from the true ventricle
        ((30, 36, 8, 14, 0, 6), "cortex", False),  # goes on from the true cortex
        ((30, 36, 8, 14, 0, 6), "lateral-ventricle", True),  # cortex on one side of six
        ((36, 42, 8, 14, 0, 6), "lateral-ventricle", False),  # in the cortex
    ],
)
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_holes_in_white_matter(spacing: Spacing, hole: Bounds, tissue: str, corrected: bool) -> None:
    truth = brain(spacing)
    inside = boxes(spacing, [hole])
    around = boxes(spacing, [tuple(edge + (6 if n % 2 else -6) for n, edge in enumerate(hole))])  # type: ignore[list-item]
    wrong = replace(truth, tissue=np.where(inside, TISSUE[tissue], truth.tissue).astype(np.uint8))
    wrong = replace(
        wrong, parcel=np.where(inside, 0, truth.parcel).astype(np.uint8), side=np.where(inside, 0, truth.side)
    )
    found = correct_under_lesions(wrong, around)
    expected = truth if corrected else wrong
    for name in ("tissue", "side", "parcel"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


# ---- masks and scans that don't fit


def test_warns_of_another_field_of_view() -> None:
    segmentation = brain(MM1)
    scan = image(segmentation.tissue, segmentation.affine)
    shifted = affine_of(MM1)
    shifted[:3, 3] += 70
    report = lesion_features(scan, image(boxes(MM1, [(0, 6, 0, 6, 0, 6)]), shifted), segmentation)
    text = " | ".join(report.warnings)
    assert "covers only" in text
    assert "outside the scan's field of view" in text
    assert "same matrix" not in text
    assert "another position" in text
    assert_totals(report, 216)


def test_warns_of_lesions_outside_the_brain() -> None:
    assert "in the brain" in measure(MM1, [(43, 48, 0, 20, 0, 20)]).warnings[0]
    assert measure(MM1, [(20, 26, 0, 6, 0, 6)]).warnings == ()


def test_segmentation_of_another_scan() -> None:
    with pytest.raises(ValueError, match="must share one grid"):
        lesion_features(image(np.ones((4, 4, 4)), np.eye(4)), image(np.ones((4, 4, 4)), np.eye(4)), brain(MM1))


def test_all_orientations_agree() -> None:
    segmentation = brain((1, 1, 3))
    mask = boxes((1, 1, 3), TOTALS)
    expected = measure_mask(mask, segmentation).lesions
    flip = np.eye(4)[[2, 0, 1, 3]]  # scan axes are z, x, y; x runs backwards
    affine = segmentation.affine @ flip.T
    affine[:, 3] += affine[:, 1] * (mask.shape[0] - 1)
    affine[:, 1] *= -1

    def turn(
        volume: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.ascontiguousarray(volume.transpose(2, 0, 1)[:, ::-1])

    turned = Anatomy(
        turn(segmentation.tissue),
        turn(segmentation.side),
        turn(segmentation.parcel),
        affine,
        has_gyri=False,
    )
    found = measure_mask(turn(mask.astype(np.uint8)), turned).lesions
    key = [(lesion.zone, lesion.volume_mm3, lesion.contacts, lesion.main_region) for lesion in expected]
    assert sorted((lesion.zone, lesion.volume_mm3, lesion.contacts, lesion.main_region) for lesion in found) == sorted(
        key
    )
    assert np.allclose(
        sorted(lesion.centroid_mm for lesion in found), sorted(lesion.centroid_mm for lesion in expected)
    )


# ---- files


def test_files(tmp_path: Path) -> None:
    report = measure(MM1, TOTALS)
    scan = image(report.anatomy.tissue, report.anatomy.affine)
    written = LesionOutputs(tmp_path / "sub-01_ses-1").files
    write_lesions(report, scan, written, {"Sources": ["bids::x"]})
    assert all(path.is_file() for path in written)
    assert len(written) == 12
    for name in ("lesions", "lesionload"):
        table = tmp_path / f"sub-01_ses-1_desc-{name}_lesions.tsv"
        rows = list(csv.DictReader(table.open(encoding="utf-8"), delimiter="\t"))
        columns = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
        assert list(columns) == list(rows[0])
        assert all(value not in ("", "nan", "None") for row in rows for value in row.values())
        total = sum(float(row["volume_mm3"]) for row in rows if row.get("level", "zone") == "zone")
        assert total == 5 * 216 + 14
    labels = np.asanyarray(nib.load(tmp_path / "sub-01_ses-1_desc-lesions_dseg.nii.gz").dataobj)
    assert np.bincount(labels.reshape(-1))[1:].tolist() == [216] * 5
    sidecar = json.loads((tmp_path / "sub-01_ses-1_desc-lesions_dseg.json").read_text(encoding="utf-8"))
    assert sidecar["Sources"] == ["bids::x"]
    assert sidecar["Connectivity"] == 26
    assert "infratentorial: 1" in sidecar["Findings"]


def test_region_map_with_lesions() -> None:
    report = measure(MM1, TOTALS)
    regions = regions_with_lesions(report)
    assert (regions == 25).sum() == (report.labels[:48] > 0).sum()
    assert (regions == 57).sum() == (report.labels[48:] > 0).sum()
    assert summary(report)["Threshold"] is None


# ---- real masks


def standard_brain(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Anatomy:
    """Ellipsoids of about the size of the MNI152 brain; enough to place lesions roughly."""
    x, y, z = np.ix_(*(affine[axis, axis] * np.arange(n) + affine[axis, 3] for axis, n in enumerate(shape)))
    tissue = np.zeros(shape, np.uint8)
    tissue[(x / 70) ** 2 + ((y + 18) / 88) ** 2 + ((z - 10) / 68) ** 2 < 1] = TISSUE["cortex"]
    tissue[(x / 60) ** 2 + ((y + 18) / 77) ** 2 + ((z - 10) / 57) ** 2 < 1] = TISSUE["white-matter"]
    tissue[((abs(x) - 16) / 12) ** 2 + ((y + 20) / 45) ** 2 + ((z - 16) / 12) ** 2 < 1] = TISSUE["lateral-ventricle"]
    tissue[(x / 50) ** 2 + ((y + 62) / 30) ** 2 + ((z + 38) / 25) ** 2 < 1] = TISSUE["cerebellum-white-matter"]
    tissue[(x / 14) ** 2 + ((y + 28) / 14) ** 2 + ((z + 38) / 26) ** 2 < 1] = TISSUE["brainstem"]
    side = np.broadcast_to(x > 0, shape).astype(np.uint8)
    return Anatomy(tissue, side, np.zeros(shape, np.uint8), affine, has_gyri=False)


def brain_box(mask: Image) -> Image:
    """The part of an MNI152 image that holds the brain and all of the mask."""
    start, stop = (22, 20, 12), (160, 196, 148)
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    affine = mask.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    assert mask.data[window].sum() == mask.data.sum()
    return image(mask.data[window], affine)


@pytest.mark.skipif(not MASKS, reason="no lesion masks at hand")
def test_real_masks() -> None:
    """Every fourth on the grid of a scan of 4 mm slices; benchmarks/lesion_zones.py does all on a segmented brain."""
    masks = [brain_box(load(path)) for path in MASKS[::4]]
    thick = masks[0].affine @ np.diag((1, 1, 4, 1))
    thick[2, 3] += 1.5
    i, j, k = masks[0].data.shape
    segmentation = standard_brain((i, j, k // 4), thick)
    scan = image(segmentation.tissue, segmentation.affine)
    volume: dict[str, float] = {}
    for mask in masks:
        report = lesion_features(scan, mask, segmentation)
        assert_totals(report, float((mask.data > 0).sum()))
        for lesion in report.lesions:
            volume[lesion.zone] = volume.get(lesion.zone, 0) + lesion.volume_mm3
    assert max(volume, key=lambda zone: volume[zone]) == "periventricular"
