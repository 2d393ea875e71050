"""Heads made of the atlas itself, and a network that sees what is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats
from bidsseg.labels import TISSUE, TISSUES
from bidsseg.network.probabilities import Probabilities
from bidsseg.quality.assessment import assess
from bidsseg.quality.reorientation import (
    AS_STORED,
    ATLAS_MM,
    Turn,
    atlas,
    best_turn,
    fits,
    kinds,
    name_of,
    then,
    turned,
    turns,
    with_orientation,
)
from tests.quality.test_assessment import TRUSTING, VIEW, usual

KIND_AS_TISSUE = [TISSUE[name] for name in ("background", "cortex", "white-matter", "csf")]
FINER = int(ATLAS_MM) // 4
"The atlas' voxels are so many looks wide."


def head(turn: Turn = AS_STORED) -> NDArray[np.float32]:
    """The most frequent kind of tissue everywhere in the atlas, as a volume of whole numbers, 4 mm."""
    kind = turned(atlas().argmax(0), turn)
    return kind.repeat(FINER, 0).repeat(FINER, 1).repeat(FINER, 2).astype(np.float32)


def seen(volume: Floats) -> Floats:
    """(19, i, j, k) of a volume of kinds, each voxel being what it is."""
    tissue = np.zeros((len(TISSUES), *volume.shape), np.float32)
    for kind, index in enumerate(KIND_AS_TISSUE):
        tissue[index] = volume == kind
    return tissue


def never(volume: Floats) -> Floats:
    raise AssertionError("nothing speaks for another look")


def test_all_orientations_but_mirrored_ones_are_there_once() -> None:
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    assert len({turned(cube, turn).tobytes() for turn in turns()}) == 24
    assert turns()[0] == AS_STORED
    np.testing.assert_array_equal(turned(cube, AS_STORED), cube)


@pytest.mark.parametrize("first", turns())
def test_two_turns_make_one_but_for_left_and_right(first: Turn) -> None:
    cube = np.arange(27).reshape(3, 3, 3)
    for second in turns():
        both = turned(turned(cube, first), second)
        one = turned(cube, then(first, second))
        assert np.array_equal(one, both) or np.array_equal(one[::-1], both)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (((0, 1, 2), (2,)), "bottom and top exchanged"),
        (((0, 1, 2), (1, 2)), "back and front exchanged and bottom and top exchanged"),
        (((0, 2, 1), ()), "back-front as bottom-top and bottom-top as back-front"),
        (((0, 2, 1), (1,)), "back-front as bottom-top and bottom-top as front-back"),
        (((1, 0, 2), ()), "left-right as back-front and back-front as across the head"),
    ],
)
def test_names(turn: Turn, name: str) -> None:
    assert name_of(turn) == name


def test_a_head_fits_best_as_it_lies_whatever_its_size() -> None:
    found = fits(kinds(seen(head())), 4)
    smaller = fits(kinds(seen(head())), 3.2)
    assert max(found, key=lambda turn: found[turn]) == AS_STORED
    assert smaller == pytest.approx(found)


@pytest.mark.parametrize("turn", turns())
def test_a_turned_head_is_turned_back(turn: Turn) -> None:
    lying = head(turn)
    back = best_turn(lying, seen(lying), seen)
    assert then(turn, back) == AS_STORED


def test_a_head_that_lies_well_costs_no_look() -> None:
    assert best_turn(head(), seen(head()), never) == AS_STORED


@pytest.mark.parametrize("content", ["nothing", "noise"])
def test_what_is_no_head_has_no_orientation(content: str) -> None:
    shape = (40, 44, 36)
    volume = np.zeros(shape, np.float32)
    if content == "noise":
        volume = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)
    looks: list[Floats] = []

    def look(other: Floats) -> Floats:
        looks.append(other)
        return seen(other)

    assert best_turn(volume, seen(volume), look) == AS_STORED
    assert len(looks) <= 3


def test_what_is_too_large_for_a_brain_costs_no_look() -> None:
    upside_down = head(((0, 1, 2), (2,))).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert best_turn(upside_down, seen(upside_down), never) == AS_STORED


@pytest.mark.parametrize(
    ("turn", "slices", "name"),
    [(AS_STORED, 192, ""), (((0, 1, 2), (2,)), 192, "bottom and top exchanged"), (((0, 1, 2), (2,)), 60, "")],
)
def test_evidence_names_the_orientation_that_looks_right(turn: Turn, slices: int, name: str) -> None:
    lying = head(turn).repeat(4, 0).repeat(4, 1).repeat(4, 2)[..., :slices]  # 1 mm
    answer = seen(lying).astype(np.float16)
    nothing = np.zeros((1, *lying.shape), np.float16)

    def look(other: Floats) -> Floats:
        return seen(other[::4, ::4, ::4])

    evidence = with_orientation(usual(), Probabilities((0, 0, 0), answer, nothing, nothing), lying, look)
    assert evidence.better_turned == name
    assert evidence.layout_fit < 0


def test_a_wrong_orientation_is_told() -> None:
    found = assess(replace(usual(0.3), better_turned="bottom and top exchanged"), VIEW, TRUSTING)
    assert found.verdict == "fail"
    assert any("wrong orientation" in reason for reason in found.reasons)
