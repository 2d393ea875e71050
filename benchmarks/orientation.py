"""Whether a scan's true orientation is found, and what looking for it costs.

    python benchmarks/orientation.py DATA [--every 1] [--threads 2] [--without-times | --without-share]

DATA is the folder that the README describes. Prints the share of the 23 wrong orientations of each validation scan for
which the right one is named (``--every 4`` tries every fourth), and how long ``bidsseg participant`` takes for scans
that are hopeless or lie wrongly, against a good scan on the same grid. Every time is that of a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bidsseg.demo import make_dataset
from bidsseg.evaluate import validation_cases
from bidsseg.files import read_json
from bidsseg.grid import conform
from bidsseg.image import Image, load, save
from bidsseg.inference import PredictOptions, infer
from bidsseg.orientation import AS_STORED, best_answer, name_of, quick_look, then, turned, turns
from bidsseg.weights import load_model

CLINICAL = ("sub-08", "sub-09")
"A FLAIR of ms-clinical-lesions that looks like most, and one that lies and looks as few do."


def share(data: Path, every: int, threads: int) -> None:
    """How often the right orientation is named."""
    import torch

    torch.set_num_threads(threads)
    model, options = load_model(), PredictOptions("cpu", threads)
    look, right, tried = quick_look(model, options), 0, 0
    for case in validation_cases(data):
        upright, _ = conform(case.image)
        for turn in turns()[1::every]:
            lying = turned(upright, turn)
            found = best_answer(*infer(lying, model, options), look)
            tried += 1
            right += then(turn, found) == AS_STORED
            if then(turn, found) != AS_STORED:
                print(f"{case.name}: {name_of(turn)}: {name_of(found) or 'nothing'} found")
    print(f"right orientation named: {right} of {tried} ({right / tried:.0%})", flush=True)


def scans(data: Path) -> Iterator[tuple[str, Image, str]]:
    """Name, scan, and the name of the good scan to compare its time with."""
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder))
        good = load(Path(folder) / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    top = float(np.percentile(good.data, 99))
    noise = np.random.default_rng(0).uniform(0, top, good.data.shape).astype(np.float32)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in good.data.shape), indexing="ij"))
    radius = np.linalg.norm(place, axis=0)
    skin = (top * ((radius > 0.8) & (radius < 0.9))).astype(np.float32)
    yield "good", good, "good"
    yield "noise phantom", replace(good, data=noise), "good"
    yield "empty head", replace(good, data=skin), "good"
    yield "upside down", replace(good, affine=good.affine @ np.diag((1.0, 1.0, -1.0, 1.0))), "good"
    yield "axes rotated", replace(good, affine=good.affine @ np.eye(4)[:, [1, 2, 0, 3]]), "good"
    usual, _ = CLINICAL
    for subject in CLINICAL:
        path = data / "ms-clinical-lesions" / subject / "anat" / f"{subject}_FLAIR.nii.gz"
        if path.exists():
            yield f"FLAIR of {subject}", load(path), f"FLAIR of {usual}"


def times(data: Path, threads: int) -> None:
    """Seconds of one participant, and how often those of the good scan."""
    seconds: dict[str, float] = {}
    for name, image, good in scans(data):
        with tempfile.TemporaryDirectory() as folder:
            dataset, out = Path(folder) / "data", Path(folder) / "out"
            make_dataset(dataset)
            (dataset / "sub-02" / "anat" / "sub-02_T1w.nii.gz").unlink()
            save(dataset / "sub-01" / "anat" / "sub-01_T1w.nii.gz", image.data, image.affine, image)
            seconds[name] = wall(dataset, out, threads)
            quality = read_json(next(out.rglob("*_qc.json")))
        said = f"{quality['Verdict']}: {'; '.join(quality['Reasons'][:2])}" if quality["Reasons"] else "pass"
        print(f"{name:<16}{seconds[name]:7.1f} s {seconds[name] / seconds[good]:6.2f} times  {said}", flush=True)


def wall(dataset: Path, out: Path, threads: int) -> float:
    options = ("participant", "--omp-nthreads", str(threads), "--nprocs", str(threads), "--device", "cpu")
    start = time.perf_counter()
    command = [sys.executable, "-m", "bidsseg.app", str(dataset), str(out), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Try every N-th orientation.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-times", action="store_true")
    parser.add_argument("--without-share", action="store_true")
    arguments = parser.parse_args()
    if not arguments.without_times:
        times(arguments.data, arguments.threads)
    if not arguments.without_share:
        share(arguments.data, arguments.every, arguments.threads)


if __name__ == "__main__":
    main()
