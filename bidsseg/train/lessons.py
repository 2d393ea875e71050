"""What training steps learn from: samples with their targets, drawn ahead by worker processes and put into batches."""

from __future__ import annotations

import ctypes
import itertools
import logging
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bidsseg.train.chance import Chance
from bidsseg.train.losses import Targets, choose_targets
from bidsseg.train.options import SynthesisSettings, TrainOptions
from bidsseg.train.synthesis import Material, draw

logger = logging.getLogger(__name__)

AHEAD = 4
"Lessons that each worker draws ahead."
PATIENCE_S = 60
"How long a step waits for a lesson before the workers count as broken."


@dataclass(frozen=True)
class Lesson:
    """One sample as a step sees it."""

    number: int
    "Its number among all of a seed."
    image: Tensor
    "float16 (I, J, K)"
    targets: Targets

    @property
    def shape(self) -> torch.Size:
        return self.image.shape

    def copied(self) -> Lesson:
        """A copy of its own: what another process made stays in that process's memory, which it needs for the next."""
        targets = Targets(*(part.clone() for part in vars(self.targets).values()))
        return Lesson(self.number, self.image.clone(), targets)


@dataclass(frozen=True)
class Place:
    """How far a training has come among its lessons."""

    first: int = 0
    "No lesson from this number on was drawn."
    waiting: tuple[int, ...] = ()
    "The numbers of lessons that were drawn and wait for their like."

    def numbers(self) -> Iterator[int]:
        """Of the lessons to draw from here on."""
        return itertools.chain(self.waiting, itertools.count(self.first))


class Batch(NamedTuple):
    """What a step learns from, and the place after it."""

    lessons: list[Lesson]
    after: Place


def shared_progress(done: float) -> Synchronized[float]:
    """The share of the training that is over, which workers read; for processes started in any way."""
    return multiprocessing.get_context("spawn").Value(ctypes.c_double, done)


class LessonStream(IterableDataset[Lesson]):
    """Endless lessons; their difficulty follows ``progress``, which the training process advances, or their number."""

    def __init__(
        self,
        material: Material,
        recipe: SynthesisSettings,
        progress: Synchronized[float],
        options: TrainOptions,
        place: Place,
    ) -> None:
        self.material, self.recipe, self.progress = material, recipe, progress
        self.options, self.place = options, place
        self.skipped = 0

    def __iter__(self) -> Iterator[Lesson]:
        info = torch.utils.data.get_worker_info()
        worker, step = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            torch.set_num_threads(1)
        for number in itertools.islice(self.place.numbers(), self.skipped + worker, None, step):
            chance = Chance.of((self.options.seed, number), self.material.device)
            sample = draw(self.material, self.recipe, self.difficulty(number), chance)
            yield Lesson(number, sample.image, choose_targets(sample, self.options, chance.noise))

    def difficulty(self, number: int) -> float:
        """That of a lesson; where the steps are counted it does not depend on when the lesson is drawn."""
        steps = self.options.steps
        done = number / (steps * self.options.batch) if steps else self.progress.value
        return float(np.interp(done, (0.0, self.options.peak, 1.0), self.options.difficulty))


def lessons(stream: LessonStream) -> Iterator[Lesson]:
    """The stream's lessons, drawn by as many processes as its options say."""
    workers = stream.options.workers
    on_gpu = stream.material.device.type != "cpu"
    return _shared_on_gpu(stream) if workers and on_gpu else _drawn(stream, workers)


def _shared_on_gpu(stream: LessonStream) -> Iterator[Lesson]:
    """What processes beside this one draw on the same GPU.

    To start the many small steps of a sample takes a CPU core longer than the GPU needs for them. Where processes
    cannot share the GPU, end or lack memory, a warning says so and this process draws. What else a worker raises is an
    error of the program or of its data, and ends the training.
    """
    try:
        for lesson in _drawn(stream, stream.options.workers, "spawn", PATIENCE_S):  # a fork cannot use CUDA
            yield lesson.copied()
            stream.skipped += 1
    except (RuntimeError, OSError, MemoryError) as error:
        if _was_raised_while_drawing(error):
            raise
        logger.warning("worker processes cannot draw on the GPU, going on without: %s", str(error).split("\n", 1)[0])
    yield from stream


def _was_raised_while_drawing(error: Exception) -> bool:
    """Whether a worker raised it; ``DataLoader`` puts these words before it, and none before its own errors.

    Memory is no matter of what is drawn: the worker's share of it may be too small, where one process has enough.
    """
    return str(error).startswith("Caught ") and not isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)


def _drawn(stream: LessonStream, workers: int, start: str | None = None, patience_s: float = 0) -> Iterator[Lesson]:
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context=start,
        timeout=patience_s,
    )
    yield from loader


def batches(drawn: Iterator[Lesson], size: int, alike: int, place: Place) -> Iterator[Batch]:
    """Lessons from a place on, ``alike`` of one shape together; those that wait for their like come later."""
    first, unlearned = place.first, dict.fromkeys(place.waiting)
    waiting: list[Lesson] = []
    batch: list[Lesson] = []
    for lesson in drawn:
        first, unlearned[lesson.number] = max(first, lesson.number + 1), None
        waiting.append(lesson)
        group = [other for other in waiting if other.shape == lesson.shape]
        if len(group) < alike:
            continue
        waiting = [other for other in waiting if other.shape != lesson.shape]
        batch += group
        if len(batch) >= size:
            for learned in batch:
                del unlearned[learned.number]
            yield Batch(batch, Place(first, tuple(unlearned)))
            batch = []
