"""What training steps learn from: samples with their targets, drawn ahead by worker processes and put into batches."""

from __future__ import annotations

import ctypes
import itertools
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bidsseg.train.chance import Chance
from bidsseg.train.losses import Targets, choose_targets
from bidsseg.train.options import TrainOptions
from bidsseg.train.synthesis import Material, SynthesisSettings, draw

logger = logging.getLogger(__name__)

AHEAD = 4
"Lessons that each worker draws ahead."
PATIENCE_S = 60
"How long a step waits for a lesson before the workers count as broken."


@dataclass(frozen=True)
class Lesson:
    """One sample as a step sees it."""

    image: Tensor
    "float16 (I, J, K)"
    targets: Targets

    def copied(self) -> Lesson:
        """A copy of its own: what another process made stays in that process's memory, which it needs for the next."""
        return Lesson(self.image.clone(), Targets(*(part.clone() for part in vars(self.targets).values())))


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
        first: int,
    ) -> None:
        self.material, self.recipe, self.progress = material, recipe, progress
        self.options, self.first = options, first

    def __iter__(self) -> Iterator[Lesson]:
        info = torch.utils.data.get_worker_info()
        worker, step = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            torch.set_num_threads(1)
        for number in itertools.count(self.first + worker, step):
            chance = Chance.of((self.options.seed, number), self.material.device)
            sample = draw(self.material, self.recipe, self.difficulty(number), chance)
            yield Lesson(sample.image, choose_targets(sample, self.options, chance.noise))

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
    cannot share the GPU, a warning says so and this process draws.
    """
    number = stream.first
    try:
        for lesson in _drawn(stream, stream.options.workers, "spawn", PATIENCE_S):  # a fork cannot use CUDA
            yield lesson.copied()
            number += 1
    except (RuntimeError, OSError) as error:
        logger.warning("worker processes cannot draw on the GPU, going on without: %s", str(error).split("\n", 1)[0])
    stream.first = number
    yield from stream


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


def batches(drawn: Iterator[Lesson], size: int, alike: int) -> Iterator[list[Lesson]]:
    """Lessons in batches, ``alike`` of one shape together: those that wait for their like come in a later batch."""
    waiting: dict[torch.Size, list[Lesson]] = {}
    batch: list[Lesson] = []
    for lesson in drawn:
        group = waiting.setdefault(lesson.image.shape, [])
        group.append(lesson)
        if len(group) < alike:
            continue
        batch += waiting.pop(lesson.image.shape)
        if len(batch) >= size:
            yield batch
            batch = []


def in_groups(batch: Sequence[Lesson]) -> list[list[Lesson]]:
    """Lessons of one shape, which go through the network together; shapes in the order in which they come first."""
    by_shape: dict[torch.Size, list[Lesson]] = {}
    for lesson in batch:
        by_shape.setdefault(lesson.image.shape, []).append(lesson)
    return list(by_shape.values())
