"""The training loop: resumable, on a CPU or a GPU, in a given number of hours.

All schedules (learning rate, difficulty, class balance) follow the share of the given training time that has passed,
so that a slow machine and a fast one both end with a finished model.
"""

from __future__ import annotations

import csv
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bidsseg import __version__
from bidsseg.errors import FileError
from bidsseg.network.config import UNetConfig
from bidsseg.network.device import choose_device
from bidsseg.network.unet import UNet, features_of
from bidsseg.network.weights import Model, save_model
from bidsseg.train.about import ABOUT
from bidsseg.train.chance import CPU
from bidsseg.train.data import Subject
from bidsseg.train.growing import grown
from bidsseg.train.lessons import Batch, Lesson, LessonStream, Place, batches, shared_progress
from bidsseg.train.losses import TISSUE_FREQUENCIES, Targets, class_weights, losses
from bidsseg.train.muon import Muon
from bidsseg.train.options import SynthesisSettings, TrainOptions
from bidsseg.train.recording import Recorder
from bidsseg.train.shapes import in_groups
from bidsseg.train.synthesis import Material
from bidsseg.train.workers import lessons

logger = logging.getLogger(__name__)

LEARNING_LEVELS = 7
"Of the eighth, the norms would see a single value in a sample of 160 mm."
GPU_LOG_STEPS = 10
"A GPU's losses are read once in so many steps, because the host waits for them."


@dataclass
class State:
    """What a checkpoint holds."""

    net: UNet
    average: dict[str, Tensor]
    optimisers: tuple[torch.optim.Optimizer, ...]
    step: int = 0
    seconds: float = 0.0
    place: Place = field(default_factory=Place)
    recorder: Recorder = field(default_factory=Recorder)
    "Not in a checkpoint."


def new_state(
    config: UNetConfig, options: TrainOptions, weights: dict[str, Tensor] | None = None, device: torch.device = CPU
) -> State:
    """Fresh weights, or those given, on a device."""
    torch.manual_seed(options.seed)
    net = UNet(config)
    if weights is not None:
        net.load_state_dict(weights)
    net.to(device)
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
    waiting = " ".join(map(str, state.place.waiting))
    meta = {"step": str(state.step), "seconds": str(state.seconds), "first": str(state.place.first), "waiting": waiting}
    save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, meta)
    temporary.replace(folder / "checkpoint.safetensors")


def restore_state(state: State, path: Path) -> None:
    """Read a checkpoint written by ``save_state`` into a fresh state."""
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        meta = opened.metadata()
    state.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    for name, value in state.average.items():
        value.copy_(tensors[f"average.{name}"])
    for which, optimiser in enumerate(state.optimisers):
        stored = optimiser.state_dict()
        for key, value in tensors.items():
            if key.startswith(f"optimiser.{which}."):
                number, slot = key.split(".")[2:]
                stored["state"].setdefault(int(number), {})[slot] = value
        optimiser.load_state_dict(stored)
    state.step, state.seconds = int(meta["step"]), float(meta["seconds"])
    # older checkpoints do not say it; their training begins its lessons anew
    state.place = Place(int(meta.get("first", 0)), tuple(map(int, meta.get("waiting", "").split())))


def schedule(options: TrainOptions, step: int, progress: float) -> float:
    """What learning rates are multiplied by: linear warm-up, then a half cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / options.warmup_steps)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def training_device(name: str) -> torch.device:
    """The device asked for; auto is the GPU if there is one that CUDA runs on. See ``choose_device`` for errors."""
    if name == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else CPU
    return choose_device(name)


@dataclass(frozen=True)
class Run:
    """What to train, on what, where."""

    subjects: list[Subject]
    lesions: list[NDArray[np.uint8]]
    out: Path
    "Checkpoint and log go here."
    config: UNetConfig = field(default_factory=UNetConfig)
    recipe: SynthesisSettings = field(default_factory=SynthesisSettings)
    options: TrainOptions = field(default_factory=TrainOptions)
    weights: dict[str, Tensor] | None = None
    "To start from; None for random ones."
    device: torch.device = CPU
    "Where samples are made and learned from."


def widths_from(text: str) -> tuple[int, ...]:
    """``16,48,96`` as numbers; raises ``ValueError`` for anything else."""
    numbers = text.split(",")
    if not all(number.isdecimal() and len(number) < 9 for number in numbers):
        raise ValueError(f"{text} is no list of numbers, such as 16,48,96")
    return tuple(map(int, numbers))


def beginning(
    start: Model | None, widths: tuple[int, ...] | None, seed: int
) -> tuple[UNetConfig, dict[str, Tensor] | None]:
    """What a training begins with: a model's shape and weights, grown where widths are given; without a model, None for
    random weights. Raises ``ValueError`` for widths of no network, or of one that cannot grow from the model or learn.
    """
    if widths and len(widths) > LEARNING_LEVELS:
        raise ValueError(f"a network learns with {LEARNING_LEVELS} levels at most")
    if start is None:
        return (UNetConfig(widths) if widths else UNetConfig()), None
    config, weights = start.net.config, start.net.state_dict()
    if widths is None:
        return config, weights
    return replace(config, widths=widths), grown(weights, config, widths, seed)


def start_or_resume(run: Run) -> State:
    """The state of the output folder's checkpoint, or a new one; raises ``FileError`` for another network's."""
    state = new_state(run.config, run.options, run.weights, run.device)
    checkpoint = run.out / "checkpoint.safetensors"
    if checkpoint.exists():
        try:
            restore_state(state, checkpoint)
        except (RuntimeError, SafetensorError, KeyError, TypeError, ValueError) as error:
            advice = "give the --init and --widths that it was begun with, or, if it is damaged, another folder"
            raise FileError(checkpoint, "no checkpoint of this training", advice) from error
        logger.info("resuming at step %d, %.2f h", state.step, state.seconds / 3600)
    return state


def share_done(state: State, options: TrainOptions) -> float:
    """How much of the training is over, 0-1: what schedules follow."""
    by_steps = state.step / options.steps if options.steps else 0.0
    return max(state.seconds / (options.hours * 3600), by_steps)


def train(
    run: Run,
    on_step: Callable[[State, dict[str, float]], None] = lambda state, row: None,
    on_save: Callable[[State], None] = lambda state: None,
) -> State:
    """Train until ``options.hours`` are used up, resuming from the checkpoint where there is one.

    ``on_step`` is called after every step that is logged, ``on_save`` after every checkpoint.
    """
    options = run.options
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.deterministic = True
    run.out.mkdir(parents=True, exist_ok=True)
    state = start_or_resume(run)
    progress = shared_progress(share_done(state, options))
    learned_from = lesson_batches(run, progress, state.place)
    last_save = last = time.monotonic()
    while (done := float(progress.value)) < 1:
        batch = next(learned_from)
        parts = train_step(state, batch.lessons, options, done)
        now, state.place = time.monotonic(), batch.after
        state.seconds, last, state.step = state.seconds + now - last, now, state.step + 1
        progress.value = share_done(state, options)
        if run.device.type == "cpu" or state.step % GPU_LOG_STEPS == 0:
            losses = {name: round(value.item(), 4) for name, value in parts.items()}
            row = {"step": state.step, "hours": round(state.seconds / 3600, 4), "progress": round(done, 4)} | losses
            append_row(run.out / "log.csv", row)
            on_step(state, row)
        if now - last_save > options.checkpoint_s:
            save_state(state, run.out)
            on_save(state)
            last_save = time.monotonic()
    save_state(state, run.out)
    on_save(state)
    return state


def lesson_batches(run: Run, progress: Synchronized[float], place: Place) -> Iterator[Batch]:
    """What each step learns from, from a place on."""
    options = run.options
    material = Material.on(run.device, run.subjects, run.lesions)
    stream = LessonStream(material, run.recipe, progress, options, place)
    return batches(lessons(stream), options.batch, options.alike, place)


def train_step(state: State, batch: Sequence[Lesson], options: TrainOptions, progress: float) -> dict[str, Tensor]:
    """One optimiser step on the mean of the lessons' losses; the losses, still on the device.

    Nothing here waits for the device.
    """
    set_learning_rates(state, options, progress)
    parts = set_gradients(state, batch, options, progress)
    update(state, options)
    return parts


def set_gradients(state: State, batch: Sequence[Lesson], options: TrainOptions, progress: float) -> dict[str, Tensor]:
    """Those of the mean of the lessons' losses, which it returns."""
    exponent = options.balance[0] + (options.balance[1] - options.balance[0]) * progress
    device = batch[0].image.device
    class_weight = class_weights(torch.tensor(TISSUE_FREQUENCIES), exponent).to(device, non_blocking=True)
    clear_gradients(state.net)
    found = []
    for group in in_groups(batch, lambda lesson: lesson.shape):
        count, tensors = len(group), [class_weight]
        for lesson in group:
            tensors += lesson.tensors
        work = functools.partial(add_gradients, state.net, count, 1 / len(batch))
        found.append(state.recorder.run(work, tensors, len(batch)))
    return {name: torch.cat([parts[name] for parts in found]).mean() for name in found[0]}


def clear_gradients(net: UNet) -> None:
    """Set them to 0 in place: recordings add to this memory."""
    gradients = []
    for weight in net.parameters():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        gradients.append(weight.grad)
    torch._foreach_zero_(gradients)


def add_gradients(net: UNet, count: int, share: float, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Add those of lessons of one shape, each with this share; tensors are the class weights and the lessons' parts.

    It returns the lessons' losses, (B,) each.
    """
    class_weight, *parts_of_lessons = tensors
    size = len(parts_of_lessons) // count
    images = torch.stack([image.float() for image in parts_of_lessons[::size]])[:, None]  # (B, 1, I, J, K)
    targets = [Targets(*parts_of_lessons[first + 1 : first + size]) for first in range(0, len(parts_of_lessons), size)]
    with torch.autocast(images.device.type, torch.bfloat16):
        features = features_of(*net.body(images))
        parts = losses(net, features, targets, class_weight)
    total = torch.stack(list(parts.values())).sum() * share
    total.backward()  # type: ignore[no-untyped-call]
    return {name: of_lessons.detach() for name, of_lessons in parts.items()}


def set_learning_rates(state: State, options: TrainOptions, progress: float) -> None:
    """Those of this step."""
    factor = schedule(options, state.step, progress)
    for optimiser, peak in zip(state.optimisers, (options.learning_rate, options.head_learning_rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = peak * factor


def update(state: State, options: TrainOptions) -> None:
    """Step along the gradients, and move the average on; what is no number in a gradient counts as 0."""
    gradients = [weight.grad for weight in state.net.parameters() if weight.grad is not None]
    for gradient in gradients:
        gradient.nan_to_num_(0, 0, 0)
    torch.nn.utils.clip_grad_norm_(state.net.parameters(), 2.0)
    for optimiser in state.optimisers:
        optimiser.step()
    decay = min(options.ema, (1 + state.step) / (10 + state.step))
    torch._foreach_lerp_(list(state.average.values()), list(state.net.state_dict().values()), 1 - decay)


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
    this = {
        "hours": round(state.seconds / 3600, 2),
        "steps": state.step,
        "options": asdict(run.options),
        "recipe": asdict(run.recipe),
    }
    runs = [*earlier, this]
    training = {"hours": round(sum(run["hours"] for run in runs), 2), "steps": sum(run["steps"] for run in runs)}
    about: dict[str, Any] = {**ABOUT, "training": {**training, "runs": runs}}
    save_model(folder, final_weights(run, state), state.net.config, __version__, about)


def final_weights(run: Run, state: State) -> dict[str, Tensor]:
    """The averaged weights, mixed with those the run started from as far as ``init_share`` says."""
    if run.weights is None:
        return {name: value.cpu() for name, value in state.average.items()}
    return {
        name: value.cpu().lerp(run.weights[name].cpu(), run.options.init_share) for name, value in state.average.items()
    }
