"""Sessions together: borders that grey values move stay apart, those that the network moves come together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats
from bidsseg.labels import TISSUE, lobe_parts
from bidsseg.network.probabilities import background
from bidsseg.segmentation.fusion import answered_in, contrast_of
from bidsseg.segmentation.longitudinal import Session, segment_with
from tests.phantoms import image
from tests.quality.test_agreement import shift

SIDE = 24
DARK, BRIGHT = TISSUE["lateral-ventricle"], TISSUE["white-matter"]
GREYS = {DARK: 0.2, BRIGHT: 0.8}


def share_of_dark(border: float) -> Floats:
    """(I, J, K): all of a voxel below the border, along the first axis, a part of the two or so at it."""
    along = np.clip((border - np.arange(SIDE)) / 2 + 0.5, 0, 1).astype(np.float32)
    return np.broadcast_to(along[:, None, None], (SIDE, SIDE, SIDE)).copy()


def session(answered: float, seen: float, scale: float = 1.0) -> Session:
    """A session of whose border the network says that it lies at one place, and the grey values at another."""
    dark = share_of_dark(answered)
    found = background((0, 0, 0), (SIDE, SIDE, SIDE), len(lobe_parts()))
    found.tissue[0] = 0
    found.tissue[DARK], found.tissue[BRIGHT] = dark, 1 - dark
    dark = share_of_dark(seen)
    grey = scale * (GREYS[DARK] * dark + GREYS[BRIGHT] * (1 - dark)).astype(np.float32)
    return Session(contrast_of(image(grey), grey, answered_in(found)), grey)


def border(own: Session, *others: Session, to_other: NDArray[np.float64] | None = None) -> float:
    """Where the dark tissue of a session ends, in voxels, by the sum of its probabilities."""
    found = segment_with(own, [(other, shift(0) if to_other is None else to_other) for other in others])
    return float(found.tissue[DARK].astype(np.float64).sum() / SIDE**2 - 0.5)


def test_the_border_lies_where_the_phantom_has_it() -> None:
    assert border(session(11.5, 11.5)) == pytest.approx(11.5, abs=0.01)


def test_a_session_twice_is_as_the_session_alone() -> None:
    own, again = session(11.3, 11.7), session(11.3, 11.7)
    np.testing.assert_array_equal(segment_with(own, [(again, shift(0))]).tissue, segment_with(own, []).tissue)


def test_what_the_network_alone_sees_is_averaged() -> None:
    one, other = session(11.0, 11.5), session(12.0, 11.5)
    assert border(one, other) == pytest.approx(11.5, abs=0.02)
    assert border(other, one) == pytest.approx(11.5, abs=0.02)


@pytest.mark.parametrize("moved", [0.2, 0.4])
def test_what_the_grey_values_see_stays(moved: float) -> None:
    one, other = session(11.5, 11.5), session(11.5, 11.5 + moved)
    assert border(other, one) - border(one, other) == pytest.approx(moved, rel=0.25)
    assert border(other, one) + border(one, other) == pytest.approx(23, abs=0.1)


@pytest.mark.parametrize("moved", [0.3, 1.0, 4.0])
def test_most_of_a_change_that_both_see_stays(moved: float) -> None:
    one, other = session(11.5, 11.5), session(11.5 + moved, 11.5 + moved)
    assert 0.7 * moved < border(other, one) - border(one, other) < 1.05 * moved


def test_sessions_may_have_grey_values_of_other_scales() -> None:
    one, other = session(11.5, 11.5), session(11.5, 11.5, scale=0.6)
    assert border(one, other) == pytest.approx(11.5, abs=0.02)


def test_the_order_of_the_others_does_not_matter() -> None:
    own, *others = (session(11.5 + off, 11.5 - off) for off in (0, 0.3, 0.6))
    assert border(own, *others) == border(own, *reversed(others))


def test_a_head_that_lies_elsewhere_is_looked_up_there() -> None:
    one, other = session(11.5, 11.5), session(13.5, 13.5)
    assert border(one, other, to_other=shift(2)) == pytest.approx(11.5, abs=0.02)


def test_where_no_other_session_reaches_the_answer_is_the_own() -> None:
    one, other = session(11.5, 11.5), session(5.0, 8.0)
    assert border(one, other, to_other=shift(100)) == border(one)
