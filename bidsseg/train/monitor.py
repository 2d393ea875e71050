"""Watching a training run: a progress bar, and pictures of a held-out scan."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bidsseg.network.card import ModelCard
from bidsseg.network.inference import PredictOptions
from bidsseg.network.unet import UNet
from bidsseg.network.weights import Model
from bidsseg.segmentation.mosaic import mosaic
from bidsseg.segmentation.pipeline import segment
from bidsseg.train.held_out import validation_cases
from bidsseg.train.loop import State


class Monitor:
    """Called after every step that is logged. A packed training set holds no scan to picture."""

    def __init__(self, data: Path, out: Path, minutes: float) -> None:
        self.case = next(islice(validation_cases(data), 1), None) if data.is_dir() else None
        self.out, self.seconds, self.last = out, minutes * 60, time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
        self.progress = Progress(*columns, TimeElapsedColumn())
        self.task = self.progress.add_task("training", total=1.0)
        self.progress.start()

    def __call__(self, state: State, row: dict[str, float]) -> None:
        text = f"step {state.step}  tissue {row['tissue']:.3f}  dice {row['dice']:.3f}"
        self.progress.update(self.task, completed=row["progress"], description=text)
        if self.case is not None and time.monotonic() - self.last > self.seconds:
            self.last = time.monotonic()
            self.picture(state)

    def picture(self, state: State) -> None:
        """The averaged weights' answer for the held-out scan, as a mosaic in the output folder."""
        if self.case is None:
            return
        net = UNet(state.net.config).eval().requires_grad_(False)
        net.load_state_dict(state.average)
        card = ModelCard("training", "", state.net.config, "")
        found = segment(self.case.image, Model(net, card), PredictOptions("cpu"))
        path = self.out / f"step-{state.step:06d}.png"
        mosaic(path, self.case.image, found.labels("regions"), "regions")

    def close(self) -> None:
        self.progress.stop()
