"""Lets a terminated command remove its temporary files and end its processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TO_END = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"From a batch system or ``kill``, and from a terminal that is closed."


@contextmanager
def cleaning_up_when_terminated() -> Iterator[None]:
    """Within the block, signals that would end this process at once raise ``SystemExit``; a second one ends it."""
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
    raise SystemExit(128 + number)
