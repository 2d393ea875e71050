"""Commands of ``brainseg-cli`` that make images for other programs. Heavy imports stay inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bidsseg.cli.options import (
    DEVICE_OPTION,
    MODEL_OPTION,
    OUTPUT_FOLDER,
    OVERWRITE_OPTION,
    PROBABILITY,
    SERIES_OPTION,
    THREADS_OPTION,
    Decorated,
    base_of,
    image_name,
    model_named,
    refuse_idle,
)
from bidsseg.errors import plain
from bidsseg.lesions.options import LesionOptions

if TYPE_CHECKING:
    from bidsseg.labels import Scheme
    from bidsseg.workflow.derived import Request

THRESHOLD_OPTION = click.option(
    "--threshold",
    type=PROBABILITY,
    default=LesionOptions.threshold,
    show_default=True,
    help="For probabilistic masks.",
)


def with_labels_and_mask(command: Decorated) -> Decorated:
    """The options of a command that labels a scan and reads a mask of its lesions."""
    shared = (THRESHOLD_OPTION, SERIES_OPTION, OVERWRITE_OPTION, MODEL_OPTION, DEVICE_OPTION, THREADS_OPTION)
    for option in reversed(shared):  # the last decorator that is applied comes first in the help
        command = option(command)
    return command


@click.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--mask", required=True, type=click.Path(path_type=Path), help="Lesion mask, on the scan's grid or another."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File, or folder for <scan>_filled.nii.gz. Default: beside the scan.",
)
@with_labels_and_mask
def fill(scan: Path, mask: Path, output: Path | None, model: str | None, **chosen: Any) -> None:
    """Redraw the lesions of MASK in SCAN as normal-appearing white matter, for programs that cannot handle lesions.

    \b
    brainseg-cli fill T1w.nii.gz --mask lesions.nii.gz -o T1w_filled.nii.gz
    """
    from bidsseg.workflow.derived import fill_scan

    named = output is not None and not output.is_dir()
    base = base_of(scan, None if named else output)
    target = image_name(output if named and output else base.with_name(f"{base.name}_filled.nii.gz"))
    voxels, warnings = fill_scan(_request(scan, mask, **chosen), target, model_named(model))
    _warn(warnings)
    click.echo(plain(f"{voxels} voxels filled: {target}"))


@click.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--mask",
    type=click.Path(path_type=Path),
    help="Lesion mask, on the scan's grid or another, which is transformed as well.",
)
@click.option("-o", "--output", type=OUTPUT_FOLDER, help="Folder; default: beside the scan.")
@click.option("--seg", "scheme", type=click.Choice(["regions", "lobes", "gyri"]), default="regions", show_default=True)
@with_labels_and_mask
def normalize(
    scan: Path, mask: Path | None, output: Path | None, scheme: Scheme, model: str | None, **chosen: Any
) -> None:
    """Transform SCAN, its labels and lesions to MNI152NLin2009aSym at 1 mm; also write the transforms (ITK).

    \b
    brainseg-cli normalize FLAIR.nii.gz --mask lesions.nii.gz -o template/
    """
    from bidsseg.workflow.derived import normalise_scan

    if mask is None:
        refuse_idle(("threshold",), "is for the lesions of a mask; give --mask, or leave out this option")
    request = _request(scan, mask, gyri=scheme == "gyri", **chosen)
    files, warnings = normalise_scan(request, base_of(scan, output), scheme, model_named(model))
    _warn(warnings)
    for path in files:
        click.echo(plain(str(path)))


def _request(scan: Path, mask: Path | None, device: str, threads: int, gyri: bool = False, **chosen: Any) -> Request:
    from bidsseg.network.inference import PredictOptions
    from bidsseg.workflow.derived import Request

    return Request(scan, mask, predicting=PredictOptions(device, threads, gyri), **chosen)


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(plain(f"warning: {warning}"), err=True)
