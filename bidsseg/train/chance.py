"""Random numbers of one training sample, and the way of small arrays to the device where samples are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Chance:
    """What a sample's randomness comes from: two generators that its seed and its number determine.

    Decisions and everything small are drawn on the host, so that one number gives one anatomy and one contrast on every
    device and no device has to be waited for. Noise, as large as the sample, is drawn where the sample is made; so it
    differs between kinds of devices, but not between two runs on one.
    """

    rng: Generator
    noise: torch.Generator

    @classmethod
    def of(cls, seed: int | tuple[int, ...], device: torch.device = CPU) -> Chance:
        """The generators of a sample; its seed is one number, or the training's seed and the sample's number."""
        rng = np.random.default_rng(seed)
        return cls(rng, torch.Generator(device).manual_seed(int(rng.integers(2**31))))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Float32 numbers from the standard normal distribution, on the device."""
        return torch.randn(tuple(shape), generator=self.noise, device=self.noise.device)


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """A small array on the device.

    The host does not wait for work queued before. For arrays of more than 64 KiB it would where CUDA copies from
    ordinary memory; so they go through page-locked memory, which PyTorch keeps until the copy is over.
    """
    here = torch.from_numpy(np.ascontiguousarray(array))
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)
