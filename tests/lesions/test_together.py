"""A faint lesion that one session shows and another almost."""

from __future__ import annotations

import numpy as np
import pytest

from bidsseg.labels import TISSUE
from bidsseg.lesions.components import Reals
from bidsseg.lesions.together import SessionLesions, decide_together, joint_lesions
from bidsseg.segmentation.anatomy import Anatomy

THRESHOLD = 0.5


def session(
    probability: float,
    at: tuple[int, int, int] = (5, 5, 5),
    from_first: Reals | None = None,
    threshold: float = THRESHOLD,
    tissue: str = "white-matter",
) -> SessionLesions:
    """A lesion of 27 voxels in a head of one tissue; outside white matter it is in no mask."""
    found = np.zeros((12, 12, 12), np.float32)
    found[tuple(slice(n, n + 3) for n in at)] = probability
    nothing = np.zeros(found.shape, np.uint8)
    anatomy = Anatomy(np.full(found.shape, TISSUE[tissue], np.uint8), nothing, nothing)
    mask = (found >= threshold) & (tissue == "white-matter")
    return SessionLesions(mask, found, anatomy, threshold, np.eye(4) if from_first is None else from_first)


@pytest.mark.parametrize(
    ("other", "expected"),
    [(0.45, 27), (0.07, 27), (0.06, 0), (0.0, 0)],
)
def test_what_another_session_shows_counts_from_a_lower_probability(other: float, expected: int) -> None:
    sure, faint = decide_together([session(0.8), session(other)])
    assert sure.sum() == 27
    assert faint.sum() == expected


def test_what_no_session_shows_is_no_lesion() -> None:
    assert not any(mask.any() for mask in decide_together([session(0.45), session(0.45)]))


def test_sessions_are_compared_where_the_head_lies() -> None:
    """The second head lies 4 mm farther to the right: its lesion at 9 is the first one's at 5."""
    moved = np.eye(4)
    moved[0, 3] = 4
    _, same = decide_together([session(0.8), session(0.4, (9, 5, 5), moved)])
    _, another = decide_together([session(0.8), session(0.4, (5, 5, 5), moved)])
    assert same.sum() == 27
    assert not another.any()


def test_a_session_beyond_the_others_field_of_view_stays_as_it_is() -> None:
    moved = np.eye(4)
    moved[0, 3] = 100
    first, second = decide_together([session(0.8), session(0.4, from_first=moved)])
    assert (first.sum(), second.sum()) == (27, 0)


@pytest.mark.parametrize(("tissue", "expected"), [("white-matter", 27), ("lateral-ventricle", 0), ("background", 0)])
def test_only_tissue_is_confirmed(tissue: str, expected: int) -> None:
    _, faint = decide_together([session(0.8), session(0.4, tissue=tissue)])
    assert faint.sum() == expected


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 27), (0.7, 27), (0.9, 0)])
def test_each_session_has_the_threshold_of_its_own_slices(threshold: float, expected: int) -> None:
    _, faint = decide_together([session(0.8), session(0.1, threshold=threshold)])
    assert faint.sum() == expected


def test_load_and_range_are_those_of_the_joint_mask() -> None:
    """The second session alone shows nothing; at 0.65 the first one does not either, at 0.35 the second does alone."""
    first, second = joint_lesions([session(0.6), session(0.4)])
    assert (first.load_ml, second.load_ml) == (0.027, 0.027)
    assert second.load_range_ml == (0.0, 0.027)
    assert int(second.mask.sum()) == 27
