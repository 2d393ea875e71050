"""The BIDS App ``bidsseg``: its options and exit codes; ``workflow`` does the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from bidsseg import __version__
from bidsseg.bids.dataset import InvalidDataset, NothingSelected
from bidsseg.bids.participant_groups import MOST_GROUPS
from bidsseg.cli.exit_codes import (
    APP_USAGE,
    EXIT_CANNOT_WRITE,
    EXIT_DEFECT,
    EXIT_INTERRUPTED,
    EXIT_INVALID_BIDS,
    EXIT_LESIONS_FAILED,
    EXIT_NOTHING_SELECTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
)
from bidsseg.cli.options import PROBABILITY, bias_correction_option, refuse_idle
from bidsseg.cli.signals import Terminated, cleaning_up_when_terminated
from bidsseg.errors import FULL, Defect, UserError, full_disk, plain
from bidsseg.lesions.options import LesionOptions
from bidsseg.spaces import TEMPLATE

EXIT_CODES = """\b
Exit codes:
    0  everything succeeded
    1  some scans failed; the others are done
   16  BIDS_DIR is not a BIDS dataset
   18  no scan matches the selection
   64  wrong usage: an invalid option or value, or a missing file
   65  all scans are segmented, but some lesion masks could not be used
   70  a defect of bidsseg; the log has the details
   73  OUT_DIR or the work folder cannot be written
  130  interrupted; 143 after SIGTERM"""
EXAMPLES = """\b
Examples:
  bidsseg data out participant
  bidsseg data out participant --participant-label 01 02 --seg regions gyri
  bidsseg data out participant --modality FLAIR T2w --nprocs 8 --omp-nthreads 2
  bidsseg data out participant --derivatives data/derivatives/lst-ai
  bidsseg data out participant --longitudinal
  bidsseg data out group
  bidsseg data out group --group-by sex"""
LEVELS = ("participant", "group")
SEVERAL = (
    *("--participant-label", "--session-label", "--modality", "--seg", "--output-spaces"),
    *("--derivatives", "--lesion-bands"),
)
"Options that take several values, either after one option or with the option repeated."
DEFAULT_THREADS = 4
"CPUs per scan: more CPUs are better used by segmenting more scans at the same time."


class Option(click.Option):
    """An option with the heading under which the help shows it."""

    def __init__(self, *args: Any, heading: str = "Running", **kwargs: Any) -> None:
        self.heading = heading
        super().__init__(*args, **kwargs)


option = partial(click.option, cls=Option)


class Command(click.Command):
    """A command with grouped help that accepts BIDS Apps' way of writing options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(parameter, "heading", "Running"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def spread(args: Sequence[str]) -> list[str]:
    """Rewrite BIDS Apps' conventions as click's: ``--a_b`` as ``--a-b``, ``--seg x y`` as ``--seg x --seg y``.

    If option values are followed directly by the positional arguments, the last three, which end in the analysis level,
    are the positional arguments.
    """
    spread_args: list[str] = []
    rest = [_with_dashes(arg) for arg in args]
    while rest:
        first, rest = rest[0], rest[1:]
        if first not in SEVERAL:
            spread_args.append(first)
            continue
        end = next((n for n, arg in enumerate(rest) if arg.startswith("-")), len(rest))
        values, rest = rest[:end], rest[end:]
        if len(values) > 3 and values[-1] in LEVELS:
            values, positional = values[:-3], values[-3:]
            rest = [*positional, *rest]
        spread_args += [part for value in values for part in (first, value)] or [first]
        if rest and not rest[0].startswith("-"):
            spread_args += rest[:3]
            rest = rest[3:]
    return spread_args


def _with_dashes(arg: str) -> str:
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value


def _without(prefix: str) -> Any:
    """A click callback that parts labels at commas and spaces, strips sub- or ses-, and drops repetitions."""

    def strip(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
        labels = (label for value in given for label in value.replace(",", " ").split())
        return tuple(dict.fromkeys(label.removeprefix(prefix) for label in labels))

    return strip


def _once(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def available_cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


FOLDER = click.Path(path_type=Path, file_okay=True)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
SELECT, LABELS, LESIONS, COMPUTE = "Which scans", "Segmentation", "Lesions", "Computing"


@click.command(
    cls=Command, epilog=f"{EXAMPLES}\n\n{EXIT_CODES}", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("bids_dir", type=FOLDER)
@click.argument("out_dir", type=FOLDER)
@click.argument("level", type=click.Choice(LEVELS))
@option(
    "--participant-label",
    heading=SELECT,
    multiple=True,
    callback=_without("sub-"),
    metavar="LABEL...",
    help="Only these participants, with or without sub-.",
)
@option(
    "--session-label",
    heading=SELECT,
    multiple=True,
    callback=_without("ses-"),
    metavar="LABEL...",
    help="Only these sessions, with or without ses-.",
)
@option(
    "--modality",
    heading=SELECT,
    multiple=True,
    default=("T1w", "FLAIR"),
    show_default=True,
    callback=_once,
    metavar="SUFFIX...",
    help="Images to segment, each by itself: T1w, FLAIR, T2w, PDw, ...",
)
@option(
    "--bids-filter-file",
    heading=SELECT,
    type=FILE,
    metavar="JSON",
    help='Select scans by BIDS entities, in the format of fMRIPrep: {"t1w": {"acquisition": "mprage"}}; null means '
    'that the entity is absent, "*" any value.',
)
@option(
    "--bids-database-dir",
    heading=SELECT,
    type=FOLDER,
    metavar="DIR",
    help="Folder for the index of the dataset, which later runs reuse.",
)
@option(
    "--skip-bids-validation",
    heading=SELECT,
    is_flag=True,
    help="Accept datasets without dataset_description.json, and file names whose entities are in another order.",
)
@option(
    "--seg",
    heading=LABELS,
    multiple=True,
    type=click.Choice(["regions", "lobes", "gyri"]),
    default=("regions", "lobes", "gyri"),
    show_default=True,
    callback=_once,
    metavar="SCHEME...",
    help="Label schemes to write as images.",
)
@option(
    "--output-spaces",
    heading=LABELS,
    multiple=True,
    type=click.Choice(["orig", "1mm", TEMPLATE]),
    default=("orig",),
    show_default=True,
    callback=_once,
    metavar="SPACE...",
    help="Grids of the label images: orig (the scan's own), 1mm, or a template (also writes scan and transforms).",
)
@option(
    "--fuse",
    heading=LABELS,
    is_flag=True,
    help="Also average the probabilities of a session's contrasts, and write these labels on the grid of each.",
)
@option(
    "--longitudinal",
    heading=LABELS,
    is_flag=True,
    help="Segment the sessions of a participant together, contrast by contrast, so that volumes vary less between "
    "them; all selected sessions must be on disk, and a new one means that all are segmented again.",
)
@option(
    "--probseg",
    heading=LABELS,
    is_flag=True,
    help="Also write the probability of every label (4D, one volume per row of the label table).",
)
@option(
    "--mirror",
    heading=LABELS,
    is_flag=True,
    help="Also segment the mirror image and average: somewhat more accurate, but the network takes 1.5 times as long.",
)
@bias_correction_option(cls=Option, heading=LABELS)
@option("--model", heading=LABELS, metavar="NAME|DIR", help="A packaged model, or a folder with weights and card.")
@option(
    "--derivatives",
    heading=LESIONS,
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR...",
    help="BIDS derivatives with lesion masks (*_label-lesion_mask, *_label-lesion_roi, *_desc-lesion_mask, "
    "*_label-lesion_dseg or _probseg, LST-AI's space-*_seg-lst): describe lesions, and their change over sessions.",
)
@option(
    "--lesions",
    heading=LESIONS,
    type=click.Choice(["given", "found", "none"]),
    default="given",
    show_default=True,
    help="Where the lesions of a session come from. given: a mask in --derivatives, or else the network (in FLAIR); "
    "found: the network, or else a mask; none: masks only.",
)
@option(
    "--lesion-pattern",
    heading=LESIONS,
    metavar="GLOB",
    help="Pattern for the file names of the masks, if they have other names.",
)
@option(
    "--lesion-threshold",
    heading=LESIONS,
    type=PROBABILITY,
    default=None,
    help="Lowest probability that counts as lesion. Default: 0.5 in given masks; for lesions that the network finds, "
    "a value chosen on validation patients.",
)
@option(
    "--lesion-min-volume",
    heading=LESIONS,
    type=click.FloatRange(0),
    default=LesionOptions.min_volume_mm3,
    show_default=True,
    help="Smallest volume of a lesion in mm3; a ball 3 mm across has 14 mm3.",
)
@option(
    "--lesion-tolerance",
    heading=LESIONS,
    type=click.FloatRange(0),
    default=LesionOptions.tolerance_mm,
    show_default=True,
    help="Largest gap in mm at which a lesion touches the ventricles; for the cortex it is 1 mm.",
)
@option(
    "--lesion-bands",
    heading=LESIONS,
    multiple=True,
    type=click.FloatRange(0, min_open=True),
    metavar="MM...",
    help="Also report the load in bands of distance from the ventricles, for instance 3 10.",
)
@option(
    "--fill",
    heading=LESIONS,
    is_flag=True,
    help="Also write all scans of a session that has lesions with these redrawn as white matter, for programs that "
    "cannot handle lesions.",
)
@option(
    "--group-by",
    heading=LESIONS,
    metavar="COLUMN",
    help="Group level: also write a map of lesion frequency for each value of this column of participants.tsv (at most "
    f"{MOST_GROUPS} values).",
)
@option(
    "--nprocs",
    "--n-cpus",
    heading=COMPUTE,
    type=click.IntRange(1),
    default=available_cpus,
    show_default="all",
    help="CPUs to use in total.",
)
@option(
    "--omp-nthreads",
    heading=COMPUTE,
    type=click.IntRange(1),
    help=f"CPUs per scan; nprocs / omp-nthreads scans run at once. Default: {DEFAULT_THREADS}, at most nprocs.",
)
@option(
    "--mem-gb",
    heading=COMPUTE,
    type=click.FloatRange(0, min_open=True),
    help="Memory for all scans together; a scan counts as 3 GB. Default: 90 % of the machine's.",
)
@option(
    "--low-mem",
    heading=COMPUTE,
    is_flag=True,
    help="Keep probabilities in files of the work folder instead of in memory; a scan then counts as 2 GB.",
)
@option("--device", heading=COMPUTE, default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@option(
    "--use-plugin",
    heading=COMPUTE,
    type=FILE,
    metavar="JSON",
    help='File that names another nipype plugin: {"plugin": "SLURM", "plugin_args": {...}}.',
)
@option(
    "-w",
    "--work-dir",
    type=FOLDER,
    help="Folder for intermediate files, which are kept. Default: OUT_DIR/work, which is removed at the end.",
)
@option(
    "--overwrite", is_flag=True, help="Segment complete scans again, and replace files that others wrote or changed."
)
@option("--dry-run", is_flag=True, help="Show what would be done, without doing it.")
@option("--reports-only", is_flag=True, help="Only write the reports again.")
@option(
    "--stop-on-first-crash", is_flag=True, help="Stop as soon as one scan fails, instead of continuing with the others."
)
@option(
    "--write-graph",
    is_flag=True,
    help="Write the workflow of one scan to OUT_DIR/logs/graph.dot, and as .svg if Graphviz is installed.",
)
@option(
    "--resource-monitor",
    is_flag=True,
    help="Write the time and memory of each step to OUT_DIR/logs/resources.tsv.",
)
@option("-v", "--verbose", is_flag=True, help="Show the workflow's log.")
@click.version_option(__version__, prog_name="bidsseg")
def command(level: str, omp_nthreads: int | None, **chosen: Any) -> int:
    """Label the brain regions of every T1w and FLAIR image of a BIDS dataset, each on its own grid.

    Nothing is written to BIDS_DIR. OUT_DIR becomes a BIDS derivatives dataset. Run the same command again to continue
    an interrupted run: complete scans are skipped.
    """
    from bidsseg.workflow.options import RunOptions
    from bidsseg.workflow.participant_level import run_group, run_participants

    if not chosen["derivatives"]:
        refuse_idle(("lesion_pattern",), "is for lesion masks; give their folder with --derivatives")
        if chosen["lesions"] == "none":
            refuse_idle(("fill",), "needs lesions; give masks with --derivatives, or leave out --lesions none")
    if chosen["longitudinal"]:
        refuse_idle(("fuse",), "averages the contrasts of one session; leave it out, or leave out --longitudinal")
    threads = omp_nthreads or min(DEFAULT_THREADS, chosen["nprocs"])
    options = RunOptions(omp_nthreads=threads, **chosen)
    if level == "group":
        run_group(options)
        return EXIT_OK
    return {"ok": EXIT_OK, "failed": EXIT_SOME_FAILED, "lesions failed": EXIT_LESIONS_FAILED}[run_participants(options)]


def run(args: Sequence[str] | None = None) -> int:
    """The command with its exit code; errors are printed in one line."""
    with cleaning_up_when_terminated():
        return _run(args)


def _run(args: Sequence[str] | None) -> int:
    try:
        return int(command.main(None if args is None else list(args), prog_name="bidsseg", standalone_mode=False) or 0)
    except click.UsageError as error:
        click.UsageError(plain(error.format_message()), error.ctx).show()
        return APP_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; run the same command again to continue", err=True)
        return EXIT_INTERRUPTED
    except Terminated as end:
        with suppress(OSError):  # a terminal that was closed takes no more
            click.echo("terminated; run the same command again to continue", err=True)
        return int(end.code or 0)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        codes = {InvalidDataset: EXIT_INVALID_BIDS, NothingSelected: EXIT_NOTHING_SELECTED, Defect: EXIT_DEFECT}
        return codes.get(type(error), APP_USAGE)
    except OSError as error:
        if error.errno in FULL and error.filename:
            click.echo(plain(f"error: {full_disk(error.filename)}"), err=True)
            return EXIT_CANNOT_WRITE
        line = f"error: {error.filename or 'output'}: {error.strerror or error}; check free space and permissions"
        click.echo(plain(line), err=True)
        return EXIT_CANNOT_WRITE


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
