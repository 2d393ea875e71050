"""Read many damaged inputs and count how that went: right, one line for the user, or anything else.

``python -m tests.fuzz.run 10000 --seed 1`` prints the counts as JSON, and exits with 1 if there was anything else. An
input is anything else if it ends in an error that is no ``UserError``, gives voxels or lesions that are not those it
was made from, takes more than ``SECONDS`` of CPU time, or more memory than ``GIGABYTES``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from bidsseg.bids.dataset import ScanSelection, check_dataset, read_filters
from bidsseg.bids.session_order import in_time
from bidsseg.cli.main import main as brainseg
from bidsseg.errors import Defect, UserError
from bidsseg.files import read_json
from bidsseg.imaging.affines import is_usable, voxel_spacing_mm
from bidsseg.imaging.image import GridGeometry, is_same_grid, load, read_geometry, save
from bidsseg.lesions.masks import is_probability, read_labels
from tests.fuzz.inputs import Input, image_input, json_input, mask_input, model_input, tsv_input

SECONDS, GIGABYTES = 20.0, 3.0
"For one input."
COMMANDS, SMALL_MM3 = 0.15, 4e5
"The share of images that are given to the command, if their field of view is this small."
SHARES = {"image": 0.6, "mask": 0.15, "json": 0.1, "tsv": 0.05, "model": 0.1}


class WrongAnswer(Exception):
    """Something was read that is not there."""


def examine_image(given: Input) -> None:
    found = read_geometry(given.path)
    image = load(given.path)
    if found is None or found[0] != image.data.shape or not np.array_equal(found[1], image.affine):
        raise WrongAnswer("the header alone says something else")
    if not (np.isfinite(image.data).all() and is_usable(image.affine)):
        raise WrongAnswer("not finite, or no grid")
    if given.truth is not None and not np.array_equal(image.data, given.truth.astype(np.float32)):
        raise WrongAnswer("other voxels")
    labels = given.path.with_name("labels.nii.gz")
    save(labels, np.zeros(image.data.shape, np.uint16), image.affine, image)
    if not is_same_field(image.geometry, labels):
        raise WrongAnswer("labels lie elsewhere")


def examine_command(given: Input, model: Path, bias_correction: bool) -> None:
    """``brainseg-cli predict``: labels and perhaps warnings, or one line."""
    found = read_geometry(given.path)
    if found is not None and np.prod(voxel_spacing_mm(found[1]) * found[0]) > SMALL_MM3:
        return
    labels = given.path.with_name("labels.nii.gz")
    options = ["--no-picture", "--quiet", "--threads", "1", *([] if bias_correction else ["--no-bias-correction"])]
    done = CliRunner().invoke(
        brainseg, ["predict", str(given.path), "-o", str(labels), "--model", str(model), *options]
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    if done.exit_code == 1 and len(lines) == 1:
        raise UserError(lines[0])
    if done.exit_code != 0 or lines or found is None or not is_same_field(found, labels):
        raise WrongAnswer(f"exit code {done.exit_code}: {done.stderr[-300:]} {done.exception!r}")


def is_same_field(found: GridGeometry, labels: Path) -> bool:
    written = read_geometry(labels)
    return written is not None and is_same_grid(found, written)


def examine_mask(given: Input) -> None:
    mask = load(given.path, uniform_ok=True)
    read = read_labels(mask.data, 0.5, is_probability(given.path.name))
    volume = np.count_nonzero(read.labels) * mask.voxel_volume_mm3 / 1000
    if given.lesion_ml is not None and not 0.6 < volume / given.lesion_ml < 1.6:
        raise WrongAnswer(f"{volume:.2f} mL of {given.lesion_ml:.2f}")


def examine_json(given: Input) -> None:
    if given.path.stem == "filters":
        read_filters(given.path)
    elif given.path.stem == "marker":
        read_json(given.path)
    else:
        (given.path.parent / "sub-01").mkdir()
        given.path.rename(given.path.with_name("dataset_description.json"))
        check_dataset(given.path.parent, ScanSelection())


def examine_tsv(given: Input) -> None:
    if sorted(in_time(given.path.parents[1], "01", ["2", "1", "10"])) != ["1", "10", "2"]:
        raise WrongAnswer("other sessions")


def examine_model(given: Input) -> None:
    from bidsseg.network.weights import load_model
    from bidsseg.quality.expectation import calibration_from

    calibration_from(load_model.__wrapped__(given.path).card.quality)


def one(chance: random.Random, folder: Path, model: Path) -> tuple[str, Callable[[], None]]:
    """A random input: its name, and the function that reads it."""
    kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "image":
        given, bias_correction = image_input(chance, folder), chance.random() < 0.5
        if chance.random() < COMMANDS:
            return f"predict, {given.operation}", lambda: examine_command(given, model, bias_correction)
        return f"image, {given.operation}", lambda: examine_image(given)
    if kind == "model":
        damaged = model_input(chance, folder, model)
        return damaged.operation, lambda: examine_model(damaged)
    make, examine = {
        "mask": (mask_input, examine_mask),
        "json": (json_input, examine_json),
        "tsv": (tsv_input, examine_tsv),
    }[kind]
    made = make(chance, folder)
    return made.operation, lambda: examine(made)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """End the block by ``TimeoutError`` after so much CPU time: on a busy machine, waiting does not count."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:g} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def limit_memory() -> None:
    """Let this process have ``GIGABYTES`` more than it has."""
    now = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (now + int(GIGABYTES * 2**30), resource.RLIM_INFINITY))


def outcome_of(examine: Callable[[], None]) -> tuple[str, str]:
    """right, one line or anything else; and what was said."""
    try:
        with within(SECONDS):
            examine()
    except Defect as error:
        return "anything else", str(error)
    except UserError as error:
        line = str(error)
        return (
            "anything else" if "\n" in line or "defect" in line or re.search(r"\wError: ", line) else "one line"
        ), line
    except BaseException as error:
        return "anything else", f"{type(error).__name__}: {error}"
    return "right", ""


def run(count: int, seed: int, model: Path) -> dict[str, Any]:
    """Try ``count`` inputs of a seed; the same again with the same seed."""
    _segment_nothing(model)
    limit_memory()
    warnings.simplefilter("error")  # what numpy warns of would be printed amid the user's lines
    outcomes: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {}
    others: list[str] = []
    longest = 0.0
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            name, examine = one(random.Random(f"{seed} {number}"), Path(folder), model)
            start = time.process_time()
            outcome, line = outcome_of(examine)
            longest = max(longest, time.process_time() - start)
        outcomes[outcome] += 1
        by_kind.setdefault(name, Counter())[outcome] += 1
        if outcome == "anything else":
            others.append(f"{number} ({name}): {line[:300]}")
    return {
        "tried": count,
        **{outcome: outcomes[outcome] for outcome in ("right", "one line", "anything else")},
        "longest_s": round(longest, 2),
        "most_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "by_kind": {name: dict(counts) for name, counts in sorted(by_kind.items())},
        "others": others,
    }


def _segment_nothing(model: Path) -> None:
    """Load all libraries, whose size does not count."""
    from bidsseg.network.weights import load_model

    load_model(model)


def small_model(folder: Path) -> Path:
    """A model folder with random weights."""
    import torch

    from bidsseg.network.config import UNetConfig
    from bidsseg.network.unet import UNet
    from bidsseg.network.weights import save_model

    torch.manual_seed(0)
    config = UNetConfig(widths=(4, 4), head_width=8)
    save_model(folder / "small", UNet(config).state_dict(), config, "0", {})
    return folder / "small"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(given.count, given.seed, small_model(Path(folder)))
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["anything else"] else 0)


if __name__ == "__main__":
    main()
