"""The environment variables of a run, and the log of an unexpected error."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bidsseg.bids.outputs import defect_log
from bidsseg.errors import Defect, UserError
from bidsseg.files import write_text
from bidsseg.workflow.threads import waiting
from bidsseg.workflow.workers import Resources


@contextmanager
def defects_logged(out: Path) -> Iterator[None]:
    """Turns what nobody expected into a ``Defect`` that names a log with the traceback."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        log = defect_log(out.resolve())
        write_text(log, traceback.format_exc())
        raise Defect(f"{type(error).__name__}: {error}; this is a defect, please report it with {log}") from error


@contextmanager
def environment(how: Resources, threads: int) -> Iterator[None]:
    """Keep libraries off the home folder and the network, and to their share of the CPUs, workers included.

    At the end, what only this run needed is removed.
    """
    config = str(how.scratch / "config")
    changes = {"NIPYPE_NO_ET": "1", "NO_ET": "1", "NIPYPE_CONFIG_DIR": config, "MPLCONFIGDIR": config}
    changes |= {"OMP_NUM_THREADS": str(threads), "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    changes |= waiting()
    changes |= {"LOGNAME": os.environ.get("LOGNAME", "bidsseg")}  # nipype names cluster jobs by it, and needs it
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(how.scratch, ignore_errors=True)
        if not how.kept:
            with suppress(OSError):  # not there, or another run's files are in it
                how.work_dir.rmdir()
