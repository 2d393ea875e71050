"""Lessons drawn ahead by processes beside the training.

On a GPU they are handed over in memory that the processes lend again and again: to open and to close another process's
GPU memory takes longer than to draw a lesson.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bidsseg.network.unet import padded_length
from bidsseg.train.lessons import Lesson, LessonStream
from bidsseg.train.losses import Targets
from bidsseg.train.options import SynthesisSettings

logger = logging.getLogger(__name__)

AHEAD = 4
"Lessons that each worker draws ahead."
PATIENCE_S = 60
"How long a step waits for a lesson before the workers count as broken."
PIECES = 12
"Pieces of memory that each worker lends, each for one lesson."


def lessons(stream: LessonStream) -> Iterator[Lesson]:
    """The stream's lessons, drawn by as many processes as its options say."""
    workers = stream.options.workers
    on_gpu = stream.material.device.type != "cpu"
    yield from _shared_on_gpu(stream) if workers and on_gpu else _loader(stream, workers)


def _loader(
    stream: IterableDataset[Any], workers: int, start: str | None = None, patience_s: float = 0
) -> DataLoader[Any]:
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context=start,
        timeout=patience_s,
    )


def _shared_on_gpu(stream: LessonStream) -> Iterator[Lesson]:
    """What processes beside this one draw on the same GPU.

    To start the many small steps of a sample takes a CPU core longer than the GPU needs for them. Where processes
    cannot share the GPU, end or lack memory, a warning says so and this process draws. What else a worker raises is an
    error of the program or of its data, and ends the training.
    """
    try:
        for lesson in borrowed(stream, "spawn"):  # a fork cannot use CUDA
            yield lesson
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


def borrowed(stream: LessonStream, start: str) -> Iterator[Lesson]:
    """The stream's lessons, copied from the memory of its workers, which are started in this way."""
    workers = stream.options.workers
    context = multiprocessing.get_context(start)
    returned = [context.SimpleQueue() for _ in range(workers)]
    memory: dict[tuple[int, int], list[Tensor]] = {}
    lent: deque[tuple[Loan, torch.cuda.Event | None]] = deque()
    for loan in _loader(Lender(stream, returned), workers, start, PATIENCE_S):
        pieces = memory.setdefault((loan.worker, loan.piece), loan.memory or [])
        image, *targets = (
            whole[: math.prod(shape)].clone().reshape(shape) for whole, shape in zip(pieces, loan.shapes, strict=True)
        )
        lent.append((loan, _mark(image.device)))
        while lent and _is_over(lent[0][1], wait=len(lent) > workers * PIECES // 2):
            done, _ = lent.popleft()
            returned[done.worker].put(done.piece)
        yield Lesson(loan.number, image, Targets(*targets))


def _mark(device: torch.device) -> torch.cuda.Event | None:
    """The place in a GPU's queue after all that it was given."""
    if device.type == "cpu":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def _is_over(event: torch.cuda.Event | None, wait: bool) -> bool:
    """Whether the device has come to this place; where the host is to wait for it, it has."""
    if event is not None and wait:
        event.synchronize()
    return event is None or bool(event.query())  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Loan:
    """A lesson in a worker's memory."""

    number: int
    worker: int
    piece: int
    shapes: list[torch.Size]
    "Of the lesson's tensors, each of which begins a tensor of the piece."
    memory: list[Tensor] | None
    "The piece, with its first loan."


class Lender(IterableDataset[Loan]):
    """A stream's lessons as loans. Each worker takes its pieces back from a queue of its own."""

    def __init__(self, stream: LessonStream, returned: Sequence[SimpleQueue[int]]) -> None:
        self.stream, self.returned = stream, returned

    def __iter__(self) -> Iterator[Loan]:
        info = get_worker_info()
        assert info is not None
        pieces: list[list[Tensor]] = []
        for lesson in self.stream:
            new = len(pieces) < PIECES
            number = len(pieces) if new else self.returned[info.id].get()
            if new:
                pieces.append(memory_for(lesson, self.stream.recipe))
            for whole, part in zip(pieces[number], lesson.tensors, strict=True):
                whole[: part.numel()] = part.flatten()
            if lesson.image.is_cuda:
                torch.cuda.current_stream().synchronize()
            shapes = [part.shape for part in lesson.tensors]
            yield Loan(lesson.number, info.id, number, shapes, pieces[number] if new else None)


def memory_for(lesson: Lesson, recipe: SynthesisSettings) -> list[Tensor]:
    """Flat memory for any lesson of the recipe; all have the same number of targets, but not of voxels."""
    voxels = math.prod(padded_length(n, recipe.multiple) for n in recipe.shape)
    image, *targets = lesson.tensors
    return [image.new_empty(voxels), *(target.new_empty(target.numel()) for target in targets)]
