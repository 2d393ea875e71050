"""``brainseg-cli``: label single scans, try the demo; and ``training``. Heavy imports stay inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bidsseg import __version__
from bidsseg.cli import training
from bidsseg.cli.options import (
    DEVICE_OPTION,
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    MIRROR_OPTION,
    MODEL_OPTION,
    THREADS_OPTION,
    OneLineErrors,
    fail,
    model_named,
)
from bidsseg.errors import ALONE, UserError, one_line_errors
from bidsseg.quality.verdicts import in_words, tally, verdict_of

if TYPE_CHECKING:
    from bidsseg.labels import Scheme
    from bidsseg.network.weights import Model


@dataclass(frozen=True)
class Request:
    """What ``predict`` does with every scan; fields are its options."""

    seg: Scheme
    mirror: bool
    bias_correction: bool
    picture: bool
    device: str
    threads: int

    def made_with(self, scan: Path, model: Model) -> dict[str, Any]:
        """For the quality file."""
        return {
            "Sources": [str(scan)],
            "SoftwareVersion": __version__,
            "Model": model.card.name,
            "WeightsSHA256": model.card.sha256,
            "BiasFieldCorrection": self.bias_correction,
            "LabelSchemes": [self.seg],
            "MirrorAveraging": self.mirror,
        }


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="brainseg-cli")
def main() -> None:
    """Label the brain regions of any MRI scan, on the scan's own grid."""


@main.command()
@click.argument("scans", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SCAN...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="One scan: the label image (seg.nii.gz); several: a folder. Default: <scan>_dseg.nii.gz beside the scan.",
)
@click.option("--seg", type=click.Choice(["regions", "lobes", "gyri"]), default="regions", show_default=True)
@MIRROR_OPTION
@click.option("--bias-correction", is_flag=True, help="Run N4 first; rarely needed, the network has seen bias fields.")
@click.option("--picture/--no-picture", default=True, help="Write a PNG mosaic beside the labels.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def predict(scans: tuple[Path, ...], output: Path | None, quiet: bool, model: str | None, **chosen: Any) -> None:
    """Label scans; volumes (TSV), brain mask, verdict (JSON) and a picture lie beside each label image.

    The verdict is also told: pass, check (look at the labels first) or fail, with its reasons.

    \b
    brainseg-cli predict scan.nii.gz -o seg.nii.gz
    brainseg-cli predict *_FLAIR.nii.gz -o labels/ --seg lobes
    """
    from bidsseg.network.inference import choose_device

    request = Request(**chosen)
    try:
        targets = _targets(scans, output)
        choose_device(request.device)
        loaded = model_named(model)
    except UserError as error:
        fail(error)
        sys.exit(EXIT_USAGE)
    failed, verdicts = 0, []
    for scan, target in _tracked(list(zip(scans, targets, strict=True)), quiet):
        try:
            with one_line_errors(str(scan), ALONE):
                quality = _predict_one(scan, target, loaded, request)
        except UserError as error:
            fail(error)
            failed += 1
        else:
            verdicts.append(verdict_of(quality))
            if not quiet:
                click.echo(target)
                click.echo(f"{scan}: {in_words(quality)}", err=True)
    if len(scans) > 1 and not quiet:
        click.echo(f"{len(verdicts)} done: {tally(verdicts)}" + (f"; {failed} failed" if failed else ""), err=True)
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


def _predict_one(scan: Path, target: Path, model: Model, request: Request) -> dict[str, Any]:
    """Label a scan and write everything beside ``target``; returns the content of its quality file."""
    from bidsseg.files import write_json
    from bidsseg.imaging.image import load, save
    from bidsseg.network.inference import PredictOptions
    from bidsseg.quality.assessment import assess, calibration_from, geometry, quality_file
    from bidsseg.quality.judgement import examine
    from bidsseg.report.mosaic import mosaic
    from bidsseg.segmentation.pipeline import answer, native, prepare
    from bidsseg.segmentation.result import brain_mask, labels, write_volumes

    image = load(scan)
    prepared = prepare(image, request.bias_correction, request.threads or 2)
    for warning in prepared.warnings:
        click.echo(f"warning: {scan}: {warning}", err=True)
    options = PredictOptions(request.device, request.threads, request.seg == "gyri", request.mirror)
    given = answer(prepared, model, options)
    evidence, found = examine(given, model, options), native(given, options.gyri)
    opinion = assess(evidence, geometry(image), calibration_from(model.card.quality))
    quality = quality_file((evidence, opinion), found, prepared.warnings, request.made_with(scan, model))
    codes = labels(found, request.seg)
    beside = target.with_name(stem_of(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save(beside.with_name(beside.name + "_mask.nii.gz"), brain_mask(found), image.affine, image)
        write_volumes(beside.with_name(beside.name + "_volumes.tsv"), found, (request.seg,), opinion.expected)
        write_json(beside.with_name(beside.name + "_qc.json"), quality)
        if request.picture:
            mosaic(beside.with_name(beside.name + ".png"), image, codes, request.seg)
        save(target, codes, image.affine, image)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); free space or choose another -o") from error
    return quality


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
    from bidsseg.imaging.image import load
    from bidsseg.lesions.describe import lesion_features
    from bidsseg.lesions.options import LesionOptions
    from bidsseg.lesions.records import findings
    from bidsseg.lesions.tables import write_lesions
    from bidsseg.network.inference import PredictOptions
    from bidsseg.report.lesion_mosaic import zone_mosaic
    from bidsseg.segmentation.pipeline import segment

    predicting = PredictOptions(chosen.pop("device"), chosen.pop("threads"))
    options = LesionOptions(**chosen)
    with one_line_errors(str(scan), ALONE):
        image, lesion_mask = load(scan), load(mask, uniform_ok=True)
        report = lesion_features(image, lesion_mask, segment(image, model_named(model), predicting), options)
        base = (output or scan.parent) / stem_of(scan)
        written = [*write_lesions(report, image, base), base.with_name(f"{base.name}_desc-lesions_dseg.png")]
        zone_mosaic(written[-1], image, report)
    for path, warnings in ((scan, image.warnings), (mask, (*lesion_mask.warnings, *report.warnings))):
        for warning in warnings:
            click.echo(f"warning: {path}: {warning}", err=True)
    click.echo(findings(report.lesions, options))
    for path in written:
        click.echo(path)


@main.command()
@click.argument("out", type=click.Path(path_type=Path), default=Path("bidsseg-demo"))
def demo(out: Path) -> None:
    """Make a small BIDS dataset from a packaged scan, run the BIDS App on it, say where the pictures are."""
    from bidsseg.cli.demo import run_demo

    run_demo(out)


for command in (training.train, training.evaluate, training.calibrate, training.reference):
    main.add_command(command)


if __name__ == "__main__":
    main()
