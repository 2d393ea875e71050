"""Commands of ``brainseg-cli`` that make images for other programs. Heavy imports stay inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bidsseg.authorship import refuse_inputs, refuse_to_replace
from bidsseg.cli.options import (
    DEVICE_OPTION,
    MODEL_OPTION,
    OVERWRITE_OPTION,
    SERIES_OPTION,
    THREADS_OPTION,
    base_of,
    image_name,
    model_named,
)
from bidsseg.errors import ALONE, one_line_errors, plain
from bidsseg.files import all_whole, leftovers_of, remove_temporaries
from bidsseg.labels import SCHEMES, Scheme
from bidsseg.lesions.options import LesionOptions
from bidsseg.segmentation.defaults import BIAS_CORRECTION

if TYPE_CHECKING:
    from bidsseg.imaging.image import Image

THRESHOLD_OPTION = click.option(
    "--threshold", type=float, default=LesionOptions.threshold, show_default=True, help="For probabilistic masks."
)


@click.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--mask", required=True, type=click.Path(path_type=Path), help="Lesion mask, on the scan's grid or another."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: <scan>_filled.nii.gz beside the scan.")
@THRESHOLD_OPTION
@SERIES_OPTION
@OVERWRITE_OPTION
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def fill(scan: Path, mask: Path, output: Path | None, overwrite: bool, model: str | None, **chosen: Any) -> None:
    """Redraw the lesions of MASK in SCAN as normal-appearing white matter, for programs that know no lesions.

    \b
    brainseg-cli fill T1w.nii.gz --mask lesions.nii.gz -o T1w_filled.nii.gz
    """
    from bidsseg.imaging.image import load, save
    from bidsseg.lesions.filling import fill_lesions
    from bidsseg.lesions.masks import is_probability
    from bidsseg.network.inference import PredictOptions
    from bidsseg.segmentation.pipeline import segment

    base = base_of(scan, None)
    target = image_name(output or base.with_name(f"{base.name}_filled.nii.gz"))
    refuse_inputs([target], [scan, mask])
    if not overwrite:
        refuse_to_replace([target])
    with one_line_errors(str(mask), ALONE):
        lesions = load(mask, uniform_ok=True)
    with one_line_errors(str(scan), ALONE):
        image = load(scan, series=chosen["series"])
        options = PredictOptions(chosen["device"], chosen["threads"])
        segmentation = segment(image, model_named(model), options, BIAS_CORRECTION)
    with one_line_errors(str(mask), ALONE):
        filled = fill_lesions(image, lesions, segmentation, chosen["threshold"], is_probability(mask.name))
    save(target, filled.image.data, image.affine, image)
    _warn(scan, image)
    _warn(mask, lesions, *filled.warnings)
    click.echo(plain(f"{filled.voxels} voxels filled: {target}"))


@click.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option("--mask", type=click.Path(path_type=Path), help="Lesion mask, on the scan's grid or another: goes along.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default: beside the scan.")
@click.option("--seg", "scheme", type=click.Choice(SCHEMES), default="regions", show_default=True)
@THRESHOLD_OPTION
@SERIES_OPTION
@OVERWRITE_OPTION
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def normalize(scan: Path, mask: Path | None, output: Path | None, scheme: Scheme, **chosen: Any) -> None:
    """Bring SCAN, its labels and lesions to MNI152NLin2009aSym at 1 mm; with the transforms, both ways (ITK).

    \b
    brainseg-cli normalize FLAIR.nii.gz --mask lesions.nii.gz -o template/
    """
    from bidsseg.bids.outputs import TemplateOutputs
    from bidsseg.imaging.image import load
    from bidsseg.lesions.masks import is_probability, read_labels
    from bidsseg.network.inference import PredictOptions
    from bidsseg.segmentation.template import InTemplate, to_template
    from bidsseg.workflow.template_space import on_1mm, write_in_template

    written = TemplateOutputs(base_of(scan, output))
    files = [written.scan, written.labels(scheme), *([written.lesions] if mask else []), *written.transforms]
    refuse_inputs(files, [path for path in (scan, mask) if path is not None])
    if not chosen["overwrite"]:
        refuse_to_replace(files)
    lesions = None
    if mask is not None:
        with one_line_errors(str(mask), ALONE):
            lesions = load(mask, uniform_ok=True)
            read = read_labels(lesions.data, chosen["threshold"], is_probability(mask.name))
            _warn(mask, lesions, *read.warnings)
    with one_line_errors(str(scan), ALONE):
        image = load(scan, series=chosen["series"])
        options = PredictOptions(chosen["device"], chosen["threads"], gyri=scheme == "gyri")
        conformed, segmentation = on_1mm(image, model_named(chosen["model"]), options)
        deformation = to_template(segmentation)
        found = InTemplate.of(deformation)
        remove_temporaries(leftovers_of(files))
        with all_whole(files) as temporaries:
            masks = [] if lesions is None else [found.mask(read.labels > 0, lesions.affine)]
            grey = found.scan(conformed, segmentation.affine)
            write_in_template(temporaries, [grey, found.labels(segmentation, scheme), *masks], deformation)
    _warn(scan, image)
    for path in files:
        click.echo(plain(str(path)))


def _warn(path: Path, image: Image, *more: str) -> None:
    for warning in (*image.warnings, *more):
        click.echo(plain(f"warning: {path}: {warning}"), err=True)
