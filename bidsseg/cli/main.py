"""``brainseg-cli``: subcommands that label single scans and describe lesions. Heavy imports stay inside them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bidsseg import __version__
from bidsseg.cli import derived, evaluating, lesion_training, training
from bidsseg.cli.exit_codes import CLI_USAGE, EXIT_SOME_FAILED
from bidsseg.cli.options import (
    DEVICE_OPTION,
    MIRROR_OPTION,
    MODEL_OPTION,
    OUTPUT_FOLDER,
    OVERWRITE_OPTION,
    PROBABILITY,
    SERIES_OPTION,
    THREADS_OPTION,
    OneLineErrors,
    base_of,
    bias_correction_option,
    fail,
    image_name,
    model_named,
    refuse_idle,
)
from bidsseg.errors import ALONE, UserError, one_line_errors, plain
from bidsseg.lesions.options import LesionOptions
from bidsseg.network.device import choose_device
from bidsseg.quality.verdicts import in_words, tally, verdict_of

if TYPE_CHECKING:
    from bidsseg.workflow.single_reading import ReadScan, SingleScanOptions


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
    help="With one scan, the label image (seg.nii.gz, seg.mgz); with several, a folder. Default: <scan>_dseg.nii.gz "
    "beside the scan.",
)
@SERIES_OPTION
@click.option(
    "--dicom-seg",
    type=click.Path(path_type=Path),
    metavar="FILE.dcm",
    help="Also write the labels of a DICOM series as a DICOM segmentation of it (needs the extra bidsseg[dicom]).",
)
@click.option(
    "--seg",
    type=click.Choice(["regions", "lobes", "gyri"]),
    default="regions",
    show_default=True,
    help="Scheme of the labels.",
)
@MIRROR_OPTION
@bias_correction_option()
@click.option("--picture/--no-picture", default=True, help="Write a PNG mosaic beside the labels.")
@OVERWRITE_OPTION
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def predict(scans: tuple[Path, ...], output: Path | None, quiet: bool, model: str | None, **chosen: Any) -> None:
    """Label scans, and write volumes (TSV), a brain mask, the verdict (JSON) and a picture beside each label image.

    A scan is a NIfTI, MGZ, NRRD, MetaImage or Analyze file, or a folder with a DICOM series.

    The verdict is also printed: pass, check (look at the labels first) or fail, with its reasons.

    Results of an earlier run are replaced, and are never taken for scans. Other files are not replaced.

    \b
    brainseg-cli predict scan.nii.gz -o seg.nii.gz
    brainseg-cli predict *_FLAIR.nii.gz -o labels/ --seg lobes
    brainseg-cli predict DICOM/ -o seg.nii.gz --series 3 --dicom-seg seg.dcm
    """
    from bidsseg.workflow.single_reading import SingleScanOptions, read_scan

    options = SingleScanOptions(scheme=chosen.pop("seg"), **chosen)
    try:
        _check_dicom_seg(scans, options)
        targets = _targets(scans, output, options)
        first = next(iter(targets))
        pool = ThreadPoolExecutor(1)  # while torch is imported, which takes about as long; Ctrl-C is not to wait for it
        reading = {first: pool.submit(read_scan, first, targets[first], options)}
        from bidsseg.workflow.single_scan import label_read_scan

        choose_device(options.device)
        loaded = model_named(model)
    except UserError as error:
        fail(error)
        sys.exit(CLI_USAGE)

    def read(scan: Path, target: Path) -> ReadScan:
        return reading.pop(scan).result() if scan in reading else read_scan(scan, target, options)

    verdicts = []
    failed = 0
    for scan, target in _tracked(list(targets.items()), quiet):
        try:
            with one_line_errors(str(scan), ALONE):
                quality = label_read_scan(read(scan, target), scan, target, loaded, options)
        except UserError as error:
            fail(error)
            failed += 1
        else:
            for warning in quality["Warnings"]:
                click.echo(plain(f"warning: {scan}: {warning}"), err=True)
            verdicts.append(verdict_of(quality))
            if not quiet:
                click.echo(plain(str(target)))
                click.echo(plain(f"{scan}: {in_words(quality)}"), err=True)
    if len(scans) > 1 and not quiet:
        click.echo(f"{len(verdicts)} done: {tally(verdicts)}" + (f"; {failed} failed" if failed else ""), err=True)
    sys.exit(EXIT_SOME_FAILED if failed else 0)


def _targets(given: tuple[Path, ...], output: Path | None, options: SingleScanOptions) -> dict[Path, Path]:
    """The label image of every scan; results of an earlier run are left out where other scans remain.

    Raises ``UserError`` where one file would be written twice, or would replace a scan.
    """
    from bidsseg.authorship import is_our_label_image, refuse_inputs

    results = [path for path in given if is_our_label_image(path)] if len(given) > 1 else []
    scans = [path for path in given if path not in results]
    for path in results if scans else ():
        click.echo(plain(f"{path}: left out, because it holds labels written by bidsseg"), err=True)
    targets = dict(zip(scans, _labels_of(scans or list(given), output), strict=True))
    itself = [target for scan, target in targets.items() if os.path.realpath(target) == os.path.realpath(scan)]
    if itself:
        raise UserError(f"{itself[0]}: this output is the scan itself; choose another output")
    written = [path for target in targets.values() for path in options.files_of(target)]
    twice = {str(path) for path in written if written.count(path) > 1}
    if twice:
        raise UserError(
            f"{min(twice)}: the results of several scans would be written here; use different output folders"
        )
    refuse_inputs(written, scans)
    return targets


def _check_dicom_seg(scans: tuple[Path, ...], options: SingleScanOptions) -> None:
    """Raise ``UserError`` where a DICOM segmentation is asked for and could not be written, before work is done."""
    if options.dicom_seg is None:
        return
    from bidsseg.imaging.dicom_seg import check_can_write

    check_can_write()
    if options.dicom_seg.suffix != ".dcm":
        raise UserError(f"{options.dicom_seg}: not a DICOM name; end it in .dcm")
    if len(scans) > 1:
        raise UserError("--dicom-seg names one file; give one scan at a time")
    if not scans[0].is_dir():
        raise UserError(f"{scans[0]}: not a folder; --dicom-seg is for a DICOM series")


def _labels_of(scans: list[Path], output: Path | None) -> list[Path]:
    if len(scans) == 1 and output is not None and not output.is_dir():
        return [image_name(output)]
    return [base_of(scan, output).with_name(f"{base_of(scan, output).name}_dseg.nii.gz") for scan in scans]


def _tracked(items: list[tuple[Path, Path]], quiet: bool) -> Iterable[tuple[Path, Path]]:
    if quiet or len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "Labelling", console=Console(stderr=True))


@main.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Lesion mask, on the scan's grid or another. Without a mask, lesions are found in FLAIR.",
)
@SERIES_OPTION
@click.option("-o", "--output", type=OUTPUT_FOLDER, help="Folder for the results. Default: beside the scan.")
@click.option(
    "--lesion-threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Lowest probability that counts as a found lesion. Default: chosen on validation patients.",
)
@click.option("--probseg", is_flag=True, help="Also write the probabilities of found lesions.")
@click.option(
    "--threshold",
    type=PROBABILITY,
    default=LesionOptions.threshold,
    show_default=True,
    help="Lowest probability that counts as lesion, in probabilistic masks.",
)
@click.option(
    "--min-volume",
    "min_volume_mm3",
    type=click.FloatRange(0),
    default=LesionOptions.min_volume_mm3,
    show_default=True,
    help="Smallest volume of a lesion in mm3.",
)
@click.option(
    "--tolerance",
    "tolerance_mm",
    type=click.FloatRange(0),
    default=LesionOptions.tolerance_mm,
    show_default=True,
    help="Largest gap in mm at which a lesion touches the ventricles.",
)
@click.option(
    "--bands",
    "bands_mm",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    help="Edge of a band of distance from the ventricles, in mm.",
)
@bias_correction_option()
@OVERWRITE_OPTION
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def lesions(scan: Path, output: Path | None, model: str | None, device: str, threads: int, **chosen: Any) -> None:
    """Find the lesions of a FLAIR scan, or take those of a mask, and describe them.

    Writes tables and label images with regions, zones, distances and the load of each region, a picture, and the mask
    of the lesions that were found. Scan and mask are NIfTI, MGZ, NRRD, MetaImage or Analyze files, or folders with a
    DICOM series each. Findings are not a diagnosis.

    \b
    brainseg-cli lesions FLAIR.nii.gz -o lesions/
    brainseg-cli lesions FLAIR.nii.gz --mask mask.nii.gz -o lesions/ --bands 3 --bands 10
    """
    from bidsseg.lesions.records import findings, load_in_words
    from bidsseg.network.inference import PredictOptions
    from bidsseg.workflow.single_lesions import SingleLesionOptions, describe_scan

    if chosen["mask"] is None:
        refuse_idle(("threshold",), "is for the lesions of a --mask; for found lesions, give --lesion-threshold")
    else:
        refuse_idle(
            ("lesion_threshold", "probseg"), "is for lesions that the network finds; leave out this option or --mask"
        )
    described = LesionOptions(
        **{name: chosen.pop(name) for name in ("threshold", "min_volume_mm3", "tolerance_mm", "bands_mm")}
    )
    options = SingleLesionOptions(
        found_threshold=chosen.pop("lesion_threshold"),
        described=described,
        predicting=PredictOptions(device, threads),
        **chosen,
    )
    found = describe_scan(scan, base_of(scan, output), model_named(model), options)
    for path, warning in found.warnings:
        click.echo(plain(f"warning: {path}: {warning}"), err=True)
    click.echo(plain(f"{scan}: {found.verdict}"), err=True)
    load_ml = sum(lesion.volume_mm3 for lesion in found.report.lesions) / 1000
    load = load_in_words(load_ml, found.expected_error_ml)
    click.echo(f"{len(found.report.lesions)} lesions, {load}; {findings(found.report.lesions, described)}")
    for path in found.files:
        click.echo(plain(str(path)))


@main.command()
@click.argument("out", type=click.Path(path_type=Path), default=Path("bidsseg-demo"))
def demo(out: Path) -> None:
    """Make a small BIDS dataset from a packaged scan, run the BIDS App on it, and print where the pictures are."""
    from bidsseg.cli.demo import run_demo

    run_demo(out)


for command in (
    lesion_training.train_lesions,
    derived.fill,
    derived.normalize,
    training.train,
    training.pack,
    evaluating.evaluate,
    evaluating.calibrate,
    training.reference,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
