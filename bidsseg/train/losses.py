"""What a training step learns from: blocks drawn from a sample, and the losses on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bidsseg.labels import LOBAR_TISSUES, MIDLINE_TISSUES, TISSUES
from bidsseg.network.unet import Features, UNet, space_to_depth
from bidsseg.train.chance import upload
from bidsseg.train.data import LESION_KIND
from bidsseg.train.options import TrainOptions
from bidsseg.train.synthesis import Sample

UNKNOWN = 63
IGNORE = -100
# Measured on the composites of the training set: share of each tissue among voxels that touch brain.
TISSUE_FREQUENCIES = (
    0.14, 0.30, 0.24, 0.012, 0.0006, 0.0007, 0.0012, 0.15, 0.016, 0.072, 0.0085, 0.0042, 0.0055, 0.0019, 0.0044,
    0.0014, 0.0006, 0.0058, 0.013,
)  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """Sub-voxel targets (8, N) of N blocks, and the blocks' places in the flattened 2 mm grid.

    N does not depend on what the sample shows, so that no GPU has to be asked how many there are; blocks that it cannot
    offer, such as lesions where none are painted, have targets that the losses ignore.
    """

    blocks: Tensor
    tissue: Tensor
    "int64, or IGNORE."
    side: Tensor
    "Float 0 left, 1 right, nan where there is no side."
    with_parcel: Tensor
    "Which of the N learn parcels, (M,)."
    parcel: Tensor
    "(8, M) int64, or IGNORE."


def choose_targets(sample: Sample, options: TrainOptions, generator: torch.Generator) -> Targets:
    """Draw the blocks that a step learns from a sample."""
    voxels = space_to_depth(sample.packed[None, None])[0].flatten(1)  # (8, blocks)
    usable = space_to_depth(sample.weight[None, None])[0].flatten(1).all(0)  # (blocks,)
    tissue, kind = voxels & 31, (voxels >> 12) & 15
    pools = (
        (usable & (kind == LESION_KIND).any(0), options.lesion_blocks),
        (usable & (tissue != 0).any(0), options.brain_blocks),
        (usable & ((tissue == 0) & (kind != 0)).any(0), options.outer_blocks),
        (usable, options.any_blocks),
    )
    drawn = [_pick(pool, count, generator) for pool, count in pools]
    blocks, found = (torch.cat(parts) for parts in zip(*drawn, strict=True))  # (N,) each
    chosen = voxels[:, blocks]  # (8, N)
    tissue = (chosen & 31).long()
    side = ((chosen >> 5) & 1).float().masked_fill(_which(MIDLINE_TISSUES, tissue) | ~found, torch.nan)
    parcel = ((chosen >> 6) & 63).long()
    known = _which((*LOBAR_TISSUES, "cerebellum-cortex"), tissue) & (parcel != UNKNOWN) & found
    parcel = parcel.masked_fill(~known, IGNORE)
    with_parcel = known.any(0).logical_not().byte().argsort(stable=True)[: options.parcel_blocks]
    return Targets(blocks, tissue.masked_fill(~found, IGNORE), side, with_parcel, parcel[:, with_parcel])


def _pick(pool: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places of blocks drawn from a mask, with replacement, and whether they are in it: not if it is empty."""
    passed = pool.cumsum(0, dtype=torch.int32)
    ranks = torch.rand(count, generator=generator, device=pool.device).mul(passed[-1]).int()
    places = torch.searchsorted(passed, ranks, right=True).clamp(max=len(pool) - 1)
    return places, pool[places]


def _which(names: Sequence[str], tissue: Tensor) -> Tensor:
    """Where there is one of these tissues."""
    return upload(np.isin(TISSUES, names), tissue.device)[tissue]


def losses(net: UNet, features: Features, targets: Sequence[Targets], class_weight: Tensor) -> dict[str, Tensor]:
    """Tissue cross-entropy and Dice, side and parcel cross-entropies, (B,) each; 0 where there is no target.

    Of B samples, whose features lie end to end as ``features_of`` puts them: all go through the heads together.
    """
    count = len(targets)
    embedded = net.embed(features, _end_to_end([t.blocks for t in targets], features.n_blocks // count))
    tissue, side, parcel = (
        torch.stack([getattr(t, name) for t in targets], 1) for name in ("tissue", "side", "parcel")
    )  # (8, B, N), (8, B, N), (8, B, M)
    log_p = F.log_softmax(net.tissue_logits(embedded), 1)
    log_p = log_p.reshape(*log_p.shape[:2], count, -1)  # (8, T, B, N)
    on_right = net.side_logits(embedded.hidden)[:, 0].reshape(side.shape)
    has_side = ~side.isnan()
    wrong = F.binary_cross_entropy_with_logits(on_right, side.nan_to_num(0), has_side.float(), reduction="none")
    learning = _end_to_end([t.with_parcel for t in targets], tissue.shape[2])
    of_blocks = net.parcel_logits(embedded.hidden[:, learning])  # (P, B * M), which the sub-voxels share
    log_parcel = F.log_softmax(of_blocks, 0).reshape(len(of_blocks), count, -1).expand(len(parcel), -1, -1, -1)
    return {
        "tissue": _cross_entropy(log_p, tissue, class_weight),
        "dice": soft_dice_loss(log_p.exp(), tissue),
        "side": wrong.sum((0, 2)) / has_side.sum((0, 2)).clamp(min=1),
        "parcel": _cross_entropy(log_parcel, parcel, torch.ones_like(of_blocks[:, 0])),
    }


def _end_to_end(places: Sequence[Tensor], size: int) -> Tensor:
    """Places in parts of this size, as places in all parts one after the other."""
    return torch.cat([of_part + number * size for number, of_part in enumerate(places)])


def _cross_entropy(log_p: Tensor, truth: Tensor, class_weight: Tensor) -> Tensor:
    """Weighted mean over each sample's targets that are classes, (B,); (8, C, B, N) against (8, B, N).

    ``torch.nn.functional.nll_loss`` adds up in another order at every run on a GPU.
    """
    known = truth.clamp(min=0)
    weight = class_weight[known] * (truth >= 0)
    return -(log_p.gather(1, known[:, None])[:, 0] * weight).sum((0, 2)) / weight.sum((0, 2)).clamp(min=1)


def soft_dice_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    """1 - the mean soft Dice over the classes that a sample shows, (B,) (Milletari et al. 2016).

    (8, C, B, N) against (8, B, N); targets that are no class, such as IGNORE, do not count.
    """
    classes = torch.arange(probabilities.shape[1], device=truth.device)
    is_class = truth[:, None] == classes[:, None, None]  # (8, C, B, N)
    size = is_class.sum((0, 3))
    total = (probabilities * (truth >= 0)[:, None]).sum((0, 3))
    dice = (2 * (probabilities * is_class).sum((0, 3)) + 1) / (total + size + 1)
    present = size > 0
    return 1 - (dice * present).sum(0) / present.sum(0)


def class_weights(frequencies: Tensor, exponent: float) -> Tensor:
    """frequency^-exponent, with mean 1 over the voxels; frequencies need not sum to 1."""
    frequencies = frequencies / frequencies.sum()
    weights = frequencies.clamp(min=1e-5) ** -exponent
    return weights / (weights * frequencies).sum()
