"""A faint lesion that one session shows and another almost."""

from __future__ import annotations

import numpy as np
import pytest

from bidsseg.lesions.components import Reals
from bidsseg.lesions.together import SessionLesions, decide_together

THRESHOLD = 0.5


def session(
    probability: float, at: tuple[int, int, int] = (5, 5, 5), from_first: Reals | None = None
) -> SessionLesions:
    found = np.zeros((12, 12, 12), np.float32)
    found[tuple(slice(n, n + 3) for n in at)] = probability
    return SessionLesions(found >= THRESHOLD, found, np.eye(4), np.eye(4) if from_first is None else from_first)


@pytest.mark.parametrize(
    ("other", "expected"),
    [(0.45, 27), (0.07, 27), (0.06, 0), (0.0, 0)],
)
def test_what_another_session_shows_counts_from_a_lower_probability(other: float, expected: int) -> None:
    sure, faint = decide_together([session(0.8), session(other)], THRESHOLD)
    assert sure.sum() == 27
    assert faint.sum() == expected


def test_what_no_session_shows_is_no_lesion() -> None:
    assert not any(mask.any() for mask in decide_together([session(0.45), session(0.45)], THRESHOLD))


def test_sessions_are_compared_where_the_head_lies() -> None:
    """The second head lies 4 mm farther to the right: its lesion at 9 is the first one's at 5."""
    moved = np.eye(4)
    moved[0, 3] = 4
    _, same = decide_together([session(0.8), session(0.4, (9, 5, 5), moved)], THRESHOLD)
    _, another = decide_together([session(0.8), session(0.4, (5, 5, 5), moved)], THRESHOLD)
    assert same.sum() == 27
    assert not another.any()


def test_a_session_beyond_the_others_field_of_view_stays_as_it_is() -> None:
    moved = np.eye(4)
    moved[0, 3] = 100
    first, second = decide_together([session(0.8), session(0.4, from_first=moved)], THRESHOLD)
    assert (first.sum(), second.sum()) == (27, 0)
