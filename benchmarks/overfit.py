"""Learn one clean scan by heart: how quickly a network's shape lets it, and how near it gets.

    python benchmarks/overfit.py DATA --steps 200
    python benchmarks/overfit.py DATA --steps 200 --widths 32 48 96 160 192

DATA is the folder that ``brainseg-cli train`` takes. No augmentation, no held-out scan: what does not fit here will not
fit anything. Prints the losses every 20 steps, and the mean Dice of the regions on the scan itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from bidsseg.evaluate import Condition, case_in, evaluate, mean_dice
from bidsseg.inference import PredictOptions
from bidsseg.train.data import brain_folders, crop_to_brain, into_head, load_brain, load_head
from bidsseg.train.loop import new_state, train_step
from bidsseg.train.options import TrainOptions
from bidsseg.train.synthesis import Recipe, draw
from bidsseg.unet_config import UNetConfig
from bidsseg.weights import Model, load_model

STILL = Recipe(p_synthetic=0, p_still=1, p_head=0, p_recolour=0, p_lesions=0, p_moved=0, p_slices=0, p_cropped=0)


def main() -> None:
    parser = argparse.ArgumentParser(description="How quickly a network learns one scan by heart.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--widths", type=int, nargs="+", default=list(UNetConfig().widths))
    parser.add_argument("--filters", type=int, default=UNetConfig().n_filters)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    config = UNetConfig(widths=tuple(given.widths), n_filters=given.filters)
    options = TrainOptions(hours=1e3, steps=given.steps, threads=given.threads, balance=(0.0, 0.0), ema=0.9)
    torch.set_num_threads(given.threads)
    folder = brain_folders(given.data, validation=False)[0]
    host = load_head(next((given.data / "synthseg-label-maps").glob("*.nii.gz")))
    subject = crop_to_brain(into_head(*load_brain(folder), host, folder.name))
    state, generator = new_state(config, options), torch.Generator().manual_seed(1)
    sample = draw([subject], [], STILL, 0.0, np.random.default_rng(1))
    started = time.monotonic()
    for step in range(given.steps):
        parts = train_step(state, sample, options, step / given.steps, generator)
        state.step += 1
        if step % 20 == 19:
            seconds = (time.monotonic() - started) / (step + 1)
            print(f"step {step + 1}, {seconds:.2f} s each:", *(f"{k} {v:.3f}" for k, v in parts.items()), flush=True)
    state.net.load_state_dict(state.average)
    learned = Model(state.net.eval().requires_grad_(False), load_model().card)
    scores = evaluate([case_in(folder)], learned, Condition(), ("regions",), PredictOptions("cpu"))
    print(f"regions of the scan itself: mean Dice {mean_dice(scores, 'regions'):.4f}")


if __name__ == "__main__":
    main()
