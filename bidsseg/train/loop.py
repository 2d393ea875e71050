"""The training loop: resumable, on a CPU, in a given number of hours.

All schedules (learning rate, difficulty, class balance) follow the share of the given training time that has passed,
so that a slow machine and a fast one both end with a finished model.
"""

from __future__ import annotations

import csv
import ctypes
import logging
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bidsseg import __version__
from bidsseg.network.config import UNetConfig
from bidsseg.network.unet import UNet
from bidsseg.network.weights import save_model
from bidsseg.train.about import ABOUT
from bidsseg.train.data import Subject
from bidsseg.train.losses import TISSUE_FREQUENCIES, choose_targets, class_weights, losses
from bidsseg.train.muon import Muon
from bidsseg.train.options import TrainOptions
from bidsseg.train.synthesis import Recipe, Sample, draw

logger = logging.getLogger(__name__)


class SampleStream(IterableDataset[Sample]):
    """Endless random samples; their difficulty follows ``progress``, which the training process advances."""

    def __init__(
        self,
        subjects: list[Subject],
        lesions: list[NDArray[np.uint8]],
        recipe: Recipe,
        progress: Synchronized[float],
        options: TrainOptions,
        first: int,
    ) -> None:
        self.subjects, self.lesions, self.recipe, self.progress = subjects, lesions, recipe, progress
        self.options, self.first = options, first

    def __iter__(self) -> Iterator[Sample]:
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        worker, step = (0, 1) if info is None else (info.id, info.num_workers)
        number = self.first + worker
        while True:
            rng = np.random.default_rng((self.options.seed, number))
            torch.manual_seed(int(rng.integers(2**31)))
            yield draw(self.subjects, self.lesions, self.recipe, self.difficulty(), rng)
            number += step

    def difficulty(self) -> float:
        when = (0.0, self.options.peak, 1.0)
        return float(np.interp(self.progress.value, when, self.options.difficulty))


@dataclass
class State:
    """What a checkpoint holds."""

    net: UNet
    average: dict[str, Tensor]
    optimisers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    seconds: float = 0.0


def new_state(config: UNetConfig, options: TrainOptions, weights: dict[str, Tensor] | None = None) -> State:
    """Fresh weights, or those given."""
    torch.manual_seed(options.seed)
    net = UNet(config)
    if weights is not None:
        net.load_state_dict(weights)
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    return State(net, average, optimisers_for(net, options))


def optimisers_for(net: UNet, options: TrainOptions) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the body's convolutions, which learn in half the steps with it; AdamW for norms and heads."""
    body = [p for part in (net.encoder, net.reduce, net.decoder) for p in part.parameters() if p.ndim == 5]
    rest = [p for p in net.parameters() if all(p is not other for other in body)]
    adam = torch.optim.AdamW(rest, lr=options.head_learning_rate, betas=(0.9, 0.98), weight_decay=options.weight_decay)
    return Muon(body, lr=options.learning_rate), adam


def save_state(state: State, folder: Path) -> None:
    """Write the checkpoint so that a kill leaves the previous one whole."""
    tensors = {f"net.{name}": value for name, value in state.net.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for which, optimiser in enumerate(state.optimisers):
        for number, slots in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{which}.{number}.{slot}": torch.as_tensor(v) for slot, v in slots.items()}
    temporary = folder / "checkpoint.tmp"
    meta = {"step": str(state.step), "seconds": str(state.seconds)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, meta)
    temporary.replace(folder / "checkpoint.safetensors")


def restore_state(state: State, path: Path) -> None:
    """Read a checkpoint written by ``save_state`` into a fresh state."""
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        meta = opened.metadata()
    state.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    state.average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
    for which, optimiser in enumerate(state.optimisers):
        stored = optimiser.state_dict()
        for key, value in tensors.items():
            if key.startswith(f"optimiser.{which}."):
                number, slot = key.split(".")[2:]
                stored["state"].setdefault(int(number), {})[slot] = value
        optimiser.load_state_dict(stored)
    state.step, state.seconds = int(meta["step"]), float(meta["seconds"])


def schedule(options: TrainOptions, step: int, progress: float) -> float:
    """What learning rates are multiplied by: linear warm-up, then a half cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / options.warmup_steps)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@dataclass(frozen=True)
class Run:
    """What to train, on what, where."""

    subjects: list[Subject]
    lesions: list[NDArray[np.uint8]]
    out: Path
    "Checkpoint and log go here."
    config: UNetConfig = field(default_factory=UNetConfig)
    recipe: Recipe = field(default_factory=Recipe)
    options: TrainOptions = field(default_factory=TrainOptions)
    weights: dict[str, Tensor] | None = None
    "To start from; None for random ones."


def start_or_resume(run: Run) -> State:
    """The state of the output folder's checkpoint, or a new one."""
    state = new_state(run.config, run.options, run.weights)
    checkpoint = run.out / "checkpoint.safetensors"
    if checkpoint.exists():
        restore_state(state, checkpoint)
        logger.info("resuming at step %d, %.2f h", state.step, state.seconds / 3600)
    return state


def share_done(state: State, options: TrainOptions) -> float:
    """How much of the training is over, 0-1: what schedules follow."""
    by_steps = state.step / options.steps if options.steps else 0.0
    return max(state.seconds / (options.hours * 3600), by_steps)


def train(run: Run, on_step: Callable[[State, dict[str, float]], None] = lambda state, row: None) -> State:
    """Train until ``options.hours`` are used up, resuming from the checkpoint where there is one."""
    options = run.options
    torch.set_num_threads(options.threads)
    run.out.mkdir(parents=True, exist_ok=True)
    state = start_or_resume(run)
    progress = multiprocessing.Value(ctypes.c_double, share_done(state, options))
    samples = SampleStream(run.subjects, run.lesions, run.recipe, progress, options, state.step)
    generator = torch.Generator().manual_seed(options.seed + state.step)
    last_save = last = time.monotonic()
    for sample in DataLoader(
        samples, batch_size=None, num_workers=options.workers, prefetch_factor=3 if options.workers else None
    ):
        done = float(progress.value)
        if done >= 1:
            break
        parts = train_step(state, sample, options, done, generator)
        now = time.monotonic()
        state.seconds, last, state.step = state.seconds + now - last, now, state.step + 1
        progress.value = share_done(state, options)
        row = {"step": state.step, "hours": round(state.seconds / 3600, 4), "progress": round(done, 4)} | parts
        append_row(run.out / "log.csv", row)
        on_step(state, row)
        if now - last_save > options.checkpoint_s:
            save_state(state, run.out)
            last_save = time.monotonic()
    save_state(state, run.out)
    return state


def train_step(
    state: State, sample: Sample, options: TrainOptions, progress: float, generator: torch.Generator
) -> dict[str, float]:
    """One optimiser step on one sample; the losses as numbers."""
    factor = schedule(options, state.step, progress)
    for optimiser, peak in zip(state.optimisers, (options.learning_rate, options.head_learning_rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = peak * factor
    exponent = options.balance[0] + (options.balance[1] - options.balance[0]) * progress
    class_weight = class_weights(torch.tensor(TISSUE_FREQUENCIES), exponent)
    targets = choose_targets(sample.packed, sample.weight, options, generator)
    with torch.autocast("cpu", torch.bfloat16):
        features = state.net.features(sample.image.float()[None, None])
        parts = losses(state.net, features, targets, class_weight)
    total = sum(parts.values(), torch.zeros(()))
    state.net.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(state.net.parameters(), 2.0)
    if torch.isfinite(norm):
        for optimiser in state.optimisers:
            optimiser.step()
    decay = min(options.ema, (1 + state.step) / (10 + state.step))
    for name, value in state.net.state_dict().items():
        state.average[name].lerp_(value, 1 - decay)
    return {name: round(value.item(), 4) for name, value in parts.items()}


LOG_COLUMNS = ("step", "hours", "progress", "tissue", "dice", "side", "parcel")


def append_row(path: Path, row: dict[str, float]) -> None:
    """One line of the training log; its head where the file is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, LOG_COLUMNS, restval="", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(row)


def export(run: Run, state: State, folder: Path, earlier: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the averaged weights as a model that ``--model`` takes; ``earlier`` runs are those of its first weights."""
    this = {"hours": round(state.seconds / 3600, 2), "steps": state.step, "options": asdict(run.options)}
    runs = [*earlier, this]
    training = {"hours": round(sum(run["hours"] for run in runs), 2), "steps": sum(run["steps"] for run in runs)}
    about: dict[str, Any] = {**ABOUT, "training": {**training, "runs": runs}}
    save_model(folder, final_weights(run, state), state.net.config, __version__, about)


def final_weights(run: Run, state: State) -> dict[str, Tensor]:
    """The averaged weights, mixed with those the run started from as far as ``init_share`` says."""
    if run.weights is None:
        return state.average
    return {name: value.lerp(run.weights[name], run.options.init_share) for name, value in state.average.items()}
