"""How many GPUs there are, without torch where there is none."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

from bidsseg.errors import UserError

if TYPE_CHECKING:
    import torch


def count_gpus(device: str) -> int:
    """How many CUDA GPUs a run uses: all for auto and cuda, one for cuda:N; raises ``UserError`` for one not here.

    Without NVIDIA's driver it does not ask torch, whose import takes longer than the rest of the start.
    """
    if device == "cpu" or (device == "auto" and not has_cuda_driver()):
        return 0
    import torch

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


def choose_device(name: str) -> torch.device:
    """The device asked for, or the best there is; raises ``UserError`` for one that this machine lacks."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: not a device; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise UserError(f"--device {name}: no such GPU on this machine; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: not available on this machine; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: not supported; use auto, cpu, cuda, cuda:N or mps")
    return device


def computing_type(device: torch.device) -> torch.dtype:
    """Half precision where the processor computes in it; bfloat16 halves the time on CPUs that have it.

    On GPUs float16, which rounds to an eighth of bfloat16's steps: its range is enough, since norms follow each layer.
    """
    import torch

    if device.type == "cpu":
        return torch.bfloat16 if cpu_has_bfloat16() else torch.float32
    return torch.float16


def autocast(device: torch.device) -> torch.autocast:
    """Layers compute in the type for this device."""
    import torch

    dtype = computing_type(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively, as far as torch can tell."""
    import torch

    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())
