from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import pytest
import torch

from bidsseg.train import lessons as room
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.lessons import Lesson, LessonStream, batches, in_groups, lessons, shared_progress
from bidsseg.train.losses import choose_targets
from bidsseg.train.options import TrainOptions
from bidsseg.train.synthesis import Material, SynthesisSettings, draw
from tests.train.test_train import ball

RECIPE = SynthesisSettings((32, 32, 32), shift_mm=2, warp_mm=1, multiple=4)
OPTIONS = TrainOptions(brain_blocks=50, outer_blocks=10, any_blocks=10, lesion_blocks=5, parcel_blocks=10, workers=0)


def stream(workers: int = 0, first: int = 0) -> LessonStream:
    options = TrainOptions(**{**vars(OPTIONS), "workers": workers})
    return LessonStream(Material.on(CPU, [ball()], []), RECIPE, shared_progress(0.5), options, first)


def some(drawn: Iterator[Lesson], count: int) -> list[Lesson]:
    return list(itertools.islice(drawn, count))


def same(one: Lesson, other: Lesson) -> bool:
    parts = zip(vars(one.targets).values(), vars(other.targets).values(), strict=True)
    return torch.equal(one.image, other.image) and all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in parts)


def test_a_lesson_is_the_sample_of_its_number_with_targets_drawn_from_it() -> None:
    (lesson,) = some(lessons(stream(first=3)), 1)
    chance = Chance.of((OPTIONS.seed, 3))
    sample = draw(Material.on(CPU, [ball()], []), RECIPE, stream().difficulty(3), chance)
    assert same(lesson, Lesson(sample.image, choose_targets(sample, OPTIONS, chance.noise)))
    assert same(lesson, lesson.copied())


@pytest.mark.parametrize(("workers", "start"), [(1, None), (2, None), (2, "spawn")])
def test_processes_draw_the_lessons_that_one_draws(workers: int, start: str | None) -> None:
    here = some(lessons(stream()), 4)
    there = some(room._drawn(stream(workers), workers, start), 4)
    assert all(same(*both) for both in zip(here, there, strict=True))


def test_where_processes_fail_drawing_goes_on_where_they_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = some(lessons(stream()), 4)

    def breaking(shown: LessonStream, *how: object) -> Iterator[Lesson]:
        yield from some(iter(shown), 2)
        raise RuntimeError("no such memory")

    monkeypatch.setattr(room, "_drawn", breaking)
    caplog.set_level(logging.WARNING)
    assert all(same(*both) for both in zip(whole, some(room._shared_on_gpu(stream(workers=2)), 4), strict=True))
    assert "no such memory" in caplog.text


def of_shape(size: int) -> Lesson:
    (drawn,) = some(lessons(stream()), 1)
    return Lesson(torch.zeros(size, 1, 1), drawn.targets)


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
    found = batches(iter([of_shape(n) for n in sizes]), size, alike)
    assert [[len(lesson.image) for lesson in batch] for batch in found] == expected


def test_groups_hold_one_shape() -> None:
    groups = in_groups([of_shape(n) for n in (1, 2, 1, 1, 2)])
    assert [[len(lesson.image) for lesson in group] for group in groups] == [[1, 1, 1], [2, 2]]


@pytest.mark.parametrize(("steps", "number", "expected"), [(0, 100, 0.5), (10, 0, 0.1), (10, 10, 0.3), (10, 20, 0.5)])
def test_difficulty_follows_the_time_or_the_lessons_number(steps: int, number: int, expected: float) -> None:
    options = TrainOptions(steps=steps, batch=2, difficulty=(0.1, 0.3, 0.5), peak=0.5)
    drawn = LessonStream(Material.on(CPU, [], []), RECIPE, shared_progress(1.0), options, 0)
    assert drawn.difficulty(number) == pytest.approx(expected)
