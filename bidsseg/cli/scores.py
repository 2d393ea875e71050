"""What ``brainseg-cli evaluate`` and ``calibrate`` measure and print; heavy, so imported by these commands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bidsseg.cli.options import model_named
from bidsseg.evaluation import lesion_measures
from bidsseg.evaluation.calibration import CrossValidated
from bidsseg.evaluation.clinical import ClinicalScan
from bidsseg.evaluation.patients import PatientScores, measure, measured_as_json
from bidsseg.evaluation.scores import Condition, Score, label_means, summary
from bidsseg.evaluation.scores import evaluate as score
from bidsseg.network.card import (
    ACCURACY_MARKS,
    DEFAULT_MODEL,
    PATIENTS,
    PATIENTS_MARKS,
    accuracy_table,
    add_accuracy,
    folder_of,
    patients_table,
    set_about,
    write_readme,
)
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_card import LESION_MARKS, LESION_MODEL, lesion_table, read_lesion_card, write_lesion_card
from bidsseg.network.lesion_model import load_lesion_model
from bidsseg.quality.assessment import Assessment
from bidsseg.quality.verdicts import tally
from bidsseg.train.held_out import training_cases, validation_cases


@dataclass(frozen=True)
class Judged:
    """What is judged, on which data, and where its measures are written."""

    data: Path
    model: str | None
    card: bool
    readme: Path | None
    learned_from: bool = False
    "Scans of the training in place of those kept out of it."

    @property
    def folder(self) -> Path:
        """Of the model."""
        return folder_of(self.model or DEFAULT_MODEL)


def evaluate_scans(
    judged: Judged, conditions: Sequence[Condition], schemes: tuple[str, ...], options: PredictOptions, corrected: bool
) -> dict[str, list[Score]]:
    """Print the scores of the scans under each condition; they come back by its name."""
    found: dict[str, list[Score]] = {}
    for condition in conditions:
        cases = training_cases(judged.data) if judged.learned_from else validation_cases(judged.data)
        scores = score(cases, model_named(judged.model), condition, schemes, options, corrected)
        name = condition.name + ", N4" * corrected + ", --mirror" * options.mirror
        _print_scores(name, scores)
        found[name] = scores
        if judged.card or judged.readme:
            measured = add_accuracy(judged.folder, name, summary(scores))
            if judged.readme:
                write_readme(judged.readme, accuracy_table(measured), ACCURACY_MARKS)
    return found


def evaluate_patients(judged: Judged, options: PredictOptions) -> None:
    """Print the measures on patients; write them into card and readme, which tell of them without ``--mirror``."""
    scores = measure(judged.data, model_named(judged.model), options, lambda line: click.echo(line, err=True))
    measured = measured_as_json(scores)
    if not scores.ventricles and not scores.contrasts:
        return
    _print_patients(scores, measured)
    if options.mirror and (judged.card or judged.readme):
        click.echo("patients: measured with --mirror, so not written into card or readme", err=True)
        return
    if judged.card:
        set_about(judged.folder, PATIENTS, measured)
    if judged.readme:
        write_readme(judged.readme, patients_table(measured), PATIENTS_MARKS)


def evaluate_lesions(judged: Judged, lesion_model: Path | None) -> None:
    """Print how well lesions are found; the card is the lesion model's."""
    folder = folder_of(lesion_model or LESION_MODEL)
    measured = lesion_measures.measure(judged.data, model_named(judged.model), load_lesion_model(folder), click.echo)
    accuracy, errors = lesion_measures.measured_as_json(measured), measured.load_errors
    evaluated = replace(read_lesion_card(folder), accuracy=accuracy, load_errors=errors)
    click.echo(lesion_table(evaluated))
    if judged.card:
        write_lesion_card(folder, evaluated)
    if judged.readme:
        write_readme(judged.readme, lesion_table(evaluated), LESION_MARKS)


def _print_patients(scores: PatientScores, measured: dict[str, Any]) -> None:
    ventricles = Table("patients", "name", "Dice", title="All ventricles in FLAIR against manual masks")
    for kind, dice in measured["ventricles"].items():
        for name, value in dice.items():
            ventricles.add_row(kind, name, f"{value:.3f}")
    title = "Other contrasts against FLAIR: difference of lobe volumes, Dice of regions"
    contrasts = Table("session", "contrast", "median", "largest", "Dice", title=title)
    contrasts.columns[0].overflow = "fold"
    for one in scores.contrasts:
        dice = "n/a" if one.regions_dice is None else f"{one.regions_dice:.3f}"
        apart = (f"{one.median_percent:.1f} %", f"{one.largest_percent:.1f} %")
        contrasts.add_row(one.session, one.contrast, *apart, dice)
    console = Console()
    for table in (ventricles, contrasts):
        if table.row_count:
            console.print(table)


def _print_scores(title: str, scores: list[Score]) -> None:
    """One line per label, and the means."""
    table = Table(title=title)
    for column in ("labels", "name", "Dice", "95 % Hausdorff, mm"):
        table.add_column(column, justify="left" if column in ("labels", "name") else "right")
    for scheme, name, dice, hd95 in label_means(scores):
        table.add_row(scheme, name, f"{dice:.3f}", f"{hd95:.2f}")
    for scheme, means in summary(scores).items():
        table.add_row(scheme, "[bold]mean[/bold]", f"[bold]{means['dice']:.4f}[/bold]", f"{means['hd95_mm']:.2f}")
    Console().print(table)


def print_trials(validated: Sequence[CrossValidated]) -> None:
    """One line per kind and strength of damage."""
    table = Table("damage", "Dice", "expected", "reachable", "verdicts", title="Each judged without its own scan")
    for name in sorted({one.trial.damage.name for one in validated}):
        members = [one for one in validated if one.trial.damage.name == name]
        hoped = [one.assessment.expectation for one in members if one.assessment.expectation]
        means = (
            np.mean([one.trial.mean_dice for one in members]),
            np.mean([one.dice for one in hoped]),
            np.mean([one.reach for one in hoped]),
        )
        table.add_row(name, *(f"{mean:.2f}" for mean in means), tally(one.assessment.verdict for one in members))
    Console().print(table)


def print_clinical(judged: Sequence[tuple[ClinicalScan, Assessment]]) -> None:
    """One line per clinical scan."""
    table = Table("scan", "verdict", "expected", "reachable", "reasons", title="Clinical scans")
    table.columns[0].overflow = "fold"
    for scan, found in judged:
        hoped = found.expectation
        numbers = (f"{hoped.dice:.2f}", f"{hoped.reach:.2f}") if hoped else ("", "")
        table.add_row(scan.name, found.verdict, *numbers, "; ".join(found.reasons))
    Console().print(table)
