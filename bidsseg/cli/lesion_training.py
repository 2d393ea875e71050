"""``brainseg-cli`` subcommands for training and evaluating the lesion network. Heavy imports stay inside them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from bidsseg.cli.options import EXISTING_FOLDER, MODEL_OPTION, model_named
from bidsseg.network.lesion_card import LesionCard, write_lesion_card

if TYPE_CHECKING:
    from bidsseg.evaluation.lesion_scores import MaskedScan, SearchedScan

TRAINING_LOG = "training_log.csv"


@click.command("train-lesions")
@click.argument("data", type=EXISTING_FOLDER)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--minutes", type=float, default=20.0, show_default=True, help="Training time.")
@click.option("--steps", type=click.IntRange(0), default=0, help="End after this many steps, if not after the minutes.")
@click.option("--painted", type=click.IntRange(0), default=90, show_default=True, help="Scans with painted lesions.")
@click.option(
    "--without",
    default="",
    metavar="SUB-01,SUB-03",
    help="Patients to leave out, for cross-validation; their scores are told at the end.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads.")
@MODEL_OPTION
def train_lesions(data: Path, out: Path, painted: int, without: str, model: str | None, **chosen: Any) -> None:
    """Train the lesion network on DATA (see docs/training.md); OUT/lesion-model gets weights, card and training log.

    Scans are labelled by the model of regions first, and kept in OUT/cache for the next time. The thresholds are
    chosen on the validation patients, and stand in the card, unless patients are left out.
    """
    from dataclasses import replace

    from bidsseg import __version__
    from bidsseg.evaluation.lesion_scores import best_thresholds, clinical_scans, found_in, masked_scans
    from bidsseg.network.lesion_config import LesionNetConfig
    from bidsseg.network.lesion_model import load_lesion_model, save_lesion_model
    from bidsseg.train.lesion_examples import ExampleOptions, examples
    from bidsseg.train.lesion_training import LesionTrainOptions, about_training
    from bidsseg.train.lesion_training import train_lesions as train

    options, regions, config = LesionTrainOptions(**chosen), model_named(model), LesionNetConfig()
    shown = ExampleOptions(painted, tuple(filter(None, without.split(","))))
    given = examples(data, regions, out / "cache", shown, click.echo)
    folder = out / "lesion-model"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TRAINING_LOG).open("w", encoding="utf-8") as log:
        weights = train(given, options, partial(_log_step, log), config)
    card = LesionCard(folder.name, __version__, config, "", about={"training": about_training(given, options)})
    save_lesion_model(folder, weights, card)
    trained = load_lesion_model(folder)
    if shown.without:  # to compare ways to train, without a look at the validation patients
        for scan in clinical_scans(data, shown.without):
            _tell_scores(scan, found_in(scan.image, regions, trained))
        return
    thresholds = best_thresholds([(scan, found_in(scan.image, regions, trained)) for scan in masked_scans(data)])
    write_lesion_card(folder, replace(trained.card, thresholds=thresholds))
    click.echo(f"{folder}: thresholds {thresholds.thick:g} and {thresholds.thin:g}")


def _tell_scores(scan: MaskedScan, found: SearchedScan) -> None:
    """How a patient who was left out fares at each threshold."""
    from bidsseg.evaluation.lesion_scores import by_threshold

    for level, score in by_threshold(scan, found).items():
        click.echo(
            f"{scan.name} at {level:.2f}: Dice {score.dice:.3f}, {score.sensitivity:.0%} of {score.lesions} lesions, "
            f"{score.false_positives} false, volume {score.volume_error:+.0%}"
        )


def _log_step(log: TextIO, step: int, done: float, loss: float) -> None:
    """A row of the training log, its head before the first one; the same on the terminal."""
    if not log.tell():
        log.write("step,progress,loss\n")
    log.write(f"{step},{done:.4f},{loss:.4f}\n")
    log.flush()  # a run that is cut keeps what it has
    click.echo(f"step {step}, {done:.0%}: loss {loss:.4f}")
