"""Accuracy against time: what each way to run a model is worth on held-out scans, and what it costs.

    python benchmarks/pareto.py DATA [--models anycontrast OUT/model] [--widths 16,48,128,256,320] [--only-times]

DATA is the folder that ``brainseg-cli train`` takes. The ways are those in which coarser levels see the scan once or in
two positions, each with and without the mirror image (``--mirror``); the packaged model is run in two positions. Prints
a row for each: mean Dice of held-out scans, seconds of the network on a whole head at 1 mm, seconds of
``brainseg-cli predict`` on that head with N4, and the size of the weights. Times are the least of ``--runs``, in turns,
since other work on the machine only adds to them. ``predict`` has no option for one position: its seconds with one are
those with two less the difference of the network's, marked ~. ``--widths`` adds rows for the first model grown to other
widths; until it is trained it answers as before, so these rows are about its cost alone.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bidsseg.evaluation.scores import Condition, evaluate, mean_dice
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.image import load
from bidsseg.imaging.preparation import conformed, prepare
from bidsseg.network import inference
from bidsseg.network.card import WEIGHTS, folder_of
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model, save_model
from bidsseg.train.growing import grown
from bidsseg.train.held_out import validation_cases
from bidsseg.train.loop import widths_from

COLUMNS = (
    (Condition(), ("regions", "gyri")),
    (Condition(5), ("regions",)),
    (Condition(contrast="flair"), ("regions",)),
)
HEAD = "whole-head-t1"
PASSES = inference.PASSES


@dataclass(frozen=True)
class Way:
    """One way to label a scan."""

    model: Path
    passes: int = PASSES
    mirror: bool = False

    @property
    def name(self) -> str:
        positions = f"{self.passes} position{'s' * (self.passes > 1)}"
        return ", ".join([self.model.name, positions, *["mirror"] * self.mirror])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=["anycontrast"], metavar="MODEL")
    parser.add_argument("--widths", type=widths_from, nargs="*", default=[], metavar="N,N,...")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only-times", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(given, Path(folder))


def compare(given: argparse.Namespace, scratch: Path) -> None:
    """Print the table."""
    trained = [
        Way(folder_of(name), passes, mirror)
        for name in given.models
        for passes in (1, PASSES)
        for mirror in (False, True)
    ]
    ways = [*trained, *(Way(wider(given.models[0], widths, scratch)) for widths in given.widths)]
    taken = times(ways, next((given.data / HEAD).glob("*.nii.gz")), given, scratch)
    measured = [f"{scheme}, {condition.name}" for condition, schemes in COLUMNS for scheme in schemes]
    print("way", *measured, "network, s", "predict, s", "weights, MB", sep=" | ")
    for way in ways:
        dice = accuracy(way, given) if way in trained and not given.only_times else [""] * len(measured)
        size = (way.model / WEIGHTS).stat().st_size / 1e6
        network, predict = taken[way]
        print(way.name, *dice, f"{network:.2f}", predict, f"{size:.1f}", sep=" | ", flush=True)


def wider(name: str, widths: tuple[int, ...], scratch: Path) -> Path:
    """The folder of a model that was grown to these widths."""
    net, folder = load_model(name).net, scratch / ",".join(map(str, widths))
    save_model(folder, grown(net.state_dict(), net.config, widths, seed=1), replace(net.config, widths=widths), "0", {})
    return folder


def accuracy(way: Way, given: argparse.Namespace) -> list[str]:
    """Mean Dice of each column."""
    inference.PASSES = way.passes
    options, found = PredictOptions("cpu", given.threads, mirror=way.mirror), []
    for condition, schemes in COLUMNS:
        scores = evaluate(validation_cases(given.data), load_model(way.model), condition, schemes, options)
        found += [f"{mean_dice(scores, scheme):.4f}" for scheme in schemes]
    return found


def network_seconds(way: Way, volume: Floats, threads: int) -> float:
    """Of one forward pass, looks for the brain included."""
    inference.PASSES = way.passes
    started = time.perf_counter()
    inference.infer(volume, load_model(way.model), PredictOptions("cpu", threads, mirror=way.mirror))
    return time.perf_counter() - started


def predict_seconds(way: Way, scan: Path, threads: int, scratch: Path) -> float:
    """Of the command, start and all."""
    command = [sys.executable, "-m", "bidsseg.cli.main", "predict", str(scan), "-o", str(scratch / "labels.nii.gz")]
    command += ["--model", str(way.model), "--device", "cpu", "--threads", str(threads), *["--mirror"] * way.mirror]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def times(ways: Sequence[Way], scan: Path, given: argparse.Namespace, scratch: Path) -> dict[Way, tuple[float, str]]:
    """Seconds of the network and of ``predict``, the least of all runs."""
    torch.set_num_threads(given.threads)
    volume = conformed(prepare(load(scan), bias_correction=False)).volume
    network, command = (dict.fromkeys(ways, math.inf) for _ in range(2))
    for _ in range(given.runs):
        for way in ways:
            network[way] = min(network[way], network_seconds(way, volume, given.threads))
            if way.passes == PASSES:
                command[way] = min(command[way], predict_seconds(way, scan, given.threads, scratch))
    found = {}
    for way in ways:
        asked = replace(way, passes=PASSES)
        seconds = command[asked] + network[way] - network[asked]
        found[way] = network[way], f"{'~' * (way != asked)}{seconds:.2f}"
    return found


if __name__ == "__main__":
    main()
