"""How many GPUs there are, without torch where there is none."""

from __future__ import annotations

import ctypes
import sys


def count_gpus(device: str) -> int:
    """How many CUDA GPUs a run uses: all for auto and cuda, one for cuda:N; raises ``UserError`` for one not here.

    Without NVIDIA's driver it does not ask torch, whose import takes longer than the rest of the start.
    """
    if device == "cpu" or (device == "auto" and not has_cuda_driver()):
        return 0
    import torch

    from bidsseg.network.inference import choose_device

    chosen = choose_device(device)
    if chosen.type != "cuda":
        return 0
    return 1 if chosen.index is not None else torch.cuda.device_count()


def has_cuda_driver() -> bool:
    """Whether NVIDIA's driver library can be loaded."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
