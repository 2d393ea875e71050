"""``brainseg-cli``: label single scans, try the demo, train and evaluate. Heavy imports stay inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bidsseg import __version__
from bidsseg.errors import UserError

if TYPE_CHECKING:
    from bidsseg.labels import Scheme
    from bidsseg.weights import Model

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
MODEL_OPTION = click.option("--model", default=None, help="Name of a packaged model or a folder with weights and card.")
DEVICE_OPTION = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
THREADS_OPTION = click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 takes all.")


@dataclass(frozen=True)
class Request:
    """What ``predict`` does with every scan; fields are its options."""

    seg: Scheme
    bias_correction: bool
    picture: bool
    device: str
    threads: int


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="brainseg-cli")
def main() -> None:
    """Label the brain regions of any MRI scan, on the scan's own grid."""


def _fail(error: UserError) -> None:
    click.echo(f"error: {error}", err=True)


def _load_model(name: str | None) -> Model:
    from bidsseg.card import DEFAULT_MODEL
    from bidsseg.weights import load_model

    return load_model(name or DEFAULT_MODEL)


@main.command()
@click.argument("scans", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SCAN...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="One scan: the label image (seg.nii.gz); several: a folder. Default: <scan>_dseg.nii.gz beside the scan.",
)
@click.option("--seg", type=click.Choice(["regions", "lobes", "gyri"]), default="regions", show_default=True)
@click.option("--bias-correction", is_flag=True, help="Run N4 first; rarely needed, the network has seen bias fields.")
@click.option("--picture/--no-picture", default=True, help="Write a PNG mosaic beside the labels.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def predict(scans: tuple[Path, ...], output: Path | None, quiet: bool, model: str | None, **chosen: Any) -> None:
    """Label scans; volumes (TSV), brain mask and a picture lie beside each label image.

    \b
    brainseg-cli predict scan.nii.gz -o seg.nii.gz
    brainseg-cli predict *_FLAIR.nii.gz -o labels/ --seg lobes
    """
    from bidsseg.inference import choose_device

    request = Request(**chosen)
    try:
        targets = _targets(scans, output)
        choose_device(request.device)
        loaded = _load_model(model)
    except UserError as error:
        _fail(error)
        sys.exit(EXIT_USAGE)
    failed = 0
    for scan, target in _tracked(list(zip(scans, targets, strict=True)), quiet):
        try:
            _predict_one(scan, target, loaded, request)
        except UserError as error:
            _fail(error)
            failed += 1
        else:
            if not quiet:
                click.echo(target)
    sys.exit(EXIT_SOME_FAILED if failed else 0)


def _targets(scans: tuple[Path, ...], output: Path | None) -> list[Path]:
    """The label image of every scan; raises ``UserError`` where two would be one file or one would hide its scan."""
    if len(scans) == 1 and output is not None and not output.is_dir():
        if not output.name.endswith((".nii", ".nii.gz")):
            raise UserError(f"{output}: not a NIfTI name; end it in .nii.gz, or create the folder first")
        targets = [output]
    else:
        targets = [(output or scan.parent) / f"{stem_of(scan)}_dseg.nii.gz" for scan in scans]
    for target, scan in zip(targets, scans, strict=True):
        if target.resolve() == scan.resolve():
            raise UserError(f"{target}: is the scan itself; choose another output")
    twice = {str(target) for target in targets if targets.count(target) > 1}
    if twice:
        raise UserError(f"{min(twice)}: several scans would be written here; run them into different folders")
    return targets


def stem_of(path: Path) -> str:
    """A NIfTI file's name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _tracked(items: list[tuple[Path, Path]], quiet: bool) -> Iterable[tuple[Path, Path]]:
    if quiet or len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "Labelling", console=Console(stderr=True))


def _predict_one(scan: Path, target: Path, model: Model, request: Request) -> None:
    from bidsseg.bias import correct_bias
    from bidsseg.image import load, save
    from bidsseg.inference import PredictOptions
    from bidsseg.pictures import mosaic
    from bidsseg.predict import segment
    from bidsseg.segmentation import brain_mask, labels, write_volumes

    image = load(scan)
    for warning in image.warnings:
        click.echo(f"warning: {scan}: {warning}", err=True)
    corrected = correct_bias(image, request.threads or 2) if request.bias_correction else image
    options = PredictOptions(request.device, request.threads, gyri=request.seg == "gyri")
    found = segment(corrected, model, options)
    codes = labels(found, request.seg)
    beside = target.with_name(stem_of(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save(beside.with_name(beside.name + "_mask.nii.gz"), brain_mask(found), image.affine, image)
        write_volumes(beside.with_name(beside.name + "_volumes.tsv"), found, (request.seg,))
        if request.picture:
            mosaic(beside.with_name(beside.name + ".png"), image, codes, request.seg)
        save(target, codes, image.affine, image)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); free space or choose another -o") from error


@main.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--mask", required=True, type=click.Path(path_type=Path), help="Lesion mask, on the scan's grid or another."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default: beside the scan.")
@click.option("--threshold", type=float, default=0.5, show_default=True, help="For probabilistic masks.")
@click.option("--min-volume", "min_volume_mm3", type=float, default=14.0, show_default=True, help="In mm3.")
@click.option("--tolerance", "tolerance_mm", type=float, default=1.5, show_default=True, help="Of contact, in mm.")
@click.option("--bands", "bands_mm", type=float, multiple=True, help="Edges of distance bands from the ventricles, mm.")
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def lesions(scan: Path, mask: Path, output: Path | None, model: str | None, **chosen: Any) -> None:
    """Describe the lesions of MASK: regions, zones, distances, load per region (TSV and label images).

    \b
    brainseg-cli lesions FLAIR.nii.gz --mask lesions.nii.gz -o tables/ --bands 3 --bands 10
    """
    from bidsseg.image import load
    from bidsseg.inference import PredictOptions
    from bidsseg.lesion_options import LesionOptions
    from bidsseg.lesion_pictures import zone_mosaic
    from bidsseg.lesion_report import findings
    from bidsseg.lesion_tables import write_lesions
    from bidsseg.lesions import lesion_features
    from bidsseg.predict import segment

    predicting = PredictOptions(chosen.pop("device"), chosen.pop("threads"))
    options = LesionOptions(**chosen)
    try:
        image, lesion_mask = load(scan), load(mask, uniform_ok=True)
        report = lesion_features(image, lesion_mask, segment(image, _load_model(model), predicting), options)
        base = (output or scan.parent) / stem_of(scan)
        written = [*write_lesions(report, image, base), base.with_name(f"{base.name}_desc-lesions_dseg.png")]
        zone_mosaic(written[-1], image, report)
    except UserError as error:
        _fail(error)
        sys.exit(EXIT_SOME_FAILED)
    for warning in (*image.warnings, *report.warnings):
        click.echo(f"warning: {warning}", err=True)
    click.echo(findings(report.lesions, options))
    for path in written:
        click.echo(path)


@main.command()
@click.argument("out", type=click.Path(path_type=Path), default=Path("bidsseg-demo"))
def demo(out: Path) -> None:
    """Make a small BIDS dataset from a packaged scan, run the BIDS App on it, say where the pictures are."""
    from bidsseg.demo import run_demo

    try:
        run_demo(out)
    except UserError as error:
        _fail(error)
        sys.exit(EXIT_SOME_FAILED)


@main.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--hours", type=float, default=2.0, show_default=True, help="Training time in all, over every resume.")
@click.option("--learning-rate", type=float, default=None, help="Peak learning rate.")
@click.option("--init", default=None, metavar="MODEL", help="Start from these weights rather than random ones.")
@click.option(
    "--difficulty", type=(float, float, float), default=None, help="Of the samples at first, at their peak, at the end."
)
@click.option("--balance", type=(float, float), default=None, help="Class weights' exponent, first and last.")
@click.option("--steps", type=click.IntRange(0), default=0, help="End after this many steps, whatever the hours.")
@click.option("--picture-minutes", type=float, default=15.0, show_default=True, help="Picture of a held-out scan.")
@THREADS_OPTION
def train(
    data: Path,
    out: Path,
    hours: float,
    init: str | None,
    picture_minutes: float,
    threads: int,
    **chosen: Any,
) -> None:
    """Train on DATA (see the README for its folders); checkpoints, log and finished model go to OUT.

    Running the same command again resumes. The finished model is OUT/model.
    """
    import logging

    from bidsseg.train.data import load_lesions, load_subjects
    from bidsseg.train.loop import Run, export, train
    from bidsseg.train.monitor import Monitor
    from bidsseg.train.options import TrainOptions

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = {name: value for name, value in chosen.items() if value is not None}
    options = TrainOptions(hours=hours, threads=threads or 2, **given)
    start = None
    try:
        start = _load_model(init) if init else None
    except UserError as error:
        _fail(error)
        sys.exit(EXIT_USAGE)
    run = Run(load_subjects(data, out / "cache"), load_lesions(data), out, options=options)
    if start is not None:
        run = replace(run, config=start.net.config, weights=start.net.state_dict())
    with closing(Monitor(data, out, picture_minutes)) as monitor:
        state = train(run, monitor)
    earlier = start.card.about.get("training", {}).get("runs", ()) if start else ()
    export(state, out / "model", options, earlier)


@main.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("--simulate-slices", "slice_mm", type=float, default=1.0, help="Thickness of simulated slices in mm.")
@click.option("--axis", type=click.Choice(["axial", "coronal", "sagittal"]), default="axial", show_default=True)
@click.option("--contrast", type=click.Choice(["as-is", "inverted", "flair"]), default="as-is", show_default=True)
@click.option("--slices", type=click.IntRange(0), default=0, help="Keep only this many slices amid the brain.")
@click.option("--all", "standard", is_flag=True, help="Instead, every condition of the card, one after the other.")
@click.option("--seg", "schemes", multiple=True, type=click.Choice(["regions", "lobar", "gyri"]), help="What to score.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="TSV with one row per scan and label.")
@click.option("--card", is_flag=True, help="Write the means into the model's card.")
@click.option(
    "--readme", type=click.Path(exists=True, path_type=Path), help="Put the card's accuracy into this file too."
)
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def evaluate(data: Path, schemes: tuple[str, ...], output: Path | None, readme: Path | None, **chosen: Any) -> None:
    """Score a model on the held-out scans of DATA (never used for training)."""
    from bidsseg.card import DEFAULT_MODEL, add_accuracy, folder_of, write_readme
    from bidsseg.evaluate import STANDARD_CONDITIONS, Condition, summary, validation_cases, write_scores
    from bidsseg.evaluate import evaluate as score
    from bidsseg.inference import PredictOptions

    card, model, standard = chosen.pop("card"), chosen.pop("model"), chosen.pop("standard")
    options = PredictOptions(chosen.pop("device"), chosen.pop("threads"))
    found: dict[str, list[Any]] = {}
    for condition in STANDARD_CONDITIONS if standard else (Condition(**chosen),):
        try:
            scores = score(
                validation_cases(data), _load_model(model), condition, schemes or ("regions", "lobar"), options
            )
        except UserError as error:
            _fail(error)
            sys.exit(EXIT_SOME_FAILED)
        _print_scores(condition.name, scores)
        found[condition.name] = scores
        if card or readme:
            measured = add_accuracy(folder_of(model or DEFAULT_MODEL), condition.name, summary(scores))
            if readme:
                write_readme(readme, measured)
    if output:
        write_scores(output, found)


def _print_scores(title: str, scores: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from bidsseg.evaluate import label_means, summary

    table = Table(title=title)
    for column in ("labels", "name", "Dice", "95 % Hausdorff, mm"):
        table.add_column(column, justify="left" if column in ("labels", "name") else "right")
    for scheme, name, dice, hd95 in label_means(scores):
        table.add_row(scheme, name, f"{dice:.3f}", f"{hd95:.2f}")
    for scheme, means in summary(scores).items():
        table.add_row(scheme, "[bold]mean[/bold]", f"[bold]{means['dice']:.4f}[/bold]", f"{means['hd95_mm']:.2f}")
    Console().print(table)


@main.command()
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
    from bidsseg.calibration import calibrate as fit
    from bidsseg.card import DEFAULT_MODEL, folder_of, set_quality
    from bidsseg.evaluate import validation_cases
    from bidsseg.inference import PredictOptions
    from bidsseg.study import read_trials, run_study

    loaded = _load_model(model)
    if fit_only:
        done = [trial for trial in read_trials(trials) if trial.weights_sha256 == loaded.card.sha256]
    else:
        options = PredictOptions(device, threads)
        done = run_study(validation_cases(data), loaded, trials, options, lambda trial: click.echo(trial.line))
    if len({trial.scan for trial in done}) < 2:
        _fail(UserError(f"{trials}: needs trials of at least two scans with these weights; leave out --fit-only"))
        sys.exit(EXIT_SOME_FAILED)
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


@main.command()
@click.argument("data", type=EXISTING_FOLDER)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: the package's own table.")
def reference(data: Path, output: Path | None) -> None:
    """Measure the label maps of DATA that a model learns from: usual volumes, asymmetries and places of all labels."""
    import logging

    import bidsseg
    from bidsseg.files import table, write_text
    from bidsseg.train.reference import COLUMNS, reference_table

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path = output or Path(bidsseg.__file__).parent / "tables" / "reference_volumes.tsv"
    write_text(path, table(COLUMNS, reference_table(data)))
    click.echo(path)


if __name__ == "__main__":
    main()
