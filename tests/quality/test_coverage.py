"""Cuts of the field of view, by the thickness of slices."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bidsseg.imaging.image import Image
from bidsseg.quality.coverage import FieldOfView, cap_mm2, coverage_doubts, cut_faces, field_of_view
from tests.quality.test_assessment import VIEW, usual

THIN, THICK = FieldOfView(160, 1.0, 160.0), FieldOfView(20, 7.0, 140.0)


def test_a_cap_of_a_sphere() -> None:
    assert cap_mm2(5, 5) == pytest.approx(25 * math.pi)  # half a sphere
    assert cap_mm2(70, 10) == pytest.approx(1300 * math.pi)


@pytest.mark.parametrize(
    ("face", "cm2", "view", "cut"),
    [
        ("top", 35.0, THIN, True),
        ("top", 35.0, THICK, False),  # one slice at the vertex
        ("top", 60.0, THICK, True),
        ("bottom", 4.0, THIN, False),  # the brainstem
        ("left", 35.0, THICK, True),  # across slices a voxel is small
        ("left", 35.0, replace(THICK, axis=0), False),
    ],
)
def test_a_cut_is_more_than_one_slice_may_miss(face: str, cm2: float, view: FieldOfView, cut: bool) -> None:
    assert cut_faces(replace(usual(), cut_mm2={face: 100 * cm2}), view) == ([face] if cut else [])


@pytest.mark.parametrize(("mm2", "view", "cut"), [(300.0, THIN, False), (1400.0, THIN, True), (1400.0, THICK, False)])
def test_the_lowest_slice_may_hold_some_cerebellum(mm2: float, view: FieldOfView, cut: bool) -> None:
    told = coverage_doubts(replace(usual(), cerebellum_cut_mm2=mm2), view)
    assert told == (["the field of view cuts the cerebellum"] if cut else [])


def test_slices_lie_along_the_axis_of_the_largest_spacing() -> None:
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 1], [-5, 0, 0], [0, 2, 0]]  # the first voxel axis points backwards
    found = field_of_view(Image(np.zeros((30, 100, 150), np.float32), affine))
    assert found == FieldOfView(30, 5.0, 150.0, axis=1)
    assert coverage_doubts(usual(), VIEW) == []
