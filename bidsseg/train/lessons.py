"""What training steps learn from: samples with their targets, put into batches."""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from bidsseg.train.chance import Chance
from bidsseg.train.losses import Targets, choose_targets
from bidsseg.train.options import SynthesisSettings, TrainOptions
from bidsseg.train.synthesis import Material, draw


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

    @property
    def tensors(self) -> list[Tensor]:
        """All that it consists of; ``Lesson(number, image, Targets(*targets))`` is the way back."""
        return [self.image, *vars(self.targets).values()]


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
