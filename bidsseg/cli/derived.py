"""Commands of ``brainseg-cli`` that make images for other programs. Heavy imports stay inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bidsseg.cli.options import DEVICE_OPTION, MODEL_OPTION, OVERWRITE_OPTION, THREADS_OPTION, model_named, nifti_name
from bidsseg.errors import ALONE, one_line_errors, plain
from bidsseg.files import stem_of
from bidsseg.labels import Scheme
from bidsseg.lesions.options import LesionOptions
from bidsseg.segmentation.defaults import BIAS_CORRECTION_OF_SINGLE_SCANS


@click.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--mask", required=True, type=click.Path(path_type=Path), help="Lesion mask, on the scan's grid or another."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: <scan>_filled.nii.gz beside the scan.")
@click.option(
    "--threshold", type=float, default=LesionOptions.threshold, show_default=True, help="For probabilistic masks."
)
@OVERWRITE_OPTION
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def fill(scan: Path, mask: Path, output: Path | None, overwrite: bool, model: str | None, **chosen: Any) -> None:
    """Redraw the lesions of MASK in SCAN as normal-appearing white matter, for programs that know no lesions.

    \b
    brainseg-cli fill T1w.nii.gz --mask lesions.nii.gz -o T1w_filled.nii.gz
    """
    from bidsseg.authorship import refuse_inputs, refuse_to_replace
    from bidsseg.imaging.image import load, save
    from bidsseg.lesions.filling import fill_lesions
    from bidsseg.lesions.masks import is_probability
    from bidsseg.network.inference import PredictOptions
    from bidsseg.segmentation.pipeline import segment

    target = nifti_name(output or scan.with_name(f"{stem_of(scan)}_filled.nii.gz"))
    refuse_inputs([target], [scan, mask])
    if not overwrite:
        refuse_to_replace([target])
    with one_line_errors(str(mask), ALONE):
        lesions = load(mask, uniform_ok=True)
    with one_line_errors(str(scan), ALONE):
        image = load(scan)
        options = PredictOptions(chosen["device"], chosen["threads"])
        segmentation = segment(image, model_named(model), options, BIAS_CORRECTION_OF_SINGLE_SCANS)
    with one_line_errors(str(mask), ALONE):
        filled = fill_lesions(image, lesions, segmentation, chosen["threshold"], is_probability(mask.name))
    save(target, filled.image.data, image.affine, image)
    for path, warnings in ((scan, image.warnings), (mask, (*lesions.warnings, *filled.warnings))):
        for warning in warnings:
            click.echo(plain(f"warning: {path}: {warning}"), err=True)
    click.echo(plain(f"{filled.voxels} voxels filled: {target}"))


@click.command()
@click.argument("scan", type=click.Path(path_type=Path))
@click.option("--mask", type=click.Path(path_type=Path), help="Lesion mask, which goes along.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder; default: beside the scan.")
@click.option("--seg", type=click.Choice(["regions", "lobes", "gyri"]), default="regions", show_default=True)
@OVERWRITE_OPTION
@MODEL_OPTION
@DEVICE_OPTION
@THREADS_OPTION
def normalize(scan: Path, mask: Path | None, output: Path | None, seg: Scheme, overwrite: bool, **chosen: Any) -> None:
    """Bring SCAN, its labels and lesions to MNI152NLin2009aSym at 1 mm; with the transforms, both ways (ITK).

    \b
    brainseg-cli normalize FLAIR.nii.gz --mask lesions.nii.gz -o template/
    """
    from bidsseg.authorship import refuse_inputs, refuse_to_replace
    from bidsseg.files import all_whole, leftovers_of, remove_temporaries
    from bidsseg.imaging.image import load
    from bidsseg.network.inference import PredictOptions
    from bidsseg.segmentation.normalised import normalised, normalised_files, write_normalised

    files = normalised_files((output or scan.parent) / stem_of(scan), seg, mask is not None)
    refuse_inputs(files, [scan, *([mask] if mask else [])])
    if not overwrite:
        refuse_to_replace(files)
    options = PredictOptions(chosen["device"], chosen["threads"], gyri=seg == "gyri")
    lesions = None
    if mask is not None:
        with one_line_errors(str(mask), ALONE):
            lesions = load(mask, uniform_ok=True)
    with one_line_errors(str(scan), ALONE):
        image = load(scan)
        found = normalised(image, model_named(chosen["model"]), options)
        remove_temporaries(leftovers_of(files))
        with all_whole(files) as temporaries:
            write_normalised(temporaries, found, seg, lesions)
    for warning in image.warnings:
        click.echo(plain(f"warning: {scan}: {warning}"), err=True)
    for path in files:
        click.echo(plain(str(path)))
