from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch

from bidsseg.train.chance import CPU, Chance
from bidsseg.train.lessons import Lesson, LessonStream, Place, batches, shared_progress
from bidsseg.train.losses import Targets, choose_targets
from bidsseg.train.options import SynthesisSettings, TrainOptions
from bidsseg.train.synthesis import Material, draw
from tests.train.test_train import ball

RECIPE = SynthesisSettings((32, 32, 32), shift_mm=2, warp_mm=1, multiple=4)
OPTIONS = TrainOptions(brain_blocks=50, outer_blocks=10, any_blocks=10, lesion_blocks=5, parcel_blocks=10, workers=0)


START = Place()


def stream(workers: int = 0, place: Place = START) -> LessonStream:
    options = TrainOptions(**{**vars(OPTIONS), "workers": workers})
    return LessonStream(Material.on(CPU, [ball()], []), RECIPE, shared_progress(0.5), options, place)


def some(drawn: Iterator[Lesson], count: int) -> list[Lesson]:
    return list(itertools.islice(drawn, count))


def same(one: Lesson, other: Lesson) -> bool:
    parts = zip(vars(one.targets).values(), vars(other.targets).values(), strict=True)
    return (one.number, one.image.tolist()) == (other.number, other.image.tolist()) and all(
        torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in parts
    )


def test_a_lesson_is_the_sample_of_its_number_with_targets_drawn_from_it() -> None:
    (lesson,) = some(iter(stream(place=Place(9, (3,)))), 1)
    chance = Chance.of((OPTIONS.seed, 3))
    sample = draw(Material.on(CPU, [ball()], []), RECIPE, stream().difficulty(3), chance)
    assert same(lesson, Lesson(3, sample.image, choose_targets(sample, OPTIONS, chance.noise)))
    assert same(lesson, Lesson(3, lesson.tensors[0], Targets(*lesson.tensors[1:])))


def of_shapes(sizes: Sequence[int], first: int = 0) -> list[Lesson]:
    (drawn,) = some(iter(stream()), 1)
    return [Lesson(number, torch.zeros(size, 1, 1), drawn.targets) for number, size in enumerate(sizes, first)]


@pytest.mark.parametrize(
    ("sizes", "size", "alike", "expected"),
    [
        ([1, 2, 3, 4], 2, 1, [[1, 2], [3, 4]]),
        ([1, 2, 1, 2, 1, 1], 2, 2, [[1, 1], [2, 2], [1, 1]]),
        ([1, 2, 2, 1, 3, 2, 2], 4, 2, [[2, 2, 1, 1]]),  # the others wait for their like
        ([1, 1, 1, 1, 2, 2], 3, 2, [[1, 1, 1, 1]]),
    ],
)
def test_batches(sizes: list[int], size: int, alike: int, expected: list[list[int]]) -> None:
    found = batches(iter(of_shapes(sizes)), size, alike, Place())
    assert [[len(lesson.image) for lesson in batch.lessons] for batch in found] == expected


SIZES = (1, 2, 3, 1, 1, 3, 2, 2, 1, 3, 2, 3)


def test_after_each_batch_its_place_tells_how_to_go_on() -> None:
    through = list(batches(iter(of_shapes(SIZES)), 2, 2, Place()))
    assert through[0].after == Place(4, (1, 2))
    known = of_shapes(SIZES)
    for done, batch in enumerate(through, 1):
        left = [known[number] for number in itertools.takewhile(lambda n: n < len(known), batch.after.numbers())]
        went_on = list(batches(iter(left), 2, 2, batch.after))
        assert [numbers(batch.lessons) for batch in went_on] == [numbers(batch.lessons) for batch in through[done:]]
        assert [batch.after for batch in went_on] == [batch.after for batch in through[done:]]


def numbers(drawn: Sequence[Lesson]) -> list[int]:
    return [lesson.number for lesson in drawn]


@pytest.mark.parametrize(("steps", "number", "expected"), [(0, 100, 0.5), (10, 0, 0.1), (10, 10, 0.3), (10, 20, 0.5)])
def test_difficulty_follows_the_time_or_the_lessons_number(steps: int, number: int, expected: float) -> None:
    options = TrainOptions(steps=steps, batch=2, difficulty=(0.1, 0.3, 0.5), peak=0.5)
    drawn = LessonStream(Material.on(CPU, [], []), RECIPE, shared_progress(1.0), options, Place())
    assert drawn.difficulty(number) == pytest.approx(expected)
