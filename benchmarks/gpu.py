"""What a GPU does with the network, and a training on it, on a machine that has PyTorch and CUDA and little else.

    PYTHONPATH=. python benchmarks/gpu.py measure PACK RESULTS
    PYTHONPATH=. python benchmarks/gpu.py train PACK RESULTS --minutes 8 --init anycontrast --set batch=4

PACK is a file that ``brainseg-cli pack DATA PACK`` wrote. The script runs from a checkout; nothing of it need be
installed. It takes Python 3.12 and PyTorch 2.11 or newer, and numpy, scipy, safetensors, pillow, click and rich, which
come with most images for PyTorch, and nibabel. Where there is no network, wheels travel: on a machine that has one,
``pip download --only-binary=:all: --no-deps --python-version 3.12 --platform manylinux2014_x86_64 -d wheels nibabel``,
and there ``pip install --no-index --no-deps --target site wheels/*.whl`` with ``site`` on PYTHONPATH.

``measure`` takes about two minutes; a part that fails or finds no time left says so and the others go on. ``train``
learns for the given minutes; every minute it writes a checkpoint into the scratch folder and the averaged weights,
float16 with their card, into RESULTS/model, which ``--model`` and ``--init`` take. All schedules follow the share of
the minutes. Both end with a short table, which is in RESULTS too. ``--tiny --device cpu`` tries everything in seconds.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel as nib
import numpy as np
import torch

from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image, load
from bidsseg.imaging.preparation import prepare
from bidsseg.network import looks
from bidsseg.network.config import UNetConfig
from bidsseg.network.inference import PredictOptions, infer
from bidsseg.network.weights import load_model, save_model
from bidsseg.segmentation.decision import decide_on_native_grid
from bidsseg.segmentation.mosaic import mosaic
from bidsseg.segmentation.pipeline import segment
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.contrast import render
from bidsseg.train.lessons import Lesson, Place, shared_progress
from bidsseg.train.loop import (
    Run,
    State,
    beginning,
    export,
    lesson_batches,
    new_state,
    set_gradients,
    start_or_resume,
    train,
    train_step,
    widths_from,
)
from bidsseg.train.options import SynthesisSettings, TrainOptions
from bidsseg.train.packing import unpack_training_set
from bidsseg.train.synthesis import Material, draw
from bidsseg.train.training_set import subjects_of

MIB = 1 << 20
Row = tuple[str, str]


@dataclass(frozen=True)
class Scale:
    """How large everything is that is measured."""

    batches: tuple[int, ...] = (1, 2, 4, 8)
    seconds: float = 4.0
    "Of training steps, for each way of training."
    scans: int = 40
    processes: int = 8
    workers: int = 4
    "Processes that draw samples beside the one that learns."
    numbers_of_workers: tuple[int, ...] = (0, 2, 4, 8)
    agreeing_samples: int = 6
    budget_s: float = 120.0
    "No part begins later than this."
    head_mm: int = 300
    "Whole heads are cut to so much around the middle."
    config: UNetConfig = field(default_factory=UNetConfig)
    recipe: SynthesisSettings = field(default_factory=SynthesisSettings)
    options: TrainOptions = field(default_factory=TrainOptions)


TINY = Scale(
    batches=(1, 2),
    seconds=0.1,
    scans=2,
    processes=1,
    workers=1,
    numbers_of_workers=(0, 1),
    agreeing_samples=2,
    budget_s=600.0,
    head_mm=64,
    config=UNetConfig((4, 4), 8),
    recipe=SynthesisSettings((32, 32, 32), shift_mm=2, warp_mm=1, multiple=4),
    options=TrainOptions(
        brain_blocks=200, outer_blocks=20, any_blocks=20, lesion_blocks=10, parcel_blocks=50, threads=1
    ),
)


class Measurement:
    """What the parts share: the material, the device, and two whole scans to label."""

    def __init__(self, given: argparse.Namespace, scratch: Path) -> None:
        self.scale = TINY if given.tiny else Scale()
        self.device, self.scratch = numbered(torch.device(given.device)), scratch
        self.known = unpack_training_set(given.pack)
        self.subjects = subjects_of(self.known)
        self.model = given.model or (tiny_model(self.scale.config, scratch) if given.tiny else None)
        brain = next(subject for subject in self.subjects if subject.image is not None)
        self.head = whole_head(brain, 0, self.scale.head_mm)
        patients = [labelled.patient for labelled in self.known.pseudo]
        self.clinical = [p.image(suffix) for p in patients for suffix in p.scans] or [self.head]

    def run(self, batch: int = 1, **options: Any) -> Run:
        usual = {"hours": 1e3, "batch": batch, "workers": self.scale.workers, "warmup_steps": 1}
        chosen = replace(self.scale.options, **(usual | options))
        return Run(
            self.subjects,
            self.known.lesions,
            self.scratch,
            self.scale.config,
            self.scale.recipe,
            chosen,
            None,
            self.device,
        )

    def load_model(self) -> Any:
        """Anew at every call, because a network moves between devices."""
        load_model.cache_clear()
        return load_model(self.model) if self.model else load_model()


def numbered(device: torch.device) -> torch.device:
    """With the number of the GPU, which limits on its memory ask for."""
    return (
        torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" and device.index is None else device
    )


def tiny_model(config: UNetConfig, folder: Path) -> Path:
    save_model(folder / "tiny", new_state(config, TrainOptions()).net.state_dict(), config, "0", {})
    return folder / "tiny"


def whole_head(subject: Any, seed: int, mm: int) -> Image:
    """A real brain amid rendered surroundings, at 1 mm."""
    packed, scan = torch.from_numpy(subject.packed), torch.from_numpy(subject.image).float()
    grey = render(packed, scan, p_recolour=0, difficulty=0, chance=Chance.of(seed)).numpy()
    cuts = tuple(slice(max(0, (n - mm) // 2), (n + mm) // 2) for n in grey.shape)
    return Image(grey[cuts], np.eye(4))


# ---- parts of measure: each yields rows of (what, value) ----------------------------------------------------------


def machine(at: Measurement) -> Iterator[Row]:
    """What it ran on."""
    name = torch.cuda.get_device_name(at.device) if at.device.type == "cuda" else "CPU"
    yield "machine", f"{name}, torch {torch.__version__}, {os.cpu_count()} CPU cores"


def training(at: Measurement) -> Iterator[Row]:
    """Steps and samples a second, made and learned from, by size of the batch and by ways to run the network."""
    ways: list[dict[str, Any]] = [{"batch": batch} for batch in at.scale.batches]
    largest = at.scale.batches[-1]
    ways += [{"batch": largest, "alike": largest // 2, "workers": workers} for workers in at.scale.numbers_of_workers]
    for way in ways:
        yield f"training, {named(way)}", speed(at, **way)
    yield "samples made alone", samples_alone(at)


def named(way: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}".replace("_", " ") for name, value in way.items())


def speed(at: Measurement, warm_up: int = 2, **way: Any) -> str:
    """Steps a second after some to warm up, from drawing samples to the weights' update."""
    run = at.run(**way)
    options = run.options
    torch.backends.cudnn.deterministic = True
    state = start_or_resume(run)
    drawn = lesson_batches(run, shared_progress(0.5), Place())
    forget_memory(at.device)
    started = finished = warmed = time.perf_counter()
    for step in itertools.count():
        train_step(state, next(drawn).lessons, options, 0.5)
        if step < warm_up:
            started = warmed = waited(at.device)
        finished = time.perf_counter() if step % 4 else waited(at.device)
        if step > warm_up and finished - started > at.scale.seconds:
            break
    finished = waited(at.device)
    steps = step + 1 - warm_up
    rate = steps / (finished - warmed)
    return f"{rate:.2f} steps/s, {rate * options.batch:.1f} samples/s, peak {peak_mib(at.device)} MiB"


def samples_alone(at: Measurement) -> str:
    """Samples a second without learning from them."""
    samples = lesson_batches(at.run(batch=8), shared_progress(0.5), Place())
    next(samples)
    started, drawn = waited(at.device), 0
    while time.perf_counter() - started < at.scale.seconds / 2:
        drawn += len(next(samples).lessons)
        waited(at.device)
    return f"{drawn / (time.perf_counter() - started):.1f} samples/s"


def agreement_of_samples(at: Measurement) -> Iterator[Row]:
    """Labels and grey values of samples made on the device and on the CPU, of one number each."""
    labels_differ, means, deviations = [], [], []
    here, there = (Material.on(device, at.subjects[::6], at.known.lesions) for device in (CPU, at.device))
    for number in range(at.scale.agreeing_samples):
        one, other = (draw(m, at.scale.recipe, 1.0, Chance.of((1, number), m.device)) for m in (here, there))
        labels_differ.append((one.packed != other.packed.cpu()).float().mean().item())
        means.append(abs(one.image.float().mean() - other.image.float().mean().cpu()).item())
        deviations.append(abs(one.image.float().std() - other.image.float().std().cpu()).item())
    yield "samples against the CPU's", f"{max(labels_differ):.2e} of labels differ at most"
    yield "their grey values", f"mean by {max(means):.4f}, standard deviation by {max(deviations):.4f} at most"


def reproducibility(at: Measurement) -> Iterator[Row]:
    """Whether two runs of one seed end with the same weights, and whether a step waits for the device."""
    run = at.run(batch=2, steps=3)
    ends = []
    for name in ("once", "again"):
        end = train(replace(run, out=at.scratch / name))
        ends.append(torch.cat([value.flatten().cpu() for value in end.net.state_dict().values()]))
    difference = (ends[0] - ends[1]).abs().max().item()
    yield "two runs of one seed", "the same weights" if difference == 0 else f"weights differ by up to {difference:.1e}"
    yield "a recorded step against the same unrecorded", recorded(run)
    if at.device.type == "cuda":
        yield "waits for the GPU in a step", waits(run)


def first_step(run: Run) -> tuple[State, list[Lesson]]:
    """A state and the lessons of its first step, drawn in this process."""
    run = replace(run, options=replace(run.options, workers=0))
    return start_or_resume(run), next(lesson_batches(run, shared_progress(0.5), Place())).lessons


def recorded(run: Run) -> str:
    """How far the gradients of a step differ that is played from a recording, as a share of the largest."""
    state, lessons = first_step(run)
    found = []
    for _ in range(3):  # as it is, while it is recorded, and from the recording
        set_gradients(state, lessons, run.options, 0.5)
        found.append(torch.cat([weight.grad.flatten() for weight in state.net.parameters()]))
    differ = max((other - found[0]).abs().max().item() for other in found[1:]) / found[0].abs().max().item()
    return "the same gradients" if differ == 0 else f"gradients differ by {differ:.1e}"


def waits(run: Run) -> str:
    """The first thing in a step that waits, if any."""
    state, lessons = first_step(run)
    for _ in range(2):  # the second is recorded
        train_step(state, lessons, run.options, 0.5)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        train_step(state, lessons, run.options, 0.5)
    torch.cuda.set_sync_debug_mode("default")
    found = [one for one in heard if "synchroniz" in str(one.message) and "prototype" not in str(one.message)]
    return f"in {Path(found[0].filename).name}, line {found[0].lineno}" if found else "none"


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 in the network, without the shortcut of tf32."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with patch.object(looks, "autocast", lambda device: torch.autocast(device.type, enabled=False)):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


def agreement_of_labels(at: Measurement) -> Iterator[Row]:
    """Share of the brain's voxels to which the device gives another region than the CPU in float32."""
    for name, image in (("whole head", at.head), ("clinical scan", at.clinical[0])):
        with full_precision():
            reference = segment(image, at.load_model(), PredictOptions("cpu")).labels("regions")
            exact = segment(image, at.load_model(), PredictOptions(str(at.device))).labels("regions")
        half = segment(image, at.load_model(), PredictOptions(str(at.device))).labels("regions")
        for precision, found in (("float32", exact), ("float16", half)):
            brain = (found > 0) | (reference > 0)
            yield (
                f"{name}, {precision} against the CPU",
                f"{(found != reference)[brain].mean():.3%} of the brain differs",
            )


def forward(at: Measurement) -> Iterator[Row]:
    """Time and memory of a whole head at 1 mm, from grey values to probabilities."""
    volume, model = conform(at.head)[0], at.load_model()
    infer(volume, model, PredictOptions(str(at.device)))
    forget_memory(at.device)
    seconds = []
    for _ in range(3):
        started = waited(at.device)
        infer(volume, model, PredictOptions(str(at.device)))
        seconds.append(waited(at.device) - started)
    size = " x ".join(map(str, volume.shape))
    yield f"probabilities of {size} mm", f"{min(seconds):.3f} s, peak {peak_mib(at.device)} MiB"


def memory_ladder(at: Measurement) -> Iterator[Row]:
    """What happens when the device's memory is short, by limits on what this process may take."""
    if at.device.type != "cuda":
        yield "memory ladder", "needs a GPU"
        return
    volume, options = conform(at.head)[0], PredictOptions(str(at.device))
    gc.collect()  # recordings of the training parts hold memory
    forget_memory(at.device)
    held = torch.cuda.memory_allocated(at.device)
    whole, _ = infer(volume, at.load_model(), options)
    needed = torch.cuda.max_memory_allocated(at.device) - held
    total = torch.cuda.get_device_properties(at.device).total_memory
    for share in (0.8, 0.1):
        heard = Heard()
        logging.getLogger("bidsseg.network.inference").addHandler(heard)
        forget_memory(at.device)
        torch.cuda.set_per_process_memory_fraction((held + share * needed) / total, at.device)
        try:
            found, _ = infer(volume, at.load_model(), options)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, at.device)
            logging.getLogger("bidsseg.network.inference").removeHandler(heard)
        differ = f"{share_of_brain_that_differs(whole, found, volume.shape):.2%} of the brain differs"
        yield f"{share * needed / MIB:.0f} MiB for {needed / MIB:.0f}", "; ".join([*heard.messages, differ])


class Heard(logging.Handler):
    """The warnings of a while."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def share_of_brain_that_differs(one: Any, other: Any, shape: tuple[int, ...]) -> float:
    tissues = []
    for found in (one, other):
        tissue = np.zeros(shape, np.uint8)
        box = tuple(slice(o, o + n) for o, n in zip(found.origin, found.tissue.shape[1:], strict=True))
        tissue[box] = found.tissue.argmax(0)
        tissues.append(tissue)
    brain = (tissues[0] > 0) | (tissues[1] > 0)
    return float((tissues[0] != tissues[1])[brain].mean()) if brain.any() else 0.0


def stages_of_predict(at: Measurement) -> Iterator[Row]:
    """Seconds of each stage of one scan, so that one sees which limits many."""
    model, threads = at.load_model(), max(1, (os.cpu_count() or 1) // at.scale.processes)
    torch.set_num_threads(threads)
    segment(at.clinical[0], model, PredictOptions(str(at.device)))
    for name, image in (("clinical scan", at.clinical[0]), ("whole head", at.head)):
        path = at.scratch / "stages.nii.gz"
        nib.save(nib.Nifti1Image(image.data, image.affine), path)
        marks = [("", waited(at.device))]
        read = load(path)
        marks.append(("read", waited(at.device)))
        volume, grid = conform(prepare(read, bias_correction=False))
        marks.append(("conform", waited(at.device)))
        found, _ = infer(volume, model, PredictOptions(str(at.device)))
        marks.append(("network", waited(at.device)))
        native = decide_on_native_grid(found, grid, False)
        codes = native.labels("regions")
        marks.append(("back to the scan's grid", waited(at.device)))
        nib.save(nib.Nifti1Image(codes, image.affine), path)
        nib.save(nib.Nifti1Image(native.brain_mask.astype(np.uint8), image.affine), path)
        marks.append(("write", waited(at.device)))
        mosaic(at.scratch / "stages.png", read, codes, "regions")
        marks.append(("picture", waited(at.device)))
        seconds = [(stage, after - before) for (_, before), (stage, after) in itertools.pairwise(marks)]
        yield f"stages, {name}", ", ".join(f"{stage} {s:.2f} s" for stage, s in seconds)


def many_scans(at: Measurement) -> Iterator[Row]:
    """Scans a minute of ``brainseg-cli predict``, in several processes at once, start and all."""
    folder, scale = at.scratch / "scans", at.scale
    folder.mkdir()
    images = at.clinical[: scale.scans]
    for number, image in enumerate(images):
        nib.save(nib.Nifti1Image(image.data, image.affine), folder / f"{number}.nii.gz")
    paths = [folder / f"{number}.nii.gz" for number in range(scale.scans)]
    for number, path in enumerate(paths[len(images) :]):
        shutil.copyfile(paths[number % len(images)], path)
    threads = max(1, (os.cpu_count() or 1) // scale.processes)
    command = [
        sys.executable,
        "-m",
        "bidsseg.cli.main",
        "predict",
        "-q",
        "--device",
        str(at.device),
        "--threads",
        str(threads),
    ]
    bias = "N4" if importlib.util.find_spec("SimpleITK") else "no bias correction"
    command += ["--no-bias-correction"] if bias != "N4" else []
    command += ["-o", str(at.scratch / "labels")] + (["--model", str(at.model)] if at.model else [])
    started = time.perf_counter()
    running = [
        subprocess.Popen([*command, *map(str, paths[first :: scale.processes])]) for first in range(scale.processes)
    ]
    failed = sum(process.wait() != 0 for process in running)
    minutes = (time.perf_counter() - started) / 60
    rate = f"{scale.scans / minutes:.0f} scans a minute" if not failed else f"{failed} processes failed"
    yield f"predict, {scale.scans} scans, {scale.processes} processes of {threads} threads, {bias}", rate


PARTS: tuple[Callable[[Measurement], Iterator[Row]], ...] = (
    machine,
    training,
    agreement_of_samples,
    reproducibility,
    agreement_of_labels,
    forward,
    memory_ladder,
    stages_of_predict,
    many_scans,
)


def measure(given: argparse.Namespace) -> None:
    """Run all parts; rows are written as they come, so that a cut loses only what had not been measured."""
    began = time.perf_counter()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        at = Measurement(given, Path(folder))
        rows.append(("unpacked", f"{time.perf_counter() - began:.1f} s"))
        for part in PARTS:
            if given.parts and part.__name__ not in given.parts:
                continue
            if time.perf_counter() - began > at.scale.budget_s:
                rows.append((part.__name__, "not measured: no time left"))
                continue
            started = time.perf_counter()
            try:
                for row in part(at):
                    rows.append(row)
                    print(*row, sep=": ", flush=True)
            except Exception as error:  # the others go on
                logging.exception("%s", part.__name__)
                rows.append((part.__name__, f"failed: {error}".split("\n", 1)[0]))
            rows.append((f"({part.__name__} took", f"{time.perf_counter() - started:.1f} s)"))
            write_rows(given.results, "measure", rows)
    write_rows(given.results, "measure", rows)
    show(rows)


# ---- train -----------------------------------------------------------------------------------------------------------


def learn(given: argparse.Namespace) -> None:
    """Train for the given minutes."""
    torch.backends.cuda.matmul.allow_tf32 = False
    scale, scratch = TINY if given.tiny else Scale(), given.scratch or given.results / "checkpoint"
    start = load_model(given.init) if given.init else None
    known = unpack_training_set(given.pack)
    usual = replace(scale.options, hours=given.minutes / 60, checkpoint_s=100, workers=scale.workers, warmup_steps=100)
    options = changed(usual, given.set)
    shaped = start or given.widths
    try:
        config, weights = beginning(start, given.widths, options.seed) if shaped else (scale.config, None)
    except ValueError as error:
        sys.exit(f"--widths: {error}")
    recipe, device = changed(scale.recipe, given.recipe), torch.device(given.device)
    run = Run(subjects_of(known), known.lesions, scratch, config, recipe, options, weights, device)
    earlier = start.card.about.get("training", {}).get("runs", ()) if start else ()

    def save(state: State) -> None:
        export(run, state, given.results / "model", earlier)
        shutil.copyfile(scratch / "log.csv", given.results / "log.csv")
        print(f"{state.seconds / 60:.1f} minutes, {state.step} steps, saved", flush=True)

    state = train(run, on_save=save)
    samples = state.step * run.options.batch
    rows = [
        *machine_rows(given.device),
        ("learned", f"{state.seconds / 60:.2f} minutes, {state.step} steps, {samples} samples"),
        ("samples a second", f"{samples / state.seconds:.1f}"),
        *((f"loss, {name}", f"{value:.4f}") for name, value in last_losses(given.results / "log.csv").items()),
        ("weights", str(given.results / "model")),
    ]
    write_rows(given.results, "train", rows)
    show(rows)


def machine_rows(device: str) -> Iterator[Row]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    yield "machine", f"{name}, torch {torch.__version__}"


def last_losses(log: Path) -> dict[str, float]:
    """Means of the last tenth of the logged steps."""
    table = np.genfromtxt(log, delimiter=",", names=True)
    rows = np.atleast_1d(table)
    last = rows[-max(1, len(rows) // 10) :]
    return {name: float(last[name].mean()) for name in ("tissue", "dice", "side", "parcel")}


def changed(settings: Any, given: Sequence[str]) -> Any:
    """Settings with fields replaced, each given as NAME=JSON; exits with a line that names an unknown field."""
    known = {field.name for field in fields(settings)}
    new = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            sys.exit(f"{name}: no field of {type(settings).__name__}; it has {', '.join(sorted(known))}")
        parsed = json.loads(value)
        new[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return replace(settings, **new)


# ---- both ------------------------------------------------------------------------------------------------------------


def waited(device: torch.device) -> float:
    """The time at which the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def forget_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / MIB:.0f}" if device.type == "cuda" else "n/a"


def write_rows(folder: Path, name: str, rows: list[Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.tsv").write_text("".join(f"{what}\t{value}\n" for what, value in rows), encoding="utf-8")


def show(rows: list[Row]) -> None:
    width = max(len(what) for what, _ in rows)
    print("", *(f"{what:<{width}}  {value}" for what, value in rows), sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(required=True)
    for name, function in (("measure", measure), ("train", learn)):
        stage = stages.add_parser(name)
        stage.set_defaults(function=function)
        stage.add_argument("pack", type=Path)
        stage.add_argument("results", type=Path)
        stage.add_argument("--device", default="cuda")
        stage.add_argument("--tiny", action="store_true", help="A tiny network and tiny samples, to try the script.")
        if name == "measure":
            stage.add_argument("--model", default=None, help="Default: the packaged one.")
            stage.add_argument("--parts", nargs="*", metavar="NAME", help=", ".join(part.__name__ for part in PARTS))
            continue
        stage.add_argument("--minutes", type=float, required=True)
        stage.add_argument("--init", default=None, help="A model to start from; without, random weights.")
        stage.add_argument(
            "--widths", type=widths_from, help="N,N,...: channels of each level, as in brainseg-cli train."
        )
        stage.add_argument("--scratch", type=Path, help="Checkpoints go here; default: RESULTS/checkpoint.")
        stage.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="Fields of TrainOptions.")
        stage.add_argument("--recipe", nargs="*", default=[], metavar="NAME=JSON", help="Fields of SynthesisSettings.")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given.results.mkdir(parents=True, exist_ok=True)
    given.function(given)


if __name__ == "__main__":
    main()
