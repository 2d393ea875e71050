"""Learn one clean scan by heart: how quickly a network's shape lets it, how near it gets, and what it costs.

    python benchmarks/overfit.py DATA --steps 200
    python benchmarks/overfit.py DATA --steps 100 --shapes 16,48,96,160,192:2 16,48,96,160,192:1 8,48,96,160,192:2

DATA is the folder that ``brainseg-cli train`` takes. No augmentation, no held-out scan: what does not fit here will not
fit anything. A shape is the widths of the levels and, after a colon, the number of learned grey-value filters, one or
more; the default is that of the packaged model. Prints the losses every 20 steps, then a row for each shape: the mean
Dice of the regions on the scan itself, seconds of a training step and of labelling the sample's 160 x 192 x 160 mm, and
the size.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from bidsseg.evaluation.scores import Condition, evaluate, mean_dice
from bidsseg.network.config import UNetConfig
from bidsseg.network.inference import PredictOptions, infer
from bidsseg.network.weights import Model, load_model
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.data import brain_folders, crop_to_brain, head_maps, into_head, load_brain, load_head
from bidsseg.train.held_out import Case, case_in
from bidsseg.train.lessons import Lesson
from bidsseg.train.loop import State, new_state, train_step, widths_from
from bidsseg.train.losses import choose_targets
from bidsseg.train.options import SynthesisSettings, TrainOptions
from bidsseg.train.synthesis import Material, Sample, draw

STILL = SynthesisSettings(
    p_synthetic=0, p_still=1, p_head=0, p_recolour=0, p_lesions=0, p_moved=0, p_slices=0, p_cropped=0
)


def main() -> None:
    parser = argparse.ArgumentParser(description="How quickly networks learn one scan by heart, and what they cost.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--shapes", type=shape, nargs="+", default=[UNetConfig()])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = brain_folders(given.data, validation=False)[0]
    host = load_head(head_maps(given.data)[0])
    subject = crop_to_brain(into_head(*load_brain(folder), host, folder.name))
    sample = draw(Material.on(CPU, [subject], []), STILL, 0.0, Chance.of(1))
    options = TrainOptions(hours=1e3, steps=given.steps, threads=given.threads, balance=(0.0, 0.0), ema=0.9)
    rows = [measured(config, options, sample, case_in(folder)) for config in given.shapes]
    print("widths : filters | Dice | step, s | labelling, s | million weights", *rows, sep="\n")


def shape(text: str) -> UNetConfig:
    """``16,48,96:2`` -> widths and filters."""
    widths, _, filters = text.partition(":")
    return UNetConfig(widths=widths_from(widths), n_filters=int(filters or UNetConfig().n_filters))


def measured(config: UNetConfig, options: TrainOptions, sample: Sample, case: Case) -> str:
    """Train a network of this shape; its row of the table."""
    state, step_s = learn(config, options, sample)
    learned = Model(state.net.eval().requires_grad_(False), load_model().card)
    started = time.monotonic()
    infer(sample.image.float().numpy(), learned, PredictOptions("cpu"))
    labelling_s = time.monotonic() - started
    dice = mean_dice(evaluate([case], learned, Condition(), ("regions",), PredictOptions("cpu")), "regions")
    millions = sum(p.numel() for p in learned.net.parameters()) / 1e6
    name = ",".join(map(str, config.widths))
    return f"{name} : {config.n_filters} | {dice:.4f} | {step_s:.2f} | {labelling_s:.2f} | {millions:.2f}"


def learn(config: UNetConfig, options: TrainOptions, sample: Sample) -> tuple[State, float]:
    """The trained state, with averaged weights, and the seconds of a step."""
    state, generator = new_state(config, options), torch.Generator().manual_seed(1)
    started = time.monotonic()
    for step in range(options.steps):
        lesson = Lesson(0, sample.image, choose_targets(sample, options, generator))
        parts = train_step(state, [lesson], options, step / options.steps)
        state.step += 1
        if step % 20 == 19:
            print(f"step {step + 1}:", *(f"{name} {value.item():.3f}" for name, value in parts.items()), flush=True)
    state.net.load_state_dict(state.average)
    return state, (time.monotonic() - started) / options.steps


if __name__ == "__main__":
    main()
