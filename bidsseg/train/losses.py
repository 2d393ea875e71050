"""What a training step learns from: blocks drawn from a sample, and the losses on them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bidsseg.labels import LOBAR_TISSUES, MIDLINE_TISSUES, TISSUE
from bidsseg.network.unet import Features, UNet, space_to_depth
from bidsseg.train.data import LESION_KIND
from bidsseg.train.options import TrainOptions

UNKNOWN = 63
IGNORE = -100
# Measured on the composites of the training set: share of each tissue among voxels that touch brain.
TISSUE_FREQUENCIES = (
    0.14, 0.30, 0.24, 0.012, 0.0006, 0.0007, 0.0012, 0.15, 0.016, 0.072, 0.0085, 0.0042, 0.0055, 0.0019, 0.0044,
    0.0014, 0.0006, 0.0058, 0.013,
)  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """Sub-voxel targets (8, N) of N blocks, and the blocks' places in the flattened 2 mm grid."""

    blocks: Tensor
    tissue: Tensor
    side: Tensor
    "Float 0 left, 1 right, nan where there is no side."
    with_parcel: Tensor
    "Which of the N learn parcels."
    parcel: Tensor
    "(8, len(with_parcel))"


def choose_targets(packed: Tensor, weight: Tensor, options: TrainOptions, generator: torch.Generator) -> Targets:
    """Draw the blocks a step learns from: (I, J, K) packed voxels and where there is image."""
    voxels = space_to_depth(packed[None, None])[0].flatten(1)  # (8, blocks)
    seen = space_to_depth(weight[None, None])[0].flatten(1)
    tissue = (voxels & 31).to(torch.uint8)
    usable = seen.all(0)
    brain = torch.nonzero(usable & (tissue != 0).any(0))[:, 0]
    kind = (voxels >> 12) & 15
    lesion = torch.nonzero(usable & (kind == LESION_KIND).any(0))[:, 0]
    outer = torch.nonzero(usable & ((tissue == 0) & (kind != 0)).any(0))[:, 0]
    anywhere = torch.nonzero(usable)[:, 0]
    blocks = torch.cat(
        [
            pool[torch.randint(len(pool), (count,), generator=generator)] if len(pool) else pool
            for pool, count in (
                (lesion, options.lesion_blocks),
                (brain, options.brain_blocks),
                (outer, options.outer_blocks),
                (anywhere, options.any_blocks),
            )
        ]
    )
    chosen = voxels[:, blocks]
    tissue = (chosen & 31).long()
    side = ((chosen >> 5) & 1).float()
    side[torch.isin(tissue, torch.tensor([TISSUE[name] for name in MIDLINE_TISSUES]))] = torch.nan
    parcel = ((chosen >> 6) & 63).long()
    lobar = torch.tensor([TISSUE[name] for name in (*LOBAR_TISSUES, "cerebellum-cortex")])
    parcel[(parcel == UNKNOWN) | ~torch.isin(tissue, lobar)] = IGNORE
    with_parcel = torch.nonzero((parcel != IGNORE).any(0))[: options.parcel_blocks, 0]
    return Targets(blocks, tissue, side, with_parcel, parcel[:, with_parcel])


def losses(net: UNet, features: Features, targets: Targets, class_weight: Tensor) -> dict[str, Tensor]:
    """Tissue cross-entropy and Dice, side and parcel cross-entropies."""
    embedded = net.embed(features, targets.blocks)
    log_p = F.log_softmax(net.tissue_logits(embedded), 1)  # (8, T, N)
    found = {
        "tissue": F.nll_loss(log_p, targets.tissue, class_weight),
        "dice": soft_dice_loss(log_p.exp(), targets.tissue),
    }
    has_side = ~torch.isnan(targets.side)
    if has_side.any():
        logits = net.side_logits(embedded.hidden)[:, 0]
        found["side"] = F.binary_cross_entropy_with_logits(logits[has_side], targets.side[has_side])
    if len(targets.with_parcel):
        of_blocks = net.parcel_logits(embedded.hidden[:, targets.with_parcel])
        parcel = of_blocks.expand(len(targets.parcel), -1, -1)  # what the sub-voxels share
        found["parcel"] = F.cross_entropy(parcel, targets.parcel, ignore_index=IGNORE)
    return found


def soft_dice_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    """1 - the mean soft Dice over the classes present (Milletari et al. 2016); (B, C, N) against (B, N)."""
    classes = probabilities.shape[1]
    right = probabilities.gather(1, truth[:, None])[:, 0]
    overlap = torch.zeros(classes).index_add(0, truth.flatten(), right.flatten())
    size = torch.bincount(truth.flatten(), minlength=classes)
    dice = (2 * overlap + 1) / (probabilities.sum((0, 2)) + size + 1)
    return 1 - dice[size > 0].mean()


def class_weights(frequencies: Tensor, exponent: float) -> Tensor:
    """frequency^-exponent, with mean 1 over the voxels; frequencies need not sum to 1."""
    frequencies = frequencies / frequencies.sum()
    weights = frequencies.clamp(min=1e-5) ** -exponent
    return weights / (weights * frequencies).sum()
