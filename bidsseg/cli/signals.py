"""Lets a terminated command remove its temporary files and end its processes."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from bidsseg.cli.exit_codes import EXIT_INTERRUPTED

TO_END = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"From a batch system or ``kill``, and from a terminal that is closed."


class Terminated(SystemExit):
    """By a signal; the code is 128 and its number."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """A signal or Ctrl-C within the block unwinds it, which removes temporary files, and ends the process there.

    The interpreter's own end would wait for threads that compute, and crash where a library is half imported.
    """
    try:
        with cleaning_up_when_terminated():
            yield
    except Terminated as end:
        _leave(int(end.code or 0))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _leave(EXIT_INTERRUPTED)


def _leave(code: int) -> NoReturn:
    atexit._run_exitfuncs()  # ends processes of multiprocessing
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def cleaning_up_when_terminated() -> Iterator[None]:
    """Within the block, signals that would end this process at once raise ``Terminated``; a second one ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in TO_END}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:  # nohup has some ignored
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated(128 + number)
