"""``brainseg-cli`` subcommands for training and evaluating models. Heavy imports stay inside them."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import bidsseg
from bidsseg.cli.exit_codes import CLI_USAGE
from bidsseg.cli.options import (
    DEVICE_OPTION,
    EXISTING_FOLDER,
    MIRROR_OPTION,
    MODEL_OPTION,
    THREADS_OPTION,
    fail,
    model_named,
)
from bidsseg.errors import UserError
from bidsseg.files import table, whole, write_text
from bidsseg.quality.verdicts import tally


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--hours", type=float, default=2.0, show_default=True, help="Training time in total, over all resumed runs."
)
@click.option("--learning-rate", type=float, default=None, help="Peak learning rate of the convolutions.")
@click.option("--head-learning-rate", type=float, default=None, help="Peak learning rate of norms and heads.")
@click.option("--init", default=None, metavar="MODEL", help="Start from these weights rather than random ones.")
@click.option(
    "--init-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the weights of --init in the finished weights.",
)
@click.option(
    "--difficulty",
    type=(float, float, float),
    default=None,
    help="Difficulty of the samples at the start, at its peak, and at the end.",
)
@click.option(
    "--balance", type=(float, float), default=None, help="Exponent of the class weights, at the start and at the end."
)
@click.option("--steps", type=click.IntRange(0), default=0, help="End after this many steps instead of after --hours.")
@click.option(
    "--picture-minutes",
    type=float,
    default=15.0,
    show_default=True,
    help="Minutes between pictures of a held-out scan.",
)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Samples per training step.")
@click.option("--seed", type=int, default=1, show_default=True, help="With --steps, the same seed gives the same run.")
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N; samples are made there, too."
)
@click.option(
    "--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that prepare samples in advance."
)
@click.option(
    "--alike",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Samples of one shape in a batch, which a GPU processes together.",
)
def train(
    data: Path, out: Path, hours: float, init: str | None, picture_minutes: float, device: str, **chosen: Any
) -> None:
    """Train a model on DATA, a folder (see docs/training.md) or a file that ``pack`` wrote; write it to OUT.

    Checkpoints and the log are in OUT, too. The same command resumes an interrupted run. Every checkpoint replaces the
    model in OUT/model.
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
    if options.batch % options.alike:
        fail(UserError(f"--alike {options.alike}: --batch {options.batch} is no multiple of it; choose one that is"))
        sys.exit(CLI_USAGE)
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
    """Pack the training set of the folder DATA into one FILE, which ``train`` takes as its DATA.

    Labels and masks are exact; scans are rounded to half the standard deviation of their noise. It does not hold the
    held-out subjects. Clinical patients and whole heads get pseudo-labels by the packaged model, which takes some
    minutes.
    """
    from bidsseg.train.packing import pack_training_set
    from bidsseg.train.training_set import load_training_set

    lost = pack_training_set(load_training_set(data), file)
    for scan in lost:
        click.echo(f"{scan.name}: noise {scan.noise:.4g}, error of rounding {scan.error:.3f} of it")
    click.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--simulate-slices", "slice_mm", type=float, default=1.0, help="Thickness of simulated slices in mm.")
@click.option(
    "--axis",
    type=click.Choice(["axial", "coronal", "sagittal"]),
    default="axial",
    show_default=True,
    help="Direction of the slices.",
)
@click.option(
    "--contrast",
    type=click.Choice(["as-is", "inverted", "flair"]),
    default="as-is",
    show_default=True,
    help="Contrast of the scans.",
)
@click.option(
    "--slices", type=click.IntRange(0), default=0, help="Keep only this many slices around the centre of the brain."
)
@click.option(
    "--gain",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Multiply by a smooth gain from corner to corner; 0.25 is +-25 %.",
)
@click.option("--bias-correction", is_flag=True, help="Correct the bias field with N4 first.")
@click.option(
    "--all", "standard", is_flag=True, help="Score every condition of the model card instead, and --patients as well."
)
@click.option(
    "--patients",
    is_flag=True,
    help="Score instead the ventricles of patients against manual masks, and their T1w and T2w against FLAIR; with N4.",
)
@click.option(
    "--seg", "schemes", multiple=True, type=click.Choice(["regions", "lobar", "gyri"]), help="Schemes to score."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Table (TSV) with one row per scan and label.")
@click.option("--lesions", is_flag=True, help="Score instead how well lesions are found in held-out patients.")
@click.option(
    "--lesion-model",
    type=click.Path(exists=True, path_type=Path),
    help="Folder of the lesion network. Default: the packaged one.",
)
@MIRROR_OPTION
@click.option("--card", is_flag=True, help="Write the means into the model's card.")
@click.option(
    "--readme", type=click.Path(exists=True, path_type=Path), help="Also write the accuracy in the card into this file."
)
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def evaluate(data: Path, schemes: tuple[str, ...], output: Path | None, readme: Path | None, **chosen: Any) -> None:
    """Score a model on the held-out scans of DATA (never used for training)."""
    of_lesions, lesion_model = chosen.pop("lesions"), chosen.pop("lesion_model")
    of_patients = chosen.pop("patients")
    from bidsseg.cli.scores import evaluate_lesions, evaluate_patients

    if of_lesions:
        evaluate_lesions(data, chosen["model"], lesion_model, chosen["card"], readme)
        return
    from bidsseg.evaluation.scores import STANDARD_CONDITIONS, Condition, summary, write_scores
    from bidsseg.evaluation.scores import evaluate as score
    from bidsseg.network.card import (
        ACCURACY_MARKS,
        DEFAULT_MODEL,
        accuracy_table,
        add_accuracy,
        folder_of,
        write_readme,
    )
    from bidsseg.network.inference import PredictOptions
    from bidsseg.train.held_out import validation_cases

    corrected = chosen.pop("bias_correction")
    card, model, standard = chosen.pop("card"), chosen.pop("model"), chosen.pop("standard")
    options = PredictOptions(chosen.pop("device"), chosen.pop("threads"), mirror=chosen.pop("mirror"))
    if of_patients and not standard:
        evaluate_patients(data, model, options, card, readme)
        return
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
                write_readme(readme, accuracy_table(measured), ACCURACY_MARKS)
    if output:
        write_scores(output, found)
    if standard:
        evaluate_patients(data, model, options, card, readme)


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
    help="File of segmentations; an interrupted run continues from it.",
)
@click.option(
    "--clinical",
    type=click.Path(path_type=Path),
    default=Path("quality_clinical.jsonl"),
    show_default=True,
    help="File of the segmented clinical scans of DATA, which are judged but not used for the fit.",
)
@click.option(
    "--fit-only", is_flag=True, help="Fit to the trials and clinical scans in these files, without segmenting more."
)
@click.option("--card/--no-card", default=True, help="Write the calibration into the model's card.")
@click.option(
    "--readme",
    type=click.Path(exists=True, path_type=Path),
    help="Also write how accurate the verdicts are into this file.",
)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="Number of processes, each with one thread."
)
@MODEL_OPTION
@DEVICE_OPTION
def calibrate(
    data: Path, trials: Path, clinical: Path, fit_only: bool, card: bool, workers: int, **chosen: Any
) -> None:
    """Calibrate the quality control of a model on scans of every kind, clean and damaged, simulated from DATA.

    Prints how well the expected Dice and the verdict do on scans, and on kinds of damage, that were left out of the
    fit; then the verdicts on the clinical scans of DATA.
    """
    from bidsseg.evaluation import clinical as real
    from bidsseg.evaluation.calibration import calibrate as fit
    from bidsseg.evaluation.damage_study import Means, read_trials, run_study
    from bidsseg.network.card import (
        DEFAULT_MODEL,
        QUALITY_MARKS,
        folder_of,
        quality_table,
        read_card,
        set_quality,
        write_readme,
    )

    model = chosen["model"] or DEFAULT_MODEL
    sha256 = model_named(model).card.sha256
    if fit_only:
        done = [trial for trial in read_trials(trials) if trial.weights_sha256 == sha256]
        scans = [scan for scan in real.read_clinical(clinical) if scan.weights_sha256 == sha256]
    else:
        means = Means(data, model, chosen["device"], sha256)
        done = run_study(means, trials, workers, lambda trial: click.echo(trial.line))
        scans = real.run_clinical(means, clinical, workers, click.echo)
    if len({trial.view.anatomy for trial in done}) < 2:
        raise UserError(f"{trials}: needs trials of at least two scans with these weights; leave out --fit-only")
    calibration, by_scan = fit(done)
    judged = real.verdicts(scans, calibration)
    calibration = replace(calibration, about={**calibration.about, "clinical scans": real.about(judged)})
    _print_trials(by_scan)
    _print_clinical(judged)
    for name, found in calibration.about.items():
        click.echo(f"{name}: {found}" if not isinstance(found, dict) else f"{name}:")
        for key, value in found.items() if isinstance(found, dict) else ():
            click.echo(f"  {key}: {value}")
    if card:
        set_quality(folder_of(model), calibration.as_json())
    if chosen["readme"]:
        judged_by = replace(read_card(folder_of(model)), quality=calibration.as_json())
        write_readme(chosen["readme"], quality_table(judged_by), QUALITY_MARKS)


def _print_trials(validated: list[Any]) -> None:
    """One line per kind and strength of damage."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

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


def _print_clinical(judged: list[Any]) -> None:
    """One line per clinical scan."""
    from rich.console import Console
    from rich.table import Table

    table = Table("scan", "verdict", "expected", "reachable", "reasons", title="Clinical scans")
    table.columns[0].overflow = "fold"
    for scan, found in judged:
        hoped = found.expectation
        numbers = (f"{hoped.dice:.2f}", f"{hoped.reach:.2f}") if hoped else ("", "")
        table.add_row(scan.name, found.verdict, *numbers, "; ".join(found.reasons))
    Console().print(table)


@click.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default: the package's own tables.")
def reference(data: Path, output: Path | None) -> None:
    """Measure the label maps of DATA that a model learns from.

    Writes the usual volumes, asymmetries and places of all labels, the usual ratio of grey to white matter of the
    lobes, and the atlas that shows which way up a head lies.
    """
    import logging

    import numpy as np

    from bidsseg.quality.reorientation import ATLAS_FILE
    from bidsseg.quality.usual import RATIOS_FILE, VOLUMES_FILE
    from bidsseg.train.reference import (
        COLUMNS,
        RATIO_COLUMNS,
        measured_brains,
        ratio_table,
        reference_table,
        tissue_atlas,
    )

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = output or Path(bidsseg.__file__).parent / "tables"
    volumes, ratios, atlas = (folder / name for name in (VOLUMES_FILE, RATIOS_FILE, ATLAS_FILE))
    brains = measured_brains(data)
    write_text(volumes, table(COLUMNS, reference_table(brains)))
    write_text(ratios, table(RATIO_COLUMNS, ratio_table(brains)))
    with whole(atlas) as path:
        np.savez_compressed(path, frequency=tissue_atlas(data))
    click.echo(f"{volumes}\n{ratios}\n{atlas}")
