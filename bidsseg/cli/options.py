"""Options and error handling shared by the subcommands of ``brainseg-cli``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from bidsseg.cli.exit_codes import EXIT_SOME_FAILED
from bidsseg.cli.signals import ending_at_once
from bidsseg.errors import ALONE, FULL, UserError, full_disk, plain
from bidsseg.files import stem_of
from bidsseg.segmentation.defaults import BIAS_CORRECTION
from bidsseg.workflow.threads import waiting

if TYPE_CHECKING:
    from bidsseg.network.weights import Model

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
MODEL_OPTION = click.option("--model", default=None, help="Name of a packaged model or a folder with weights and card.")
DEVICE_OPTION = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
OUTPUT_FOLDER = click.Path(file_okay=False, path_type=Path)
PROBABILITY = click.FloatRange(0, 1, min_open=True)
THREADS_OPTION = click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 uses all.")

OVERWRITE_OPTION = click.option(
    "--overwrite", is_flag=True, help="Also replace files that bidsseg did not write, or that were changed since."
)
SERIES_OPTION = click.option(
    "--series", metavar="UID|NUMBER", help="Which of several DICOM series in a folder; without it, they are listed."
)
MIRROR_OPTION = click.option(
    "--mirror",
    is_flag=True,
    help="Also segment the mirror image and average: more accurate, but the network takes 1.5 times as long.",
)


def bias_correction_option(**how: Any) -> Callable[[Decorated], Decorated]:
    """``--bias-correction`` and its opposite; ``how`` goes to click."""
    flags, text = "--bias-correction/--no-bias-correction", "N4 before the segmentation."
    return click.option(flags, default=BIAS_CORRECTION, show_default=True, help=text, **how)


class OneLineErrors(click.Group):
    """Commands whose errors are one line each, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        os.environ.update(waiting())  # the commands import torch
        try:
            with ending_at_once():
                return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(plain(error.format_message()), error.ctx) from None
        except UserError as error:
            shown = error
        except OSError as error:
            shown = UserError(
                full_disk(error.filename, ALONE)
                if error.errno in FULL and error.filename
                else f"{error.filename or 'output'}: {error.strerror or error}; check free space and permissions"
            )
        fail(shown)
        sys.exit(EXIT_SOME_FAILED)


def refuse_idle(names: Collection[str], why: str) -> None:
    """Raise ``UsageError`` where one of these options was given, because it would change nothing."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} {why}", context)


def fail(error: UserError) -> None:
    click.echo(f"error: {error}", err=True)


def model_named(name: str | None) -> Model:
    from bidsseg.network.card import DEFAULT_MODEL
    from bidsseg.network.weights import load_model

    return load_model(name or DEFAULT_MODEL)


def image_name(output: Path) -> Path:
    """The file, if its name is that of an image we write; raises ``UserError`` for others."""
    if not output.name.endswith((".nii", ".nii.gz", ".mgz")):
        raise UserError(f"{output}: not a NIfTI name; end it in .nii.gz or .mgz, or create the folder first")
    return output


def base_of(scan: Path, folder: Path | None) -> Path:
    """Folder and first part of the names of what is written for a scan; beside it unless another folder is given."""
    named = scan if scan.name not in ("", "..") else scan.resolve()
    return (folder or named.parent) / (named.name if named.is_dir() else stem_of(named))
