"""A wider network out of a trained one: it answers the same, and its new channels learn from then on.

The idea is that of Net2Net (Chen et al. 2016, arXiv:1511.05641), so that a training need not begin anew for a wider
network. New channels are not copies of old ones here. They begin with random inputs, and nothing reads them: what reads
them has weights of 0, which have gradients all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bidsseg.network.config import UNetConfig
from bidsseg.network.unet import UNet


def grown(weights: Mapping[str, Tensor], config: UNetConfig, widths: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Weights of a network that has these widths and the answers of the one whose weights are given.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        Those of a ``UNet`` of this config.
    config : UNetConfig
    widths : tuple of int
        Channels of each level, none fewer than it had. The top level keeps its own: its grey values follow in the
        heads' input, and most of a forward pass is spent there.
    seed : int
        Of what the new channels begin with.

    Returns
    -------
    dict of str to torch.Tensor
        In the shapes of a ``UNet`` of ``widths``, on the CPU.

    Raises
    ------
    ValueError
        If a level would get fewer channels, the top level more, or the number of levels would change.
    """
    had = ",".join(map(str, config.widths))
    if len(widths) != len(config.widths) or widths[0] != config.widths[0]:
        raise ValueError(f"a network of {had} grows neither in levels nor in the first level's channels")
    if any(new < old for new, old in zip(widths, config.widths, strict=True)):
        raise ValueError(f"a network of {had} does not shrink")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = UNet(replace(config, widths=widths)).state_dict()
    for name, old in weights.items():
        new, first_out = fresh[name], len(old)
        if new.ndim > 1:
            new[:first_out, old.shape[1] :] = 0  # what was there does not read what is new
            new[:first_out, : old.shape[1]] = old
        else:
            new[:first_out] = old
    return fresh
