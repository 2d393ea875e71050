"""Training of the lesion network, on pieces of labelled scans."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import Tensor

from bidsseg.network.device import autocast
from bidsseg.network.lesion_config import LesionNetConfig
from bidsseg.network.lesion_net import GROUPS, LesionNet, each_voxel, may_hold_lesion
from bidsseg.train.chance import CPU
from bidsseg.train.lesion_examples import Examples, LesionExample

WHITE = GROUPS.index(("white-matter",))
LOG_STEPS = 20
"Steps between two rows of the training log."


@dataclass(frozen=True)
class LesionTrainOptions:
    """Everything that shapes a training run of the lesion network."""

    minutes: float = 20.0
    learning_rate: float = 4e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-3
    steps: int = 0
    "End after this many steps, if not after the minutes; 0 sets no such end."
    batch: int = 4
    "Pieces of a step."
    piece: int = 28
    "Blocks of 2 mm along each side of a piece."
    stray: int = 8
    "Blocks by which a piece's middle strays from the place that was drawn."
    p_patient: float = 0.6
    "Share of pieces that show a patient."
    p_lesion: float = 0.5
    "Share of pieces around a lesion; the others lie around white matter."
    bright_weight: float = 3.0
    "Of voxels that a rater called bright but normal, against others."
    cross_entropy: float = 5.0
    "Weight against the Dice loss."
    ema: float = 0.995
    seed: int = 0
    threads: int = 2


class Piece(NamedTuple):
    """A part of an example, and where its pieces may lie; float32."""

    relative: Tensor
    white: Tensor
    groups: Tensor
    truth: Tensor
    "(2, I, J, K): lesion, and what is bright but normal."


class Places(NamedTuple):
    """An example, and the blocks (N, 3) of its lesions and of its white matter."""

    example: LesionExample
    lesions: Tensor
    white: Tensor


def places_of(example: LesionExample) -> Places:
    lesion = F.max_pool3d(example.lesion.float()[None], 2)[0] > 0.5
    return Places(example, torch.nonzero(lesion), torch.nonzero(example.groups[WHITE] > 0.3))


def train_lesions(
    given: Examples,
    options: LesionTrainOptions,
    told: Callable[[int, float, float], None],
    config: LesionNetConfig | None = None,
) -> dict[str, Tensor]:
    """Train for so many minutes; returns the average of the weights.

    ``told`` gets step, share of the time that has passed and the mean loss since the last time, every ``LOG_STEPS``.
    """
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(options.seed)
    net = LesionNet(config or LesionNetConfig())
    optimiser = torch.optim.AdamW(
        net.parameters(), options.learning_rate, betas=(0.9, 0.98), weight_decay=options.weight_decay
    )
    average = {name: value.clone() for name, value in net.state_dict().items()}
    pools = [[places_of(example) for example in pool] for pool in (given.patients, given.painted)]
    begun, step = time.monotonic(), 0
    recent: list[float] = []
    while (done := _share_done(time.monotonic() - begun, step, options)) < 1:
        rate = (
            options.learning_rate * min(1.0, (step + 1) / options.warmup_steps) * 0.5 * (1 + math.cos(math.pi * done))
        )
        optimiser.param_groups[0]["lr"] = rate
        loss = loss_of(net, draw_pieces(pools, options, rng), options)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        decay = min(options.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), list(net.state_dict().values()), 1 - decay)
        recent.append(loss.item())
        step += 1
        if step % LOG_STEPS == 0:
            told(step, done, float(np.mean(recent)))
            recent = []
    return average


def _share_done(seconds: float, step: int, options: LesionTrainOptions) -> float:
    by_steps = step / options.steps if options.steps else 0.0
    return max(seconds / (60 * options.minutes), by_steps)


def draw_pieces(pools: Sequence[Sequence[Places]], options: LesionTrainOptions, rng: Generator) -> list[Piece]:
    """The pieces of one step."""
    patients, painted = pools
    pieces = []
    for _ in range(options.batch):
        pool = patients if patients and (rng.random() < options.p_patient or not painted) else painted
        pieces.append(changed(_cut(pool[int(rng.integers(len(pool)))], options, rng), rng))
    return pieces


def _cut(places: Places, options: LesionTrainOptions, rng: Generator) -> Piece:
    """A cube, zeros where it reaches beyond the example."""
    around = places.lesions if len(places.lesions) and rng.random() < options.p_lesion else places.white
    shape, size = np.array(places.example.groups.shape[1:]), options.piece
    middle = around[rng.integers(len(around))].numpy() if len(around) else shape // 2
    start = np.clip(
        middle + rng.integers(-options.stray, options.stray + 1, 3) - size // 2, 0, np.maximum(shape - size, 0)
    )
    stop = np.minimum(start + size, shape)
    blocks = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    voxels = tuple(slice(2 * s.start, 2 * s.stop) for s in blocks)
    pads = [pad for s in reversed(blocks) for pad in (0, size - (s.stop - s.start))]
    example = places.example
    truth = torch.stack((example.lesion[voxels], example.bright[voxels]))
    return Piece(
        F.pad(example.relative[(slice(None), *voxels)].float(), [2 * pad for pad in pads]),
        example.white,
        F.pad(example.groups[(slice(None), *blocks)].float(), pads),
        F.pad(truth.float(), [2 * pad for pad in pads]),
    )


def changed(piece: Piece, rng: Generator) -> Piece:
    """Mirrored, turned, brighter or darker lesions, another contrast, shading, noise and blur."""
    relative, white, groups, truth = piece
    for axis in range(2):
        if rng.random() < (0.5, 0.1)[axis]:
            relative, groups, truth = relative.flip(axis + 1), groups.flip(axis + 1), truth.flip(axis + 1)
    if rng.random() < 0.5:
        relative, groups, truth = _turned(relative, groups, truth, rng)
    if rng.random() < 0.4:
        relative = relative * (1 + truth[0] * rng.uniform(-0.55, 0.5))
    relative = relative * float(np.exp(rng.uniform(-0.3, 0.3))) + float(rng.normal(0, 0.25))
    if rng.random() < 0.5:
        field = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.8), (1, 1, 4, 4, 4)).astype(np.float32))
        relative = relative + F.interpolate(field, size=relative.shape[1:], mode="trilinear")[0, 0]
    if rng.random() < 0.5:
        relative = relative + torch.randn(relative.shape[1:]) * rng.uniform(0, 0.6)
    if rng.random() < 0.25:
        relative = F.avg_pool3d(relative, (3, 3, 1), 1, (1, 1, 0))
    white = white * float(np.exp(rng.normal(0, 0.1))) + torch.tensor([0.0, float(rng.normal(0, 0.15))])
    return Piece(relative, white, groups, truth)


def _turned(relative: Tensor, groups: Tensor, truth: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Turned and stretched in the axial plane."""
    angle = rng.uniform(-0.35, 0.35)
    stretch = np.exp(rng.uniform(-0.15, 0.15, 2))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = torch.tensor(
        [[[1, 0, 0, 0], [0, cosine * stretch[0], -sine, 0], [0, sine, cosine * stretch[1], 0]]], dtype=torch.float32
    )  # of the last axis first
    turned = []
    for part in (torch.cat((relative, truth)), groups):
        where = F.affine_grid(matrix, [1, 1, *part.shape[1:]], align_corners=False)
        turned.append(F.grid_sample(part[None], where, align_corners=False)[0])
    return turned[0][:1], turned[1], turned[0][1:]


def loss_of(net: LesionNet, pieces: Sequence[Piece], options: LesionTrainOptions) -> Tensor:
    """Cross-entropy and soft Dice within the brain."""
    relative, white, groups, truth = (torch.stack(parts) for parts in zip(*pieces, strict=True))
    lesion, bright = truth.clamp(0, 1).unbind(1)
    inside = each_voxel(may_hold_lesion(groups)[:, 0])
    with autocast(CPU):
        logits = net(relative, white, groups)
    weight = inside * (1 + (options.bright_weight - 1) * bright * (1 - lesion))
    wrong = F.binary_cross_entropy_with_logits(logits, lesion, weight, reduction="sum") / weight.sum().clamp(min=1)
    found, true = logits.sigmoid() * inside, lesion * inside
    dice = (2 * (found * true).sum() + 50) / (found.square().sum() + true.square().sum() + 50)
    loss: Tensor = options.cross_entropy * wrong + 1 - dice
    return loss


def about_training(given: Examples, options: LesionTrainOptions) -> dict[str, object]:
    """What the card says of a run."""
    return {"patients": len(given.patients), "painted scans": len(given.painted), "options": asdict(options)}
