"""How threads of torch wait for each other."""

from __future__ import annotations

import os

ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
"The second is the logarithm of how many cycles a thread spins; 4 is the least there is."


def waiting() -> dict[str, str]:
    """The environment variables by which threads of OpenMP and OpenBLAS sleep while they wait; the user's come first.

    They count only where they are set before torch and numpy are imported. Threads that spin instead, as they do by
    default, keep the ones that they wait for from a busy or shared processor. With two threads on two cores, a scan
    took a fifth more processor time where those of OpenMP spun, and single steps three times as long; an eighth more
    where those of OpenBLAS did.
    """
    return {name: os.environ.get(name, value) for name, value in ASLEEP.items()}
