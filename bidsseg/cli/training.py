"""The commands of ``brainseg-cli`` for who trains and measures models. Heavy imports stay inside them."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bidsseg.cli.exit_codes import CLI_USAGE
from bidsseg.cli.options import (
    DEVICE_OPTION,
    EXISTING_FOLDER,
    MIRROR_OPTION,
    MODEL_OPTION,
    THREADS_OPTION,
    bias_correction_option,
    fail,
    model_named,
)
from bidsseg.errors import UserError
from bidsseg.segmentation.defaults import BIAS_CORRECTION_OF_SINGLE_SCANS


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--hours", type=float, default=2.0, show_default=True, help="Training time in all, over every resume.")
@click.option("--learning-rate", type=float, default=None, help="Peak learning rate of the convolutions.")
@click.option("--head-learning-rate", type=float, default=None, help="Peak learning rate of norms and heads.")
@click.option("--init", default=None, metavar="MODEL", help="Start from these weights rather than random ones.")
@click.option(
    "--init-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the weights of --init in the finished ones.",
)
@click.option(
    "--difficulty", type=(float, float, float), default=None, help="Of the samples at first, at their peak, at the end."
)
@click.option("--balance", type=(float, float), default=None, help="Class weights' exponent, first and last.")
@click.option("--steps", type=click.IntRange(0), default=0, help="End after this many steps, if not after --hours.")
@click.option("--picture-minutes", type=float, default=15.0, show_default=True, help="Picture of a held-out scan.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Samples of a step.")
@click.option("--seed", type=int, default=1, show_default=True, help="With --steps, the same seed gives the same run.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N; samples are made there.")
@click.option("--reproducible/--fastest", default=True, help="Same seed, same GPU, same run; or whatever is fastest.")
@click.option("--channels-last", is_flag=True, help="Another order in memory, which may be faster on a GPU.")
@click.option("--compiler", default="", help="Have torch compile the network, such as by inductor: slow at first.")
def train(
    data: Path, out: Path, hours: float, init: str | None, picture_minutes: float, device: str, **chosen: Any
) -> None:
    """Train on DATA: a folder (see the README) or a file that ``pack`` wrote. Checkpoints and log go to OUT.

    Running the same command again resumes. The finished model is OUT/model, and so is that of every checkpoint.
    """
    import logging

    from bidsseg.train.loop import Run, State, export, train, training_device
    from bidsseg.train.monitor import Monitor
    from bidsseg.train.options import TrainOptions
    from bidsseg.train.packing import subjects_and_lesions

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = {name: value for name, value in chosen.items() if value is not None}
    options = TrainOptions(hours=hours, **given)
    start = None
    if options.init_share and not init:
        fail(UserError("--init-share: there are no weights to mix with; give --init MODEL, or leave it out"))
        sys.exit(CLI_USAGE)
    try:
        start = model_named(init) if init else None
        place = training_device(device)
    except UserError as error:
        fail(error)
        sys.exit(CLI_USAGE)
    run = Run(*subjects_and_lesions(data, out / "cache"), out, options=options, device=place)
    if start is not None:
        run = replace(run, config=start.net.config, weights=start.net.state_dict())
    earlier = start.card.about.get("training", {}).get("runs", ()) if start else ()

    def save(state: State) -> None:
        export(run, state, out / "model", earlier)

    with closing(Monitor(data, out, picture_minutes)) as monitor:
        train(run, monitor, save)


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def pack(data: Path, file: Path) -> None:
    """Write all that DATA has to learn from into one FILE, which ``train`` takes as its DATA.

    Labels and masks are exact; scans are rounded to half the standard deviation of their noise. Held-out subjects are
    left out.
    """
    from bidsseg.train.data import load_training_set
    from bidsseg.train.packing import pack_training_set

    lost = pack_training_set(load_training_set(data), file)
    for scan in lost:
        click.echo(f"{scan.name}: noise {scan.noise:.4g}, error of rounding {scan.error:.3f} of it")
    click.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--simulate-slices", "slice_mm", type=float, default=1.0, help="Thickness of simulated slices in mm.")
@click.option("--axis", type=click.Choice(["axial", "coronal", "sagittal"]), default="axial", show_default=True)
@click.option("--contrast", type=click.Choice(["as-is", "inverted", "flair"]), default="as-is", show_default=True)
@click.option("--slices", type=click.IntRange(0), default=0, help="Keep only this many slices amid the brain.")
@click.option(
    "--gain", type=click.FloatRange(0, 1), default=0.0, help="Smooth gain from corner to corner, 0.25 is +-25 %."
)
@bias_correction_option(BIAS_CORRECTION_OF_SINGLE_SCANS)
@click.option("--all", "standard", is_flag=True, help="Instead, every condition of the card, one after the other.")
@click.option("--seg", "schemes", multiple=True, type=click.Choice(["regions", "lobar", "gyri"]), help="What to score.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="TSV with one row per scan and label.")
@MIRROR_OPTION
@click.option("--card", is_flag=True, help="Write the means into the model's card.")
@click.option(
    "--readme", type=click.Path(exists=True, path_type=Path), help="Put the card's accuracy into this file too."
)
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def evaluate(data: Path, schemes: tuple[str, ...], output: Path | None, readme: Path | None, **chosen: Any) -> None:
    """Score a model on the held-out scans of DATA (never used for training)."""
    from bidsseg.evaluation.scores import STANDARD_CONDITIONS, Condition, summary, write_scores
    from bidsseg.evaluation.scores import evaluate as score
    from bidsseg.network.card import DEFAULT_MODEL, add_accuracy, folder_of, write_readme
    from bidsseg.network.inference import PredictOptions
    from bidsseg.train.held_out import validation_cases

    corrected = chosen.pop("bias_correction")
    card, model, standard = chosen.pop("card"), chosen.pop("model"), chosen.pop("standard")
    options = PredictOptions(chosen.pop("device"), chosen.pop("threads"), mirror=chosen.pop("mirror"))
    found: dict[str, list[Any]] = {}
    for condition in STANDARD_CONDITIONS if standard else (Condition(**chosen),):
        cases = validation_cases(data)
        scores = score(cases, model_named(model), condition, schemes or ("regions", "lobar"), options, corrected)
        name = condition.name + ", N4" * corrected + ", --mirror" * options.mirror
        _print_scores(name, scores)
        found[name] = scores
        if card or readme:
            measured = add_accuracy(folder_of(model or DEFAULT_MODEL), name, summary(scores))
            if readme:
                write_readme(readme, measured)
    if output:
        write_scores(output, found)


def _print_scores(title: str, scores: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from bidsseg.evaluation.scores import label_means, summary

    table = Table(title=title)
    for column in ("labels", "name", "Dice", "95 % Hausdorff, mm"):
        table.add_column(column, justify="left" if column in ("labels", "name") else "right")
    for scheme, name, dice, hd95 in label_means(scores):
        table.add_row(scheme, name, f"{dice:.3f}", f"{hd95:.2f}")
    for scheme, means in summary(scores).items():
        table.add_row(scheme, "[bold]mean[/bold]", f"[bold]{means['dice']:.4f}[/bold]", f"{means['hd95_mm']:.2f}")
    Console().print(table)


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option(
    "--trials",
    type=click.Path(path_type=Path),
    default=Path("quality_trials.jsonl"),
    show_default=True,
    help="Segmentations done so far; an interrupted run goes on from here.",
)
@click.option("--fit-only", is_flag=True, help="Segment nothing, use the trials there are.")
@click.option("--card/--no-card", default=True, help="Write the calibration into the model's card.")
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def calibrate(
    data: Path, trials: Path, fit_only: bool, card: bool, model: str | None, device: str, threads: int
) -> None:
    """Calibrate the quality control of a model on the held-out scans of DATA, damaged in many ways.

    Prints how well expected Dice and verdict do on scans, and kinds of damage, that were left out of the fit.
    """
    from bidsseg.evaluation.calibration import calibrate as fit
    from bidsseg.evaluation.damage_study import read_trials, run_study
    from bidsseg.network.card import DEFAULT_MODEL, folder_of, set_quality
    from bidsseg.network.inference import PredictOptions
    from bidsseg.train.held_out import validation_cases

    loaded = model_named(model)
    if fit_only:
        done = [trial for trial in read_trials(trials) if trial.weights_sha256 == loaded.card.sha256]
    else:
        options = PredictOptions(device, threads)
        done = run_study(validation_cases(data), loaded, trials, options, lambda trial: click.echo(trial.line))
    if len({trial.scan for trial in done}) < 2:
        raise UserError(f"{trials}: needs trials of at least two scans with these weights; leave out --fit-only")
    calibration, by_scan = fit(done)
    _print_trials(by_scan)
    for name, told in calibration.about.items():
        click.echo(f"{name}: {told}" if not isinstance(told, dict) else f"{name}:")
        for key, value in told.items() if isinstance(told, dict) else ():
            click.echo(f"  {key}: {value}")
    if card:
        set_quality(folder_of(model or DEFAULT_MODEL), calibration.as_json())


def _print_trials(foretold: list[Any]) -> None:
    """One line per kind and strength of damage."""
    from rich.console import Console
    from rich.table import Table

    table = Table("damage", "Dice", "expected", "verdicts", title="Damaged scans, each judged without its own scan")
    for name in dict.fromkeys(one.trial.damage.name for one in foretold):
        members = [one for one in foretold if one.trial.damage.name == name]
        dice = " ".join(f"{one.trial.mean_dice:.2f}" for one in members)
        expected = " ".join(f"{one.assessment.expected_dice or 0:.2f}" for one in members)
        table.add_row(name, dice, expected, " ".join(one.assessment.verdict for one in members))
    Console().print(table)


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default: the package's own tables.")
def reference(data: Path, output: Path | None) -> None:
    """Measure the label maps of DATA that a model learns from.

    Writes the usual volumes, asymmetries and places of all labels, and the atlas that shows which way up a head lies.
    """
    import logging

    import numpy as np

    import bidsseg
    from bidsseg.files import table, whole, write_text
    from bidsseg.quality.reorientation import ATLAS_FILE
    from bidsseg.train.reference import COLUMNS, reference_table, tissue_atlas

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = output or Path(bidsseg.__file__).parent / "tables"
    volumes, atlas = folder / "reference_volumes.tsv", folder / ATLAS_FILE
    write_text(volumes, table(COLUMNS, reference_table(data)))
    with whole(atlas) as path:
        np.savez_compressed(path, frequency=tissue_atlas(data))
    click.echo(f"{volumes}\n{atlas}")
