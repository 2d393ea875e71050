"""How threads of torch wait for each other."""

from __future__ import annotations

import os


def waiting() -> dict[str, str]:
    """The environment variable by which OpenMP's threads sleep while they wait, unless the user has set it.

    It counts only where it is set before torch is imported. Threads that spin instead, as they do by default, keep the
    ones that they wait for from a busy or shared processor: with two threads on two cores, a scan took a fifth more
    processor time, and single steps three times as long.
    """
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
