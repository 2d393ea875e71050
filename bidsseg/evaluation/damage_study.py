"""The study behind quality control: scans of every kind, clean and damaged, segmented and compared with the truth.

One line of JSON per segmentation, appended as it comes, so that a study that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bidsseg.evaluation.damage import DAMAGES, NONE, Damage, damage
from bidsseg.evaluation.scores import AXES, dice_by_label, majority, reference_codes, simulate
from bidsseg.evaluation.views import Axis, Contrast, View, shown
from bidsseg.imaging.preparation import prepare
from bidsseg.labels import FIRST_LOBAR_CODE
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.quality.coverage import FieldOfView, field_of_view
from bidsseg.quality.evidence import SCORED, Evidence, evidence_from
from bidsseg.quality.judgement import examine
from bidsseg.segmentation.pipeline import answer, native
from bidsseg.train.data import brain_folders, head_maps

One = TypeVar("One")
Done = TypeVar("Done")
SEED = 11
VIEWS = 126
"Six for each damage."
MAPS_EVERY = 4
"One of this many views shows a head map, which the network learned from; the others brains that it never saw."
CONTRASTS: tuple[Contrast, ...] = ("T1w", "flair", "recoloured")
AXES_DRAWN: tuple[Axis, ...] = ("axial", "axial", "coronal", "sagittal")
SLICES_MM = (1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
P_FEW = 0.2
FEWEST_AND_MOST = (3, 13)
"Slices, where a scan has few."
LESIONS_ML = (0.0, 0.0, 2.0, 8.0, 20.0, 50.0)


@dataclass(frozen=True)
class Trial:
    """One scan, what its segmentation was worth, and what was known of it without the truth."""

    view: View
    damage: Damage
    weights_sha256: str
    dice: dict[str, dict[int, float]]
    "Dice by scheme and code, of the labels that the reference has."
    evidence: Evidence
    geometry: FieldOfView

    @property
    def clean(self) -> bool:
        return self.damage == NONE

    @property
    def mean_dice(self) -> float:
        """Over the regions that the truth has, 0-1."""
        return float(np.mean(list(self.dice["regions"].values())))

    def as_line(self) -> str:
        """JSON, for ``read_trials``."""
        return json.dumps(asdict(self))

    @property
    def line(self) -> str:
        """For the terminal."""
        return f"{self.view.name}; {self.damage.name}: mean Dice of regions {self.mean_dice:.3f}"


def study(data: Path) -> list[tuple[View, Damage]]:
    """What is tried: every view clean, and with one damage; drawn by one seeded generator, kinds in even shares."""
    rng = np.random.default_rng(SEED)
    brains = [folder.name for folder in brain_folders(data, validation=True)]
    maps = [path.name.split(".")[0] for path in head_maps(data)]
    axes, slices, amounts = _dealt(AXES_DRAWN, rng), _dealt(SLICES_MM, rng), _dealt(LESIONS_ML, rng)
    contrasts, hosts, damages = _dealt(CONTRASTS, rng), _dealt(maps, rng), _dealt(DAMAGES, rng)
    tried: list[tuple[View, Damage]] = []
    for number in range(VIEWS):
        is_map = number % MAPS_EVERY == 0
        host = next(hosts) if is_map or number % 2 else ""
        anatomy = host if is_map else brains[number % len(brains)]
        head = "" if is_map and number % (2 * MAPS_EVERY) else host
        contrast: Contrast = "palette" if is_map else next(contrasts)
        few = int(rng.integers(*FEWEST_AND_MOST)) if rng.random() < P_FEW else 0
        amount, slice_mm, axis = next(amounts), next(slices), next(axes)
        view = View(anatomy, head, contrast, amount, max(slice_mm, 3.0) if few else slice_mm, axis, few, number)
        tried += [(view, NONE), (view, next(damages))]
    return tried


def _dealt(kinds: Sequence[One], rng: np.random.Generator) -> Iterator[One]:
    """All of them in random order, again and again."""
    while True:
        yield from (kinds[n] for n in rng.permutation(len(kinds)))


@dataclass(frozen=True)
class Means:
    """What a worker needs; every worker reads the model itself."""

    data: Path
    model: str
    device: str
    sha256: str


def run_study(means: Means, path: Path, workers: int, report: Callable[[Trial], None]) -> list[Trial]:
    """All trials of a model, those already in the file included; ``report`` is called with each new one."""
    tried = study(means.data)
    known = {(trial.view, trial.damage): trial for trial in read_trials(path) if trial.weights_sha256 == means.sha256}
    trials = [known[one] for one in tried if one in known]
    for trial in in_parallel(partial(run_trial, means), [one for one in tried if one not in known], workers):
        append_lines(path, [trial.as_line()])
        report(trial)
        trials.append(trial)
    return trials


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file; one that an interrupted run left incomplete is ended first, so that it joins no other."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.writelines(f"{line}\n".encode() for line in lines)


def in_parallel(work: Callable[[One], Done], items: Sequence[One], workers: int) -> Iterator[Done]:
    """What ``work`` makes of each item, as it comes, in processes of their own."""
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_trials(path: Path) -> Iterator[Trial]:
    """The trials in a file, empty where there is no such file; an incomplete line is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            yield _trial_from(json.loads(line))
        except ValueError:
            continue


def _trial_from(stored: dict[str, Any]) -> Trial:
    dice = {scheme: {int(code): value for code, value in rows.items()} for scheme, rows in stored["dice"].items()}
    return Trial(
        View(**stored["view"]),
        Damage(**stored["damage"]),
        stored["weights_sha256"],
        dice,
        evidence_from(stored["evidence"]),
        FieldOfView(**stored["geometry"]),
    )


def run_trial(means: Means, tried: tuple[View, Damage]) -> Trial:
    """Damage a scan, segment it as ``bidsseg participant`` does, score it against the labels it was made of."""
    view, how = tried
    model, options = load_model(means.model), PredictOptions(means.device, 1)
    case = damage(shown(view, means.data), how)
    image, matrix = simulate(case, view.condition)
    found = answer(prepare(image, True, 1), model, options)
    segmented = native(found, False)
    dice: dict[str, dict[int, float]] = {}
    for scheme in SCORED:
        truth = majority(reference_codes(case.anatomy, scheme), matrix, AXES[view.axis])
        dice[scheme] = dice_by_label(truth, segmented.labels(scheme))
    if not view.has_lobes:
        dice = {
            scheme: {code: value for code, value in rows.items() if code < FIRST_LOBAR_CODE}
            for scheme, rows in dice.items()
        }
    return Trial(view, how, means.sha256, dice, examine(found, model, options), field_of_view(image))
