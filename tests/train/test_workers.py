from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Iterator

import pytest
import torch

from bidsseg.train import workers as room
from bidsseg.train.lessons import Lesson, LessonStream
from bidsseg.train.workers import borrowed, lessons
from tests.train.test_lessons import numbers, same, some, stream


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_draw_the_lessons_that_one_draws(workers: int) -> None:
    here, there = (some(lessons(stream(number)), 4) for number in (0, workers))
    assert all(same(*both) for both in zip(here, there, strict=True))


@pytest.mark.parametrize(("workers", "start"), [(1, "fork"), (2, "fork"), (2, "spawn")])
def test_lessons_stay_the_same_when_their_memory_is_lent_again(
    workers: int, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PIECES", 2)  # in forked workers, too
    count = 9 if start == "fork" else 3
    here, there = some(lessons(stream()), count), some(borrowed(stream(workers), start), count)
    assert all(same(*both) for both in zip(here, there, strict=True))


def test_where_processes_fail_drawing_goes_on_where_they_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = some(lessons(stream()), 4)

    def breaking(shown: LessonStream, *how: object) -> Iterator[Lesson]:
        yield from some(iter(shown), 2)
        raise RuntimeError("no such memory")

    monkeypatch.setattr(room, "borrowed", breaking)
    caplog.set_level(logging.WARNING)
    assert all(same(*both) for both in zip(whole, some(room._shared_on_gpu(stream(workers=2)), 4), strict=True))
    assert "no such memory" in caplog.text


class Failing(LessonStream):
    """Fails at its second lesson, but only in a worker."""

    failure: Exception | None = None
    "None kills the worker."

    def difficulty(self, number: int) -> float:
        if number and torch.utils.data.get_worker_info() is not None:
            if self.failure is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise self.failure
        return super().difficulty(number)


@pytest.mark.parametrize(
    ("failure", "goes_on"),
    [
        (None, True),
        (torch.cuda.OutOfMemoryError("no memory on the GPU"), True),
        (RuntimeError("shapes differ"), False),
        (FileNotFoundError("cache"), False),
    ],
)
def test_only_what_befell_a_worker_from_outside_is_worked_around(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception | None, goes_on: bool
) -> None:
    forked = functools.partial(borrowed, start="fork")
    monkeypatch.setattr(room, "borrowed", lambda shown, start: forked(shown))
    given = stream(workers=1)
    failing = Failing(given.material, given.recipe, given.progress, given.options, given.place)
    failing.failure = failure
    if failure is None or goes_on:
        assert numbers(some(room._shared_on_gpu(failing), 3)) == [0, 1, 2]
        assert "going on without" in caplog.text
    else:
        with pytest.raises(type(failure), match=str(failure)):
            some(room._shared_on_gpu(failing), 3)
