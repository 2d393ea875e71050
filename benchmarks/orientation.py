"""Whether a scan's true orientation is found, and what looking for it costs.

    python benchmarks/orientation.py DATA [--every 1] [--threads 2] [--without-times | --without-share]

DATA is the folder that docs/training.md describes. Prints the share of the 23 wrong orientations of each validation
scan for which the right one is named (``--every 4`` tries every fourth), and how long ``bidsseg participant`` takes for
scans that are hopeless or lie wrongly, against a good scan on the same grid: seconds, and those of all processors,
which other work on the machine changes less.
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

from bidsseg.cli.demo import make_dataset
from bidsseg.files import read_json
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image, load, save
from bidsseg.network.inference import PredictOptions, infer
from bidsseg.network.weights import load_model
from bidsseg.quality.reorientation import AS_STORED, best_answer, name_of, quick_look, then, turned, turns
from bidsseg.train.held_out import validation_cases

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
    noise = np.random.default_rng(0).uniform(0, top, good.data.shape)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in good.data.shape), indexing="ij"))
    radius = np.linalg.norm(place, axis=0)
    skin = (top + noise) / 2 * ((radius > 0.8) & (radius < 0.9))
    yield "good", good, "good"
    for name, grey in (
        ("noise phantom", noise * (radius < 0.8)),
        ("noise everywhere", noise),
        ("empty head", skin),
    ):
        yield name, replace(good, data=grey.astype(np.float32)), "good"
    yield "upside down", replace(good, affine=good.affine @ np.diag((1.0, 1.0, -1.0, 1.0))), "good"
    yield "axes rotated", replace(good, affine=good.affine @ np.eye(4)[:, [1, 2, 0, 3]]), "good"
    usual, _ = CLINICAL
    for subject in CLINICAL:
        path = data / "ms-clinical-lesions" / subject / "anat" / f"{subject}_FLAIR.nii.gz"
        if path.exists():
            yield f"FLAIR of {subject}", load(path), f"FLAIR of {usual}"


def times(data: Path, threads: int) -> None:
    """Seconds of one participant, and how often those of the good scan."""
    used: dict[str, tuple[float, float]] = {}
    for name, image, good in scans(data):
        with tempfile.TemporaryDirectory() as folder:
            dataset, out = Path(folder) / "data", Path(folder) / "out"
            make_dataset(dataset)
            (dataset / "sub-02" / "anat" / "sub-02_T1w.nii.gz").unlink()
            save(dataset / "sub-01" / "anat" / "sub-01_T1w.nii.gz", image.data, image.affine, image)
            used[name] = seconds(dataset, out, threads)
            quality = read_json(next(out.rglob("*_qc.json")))
        said = f"{quality['Verdict']}: {'; '.join(quality['Reasons'][:2])}" if quality["Reasons"] else "pass"
        wall, cpu = (f"{own:6.1f} s, {own / its:4.2f} times" for own, its in zip(used[name], used[good], strict=True))
        print(f"{name:<17}{wall}; of processors {cpu}; {said}", flush=True)


def seconds(dataset: Path, out: Path, threads: int) -> tuple[float, float]:
    """On the clock, and of all processors together."""
    options = ("participant", "--omp-nthreads", str(threads), "--nprocs", str(threads), "--device", "cpu")
    start = time.perf_counter()
    command = [sys.executable, "-m", "bidsseg.cli.bids_app", str(dataset), str(out), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


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
