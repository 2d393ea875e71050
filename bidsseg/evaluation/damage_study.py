"""The study behind the quality control: held-out scans, damaged in many ways, segmented, and compared with the truth.

One line of JSON per segmentation, appended as it comes, so that a study that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.evaluation.damage import STUDY, Damage, damage
from bidsseg.evaluation.scores import reference_codes
from bidsseg.imaging.arrays import overlap
from bidsseg.labels import Codes
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import Model
from bidsseg.quality.assessment import Geometry, geometry
from bidsseg.quality.evidence import SCORED, Evidence, collect, evidence_from
from bidsseg.segmentation.pipeline import answer, native, prepare
from bidsseg.train.held_out import Case


@dataclass(frozen=True)
class Trial:
    """One damaged scan, what its segmentation was worth, and what was known of it without the truth."""

    scan: str
    damage: Damage
    weights_sha256: str
    dice: dict[str, dict[int, float]]
    "By scheme and code, of the labels that the truth has."
    evidence: Evidence
    geometry: Geometry

    @property
    def mean_dice(self) -> float:
        """Over the regions that the truth has, 0-1."""
        return float(np.mean(list(self.dice["regions"].values())))

    @property
    def line(self) -> str:
        """For the terminal."""
        return f"{self.scan}, {self.damage.name}: mean Dice of regions {self.mean_dice:.3f}"


def run_study(
    cases: Iterable[Case],
    model: Model,
    path: Path,
    options: PredictOptions,
    told: Callable[[Trial], None],
) -> list[Trial]:
    """All trials of a model, those already in the file included; ``told`` hears of each new one."""
    trials = [trial for trial in read_trials(path) if trial.weights_sha256 == model.card.sha256]
    known = {(trial.scan, trial.damage) for trial in trials}
    for how, case in product(STUDY, list(cases)):
        if (case.name, how) not in known:
            trials.append(run_trial(case, how, model, options))
            with path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(asdict(trials[-1])) + "\n")
            told(trials[-1])
    return trials


def read_trials(path: Path) -> Iterator[Trial]:
    """The trials in a file, none where there is no such file; a line cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            yield _trial_from(json.loads(line))
        except ValueError:
            continue


def _trial_from(stored: dict[str, Any]) -> Trial:
    dice = {scheme: {int(code): value for code, value in rows.items()} for scheme, rows in stored["dice"].items()}
    return Trial(
        stored["scan"],
        Damage(**stored["damage"]),
        stored["weights_sha256"],
        dice,
        evidence_from(stored["evidence"]),
        Geometry(**stored["geometry"]),
    )


def run_trial(case: Case, how: Damage, model: Model, options: PredictOptions) -> Trial:
    """Damage a scan, segment it as ``bidsseg participant`` does, score it against the manual labels."""
    image, carry = damage(case, how)
    found = answer(prepare(image, True, options.threads or 1), model, options)
    segmented = native(found, options.gyri)
    truth = {scheme: carry(reference_codes(case.anatomy, scheme)) for scheme in SCORED}
    dice: dict[str, dict[int, float]] = {
        scheme: dice_by_label(codes, segmented.labels(scheme)) for scheme, codes in truth.items()
    }
    return Trial(case.name, how, model.card.sha256, dice, collect(found.probabilities, found.volume), geometry(image))


def dice_by_label(reference: Codes, found: Codes) -> dict[int, float]:
    """Dice of every label that the reference has."""
    a, b, both = overlap(reference, found)
    present = [int(code) for code in np.flatnonzero(a) if code]
    return {code: round(2 * int(both[code]) / int(a[code] + b[code]), 4) for code in present}
