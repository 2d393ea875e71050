"""``brainseg-cli`` subcommands for training models, and for what they learn from. Heavy imports stay inside them."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

import bidsseg
from bidsseg.cli.exit_codes import CLI_USAGE
from bidsseg.cli.options import EXISTING_FOLDER, fail, model_named
from bidsseg.errors import UserError
from bidsseg.files import table, whole, write_text


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
    "--widths",
    default=None,
    metavar="N,N,...",
    help="Channels of each level of the network, the finest first. A network given by --init grows to them: it answers"
    " as before, and the new channels learn.",
)
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
    data: Path,
    out: Path,
    hours: float,
    init: str | None,
    widths: str | None,
    picture_minutes: float,
    device: str,
    **chosen: Any,
) -> None:
    """Train a model on DATA, a folder (see docs/training.md) or a file that ``pack`` wrote; write it to OUT.

    Checkpoints and the log are in OUT, too. The same command resumes an interrupted run. Every checkpoint replaces the
    model in OUT/model.
    """
    import logging

    from bidsseg.train.loop import Run, State, beginning, export, train, training_device, widths_from
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
        config, weights = beginning(start, None if widths is None else widths_from(widths), options.seed)
    except UserError as error:
        fail(error)
        sys.exit(CLI_USAGE)
    except ValueError as error:
        fail(UserError(f"--widths: {error}; give other numbers"))
        sys.exit(CLI_USAGE)
    known = subjects_and_lesions(data, out / "cache")
    run = Run(*known, out, config, options=options, weights=weights, device=place)
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
    held-out subjects. Clinical patients and whole heads get pseudo-labels by the packaged model, and so do the gyri of
    label maps, which takes some ten minutes.
    """
    from bidsseg.train.packing import pack_training_set
    from bidsseg.train.training_set import load_training_set

    lost = pack_training_set(load_training_set(data), file)
    for scan in lost:
        click.echo(f"{scan.name}: noise {scan.noise:.4g}, error of rounding {scan.error:.3f} of it")
    click.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


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
