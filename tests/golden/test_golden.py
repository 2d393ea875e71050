"""The packaged model on the demo's scan: labels, lesions and names of files are what they were.

Not byte for byte, because processors differ in the last digits. ``tests.golden.scene`` says how to replace what is
expected where a change is meant.
"""

from __future__ import annotations

import numpy as np
import pytest

from bidsseg.imaging.arrays import overlap
from bidsseg.labels import label_table
from tests.golden.scene import Outcome, expected

LEAST_DICE = 0.98
VOXEL_MM3 = 6.0
COUNTED_MM3 = 1000.0
"Smaller regions change too much by a few voxels."
LIKE_TEXT = ("lesion", "zone", "contacts", "main_region")
MM_APART = 1.0
"Distances to a border of regions move by a voxel of the 1 mm grid."


def test_regions_are_where_they_were(found: Outcome) -> None:
    before = expected().labels
    assert found.labels.shape == before.shape
    a, b, both = overlap(before, found.labels)
    dice = {
        label.name: 2 * both[label.index] / (a + b)[label.index]
        for label in label_table("regions")
        if label.index < len(a) and a[label.index] * VOXEL_MM3 > COUNTED_MM3
    }
    assert len(dice) > 40
    assert {name: round(value, 4) for name, value in dice.items() if value < LEAST_DICE} == {}


def test_lesions_are_what_they_were(found: Outcome) -> None:
    assert len(found.lesions) == len(expected().lesions)
    for row, before in zip(found.lesions, expected().lesions, strict=True):
        assert list(row) == list(before)
        for column, value in before.items():
            if column in LIKE_TEXT:
                assert row[column] == value
            elif column == "regions":
                assert _shares(row[column]) == pytest.approx(_shares(value), abs=0.05)
            else:
                slack = MM_APART if column.startswith("dist_") else 0.0
                assert float(row[column]) == pytest.approx(float(value), rel=0.01, abs=slack), column


def _shares(text: str) -> dict[str, float]:
    """The larger shares of ``name=0.8,other=0.2``."""
    pairs = (pair.split("=") for pair in text.split(","))
    return {name: float(share) for name, share in pairs if float(share) > 0.1}


def test_files_have_the_names_they_had(found: Outcome) -> None:
    assert found.names == expected().names


def test_what_is_expected_is_a_brain() -> None:
    """So that no failed run becomes what is expected."""
    labels = expected().labels
    assert 0.1 < np.mean(labels > 0) < 0.5
