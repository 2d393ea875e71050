"""``brainseg-cli evaluate`` with ``--patients`` and with ``--lesions``; heavy, so imported by that command alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bidsseg.cli.options import model_named
from bidsseg.evaluation import lesion_measures
from bidsseg.evaluation.patients import PatientScores, measure, measured_as_json
from bidsseg.network.card import (
    DEFAULT_MODEL,
    PATIENTS,
    PATIENTS_MARKS,
    folder_of,
    patients_table,
    set_about,
    write_readme,
)
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_card import LESION_MARKS, LESION_MODEL, lesion_table, read_lesion_card, write_lesion_card
from bidsseg.network.lesion_model import load_lesion_model


def evaluate_patients(data: Path, model: str | None, options: PredictOptions, card: bool, readme: Path | None) -> None:
    """Print the measures on patients; write them into card and readme, which tell of them without ``--mirror``."""
    scores = measure(data, model_named(model), options, lambda line: click.echo(line, err=True))
    measured = measured_as_json(scores)
    if not scores.ventricles and not scores.contrasts:
        return
    _print_scores(scores, measured)
    if options.mirror and (card or readme):
        click.echo("patients: measured with --mirror, so not written into card or readme", err=True)
        return
    if card:
        set_about(folder_of(model or DEFAULT_MODEL), PATIENTS, measured)
    if readme:
        write_readme(readme, patients_table(measured), PATIENTS_MARKS)


def evaluate_lesions(data: Path, model: str | None, lesion_model: Path | None, card: bool, readme: Path | None) -> None:
    """What ``brainseg-cli evaluate --lesions`` does."""
    folder = folder_of(lesion_model or LESION_MODEL)
    measured = lesion_measures.measure(data, model_named(model), load_lesion_model(folder), click.echo)
    accuracy, errors = lesion_measures.measured_as_json(measured), measured.load_errors
    evaluated = replace(read_lesion_card(folder), accuracy=accuracy, load_errors=errors)
    click.echo(lesion_table(evaluated))
    if card:
        write_lesion_card(folder, evaluated)
    if readme:
        write_readme(readme, lesion_table(evaluated), LESION_MARKS)


def _print_scores(scores: PatientScores, measured: dict[str, Any]) -> None:
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
