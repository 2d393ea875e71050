"""What ``brainseg-cli evaluate --patients`` does. For import by that command alone, since it imports what is heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bidsseg.cli.options import model_named
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
