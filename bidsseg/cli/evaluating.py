"""``brainseg-cli`` subcommands that tell how good a model is, and whether it knows. Heavy imports stay inside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bidsseg.cli.options import (
    DEVICE_OPTION,
    EXISTING_FOLDER,
    MIRROR_OPTION,
    MODEL_OPTION,
    THREADS_OPTION,
    model_named,
    refuse_idle,
)
from bidsseg.errors import UserError


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
    "--learned-from",
    is_flag=True,
    help="Score instead scans that the network learned from: what it does better there is memory.",
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
    standard, of_patients, of_lesions = (chosen.pop(name) for name in ("standard", "patients", "lesions"))
    _refuse_idle_of(standard, of_patients, of_lesions, chosen["slice_mm"] != 1 or chosen["slices"] > 0)
    if chosen["learned_from"]:
        wrong = "would mix up scans that the network learned from with others; leave out --learned-from or this"
        refuse_idle(("standard", "patients", "lesions", "card", "readme"), wrong)
    from bidsseg.cli.scores import Judged, evaluate_lesions, evaluate_patients, evaluate_scans
    from bidsseg.evaluation.scores import STANDARD_CONDITIONS, Condition, write_scores
    from bidsseg.network.inference import PredictOptions

    judged = Judged(data, chosen.pop("model"), chosen.pop("card"), readme, chosen.pop("learned_from"))
    options = PredictOptions(chosen.pop("device"), chosen.pop("threads"), mirror=chosen.pop("mirror"))
    lesion_model, corrected = chosen.pop("lesion_model"), chosen.pop("bias_correction")
    if of_lesions:
        evaluate_lesions(judged, lesion_model)
        return
    if standard or not of_patients:
        conditions = STANDARD_CONDITIONS if standard else (Condition(**chosen),)
        found = evaluate_scans(judged, conditions, schemes or ("regions", "lobar"), options, corrected)
        if output:
            write_scores(output, found)
    if standard or of_patients:
        evaluate_patients(judged, options)


OF_SCANS = ("slice_mm", "axis", "contrast", "slices", "gain")
"What ``evaluate`` does to scans."


def _refuse_idle_of(standard: bool, of_patients: bool, of_lesions: bool, in_slices: bool) -> None:
    """Refuse what would change nothing of what is evaluated."""
    if of_lesions:
        others = ("bias_correction", "standard", "patients", "schemes", "output", "mirror", "device", "threads")
        refuse_idle((*OF_SCANS, *others), "changes nothing of --lesions; leave out one of the two")
        return
    refuse_idle(("lesion_model",), "is for --lesions; give that as well, or leave this out")
    if standard:
        refuse_idle(OF_SCANS, "changes nothing of --all, which has its own conditions; leave out one of the two")
    elif of_patients:
        refuse_idle(
            (*OF_SCANS, "bias_correction", "schemes", "output"),
            "changes nothing of --patients; leave out one of the two",
        )
    elif not in_slices:
        refuse_idle(("axis",), "is for slices; give --simulate-slices or --slices as well, or leave this out")


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
    if fit_only:
        refuse_idle(("workers", "device"), "is for segmenting; leave it or --fit-only out")
    from bidsseg.cli.scores import print_clinical, print_trials
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
    print_trials(by_scan)
    print_clinical(judged)
    for name, found in calibration.about.items():
        click.echo(f"{name}: {found}" if not isinstance(found, dict) else f"{name}:")
        for key, value in found.items() if isinstance(found, dict) else ():
            click.echo(f"  {key}: {value}")
    if card:
        set_quality(folder_of(model), calibration.as_json())
    if chosen["readme"]:
        judged_by = replace(read_card(folder_of(model)), quality=calibration.as_json())
        write_readme(chosen["readme"], quality_table(judged_by), QUALITY_MARKS)
