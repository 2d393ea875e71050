"""Everything that shapes a training run, and the samples that it learns from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainOptions:
    """Everything that shapes a training run."""

    hours: float = 2.0
    "Training time in all; resuming goes on with what is left of it."
    steps: int = 0
    "End after this many steps, if not after the hours; 0 sets no such end."
    learning_rate: float = 0.02
    "Peak learning rate of Muon, for the convolutions."
    head_learning_rate: float = 6e-3
    "Peak learning rate of AdamW, for everything else."
    warmup_steps: int = 30
    weight_decay: float = 1e-4
    difficulty: tuple[float, float, float] = (0.1, 0.75, 0.35)
    "Difficulty of the samples at first, at its peak, and at the end, where easy ones sharpen borders; 1 is all of it."
    peak: float = 0.6
    "Share of the training time at which samples are hardest."
    brain_blocks: int = 12_000
    "2 mm voxels of the brain that each step learns from; more hardly change its gradient, another scan does."
    outer_blocks: int = 6_000
    "2 mm voxels drawn from skull, scalp and neck, where the sample shows them: without, they end up as cortex."
    lesion_blocks: int = 1_000
    "2 mm voxels drawn from painted lesions, where there are any: they are few, and look like cortex."
    any_blocks: int = 2_000
    "2 mm voxels drawn from anywhere."
    parcel_blocks: int = 8_000
    "Number of brain voxels that learn gyri."
    balance: tuple[float, float] = (0.4, 0.0)
    "Class weights are frequency^-balance; from the first value to the second over the training."
    ema: float = 0.998
    init_share: float = 0.0
    """Of the weights a run started from in those it ends with, 0-1: the mean of two minima, each reached at a falling
    rate, is flatter and generalises better than either (Izmailov et al. 2018, arXiv:1803.05407)."""
    batch: int = 1
    "Samples of a step."
    alike: int = 1
    "Samples of one shape that go through the network together. Batches are filled up to a multiple of it."
    checkpoint_s: float = 240.0
    seed: int = 1
    workers: int = 1
    "Processes that draw samples ahead; 0 draws them in the training process."
    threads: int = 2


@dataclass(frozen=True)
class SynthesisSettings:
    """How far samples stray from the real scans; every probability and amplitude is scaled by ``difficulty``."""

    shape: tuple[int, int, int] = (160, 192, 160)
    rotation_deg: float = 16.0
    scaling: float = 0.16
    shift_mm: float = 12.0
    warp_mm: float = 5.0
    p_still: float = 0.15
    "Share of real scans shown on their own voxels, neither turned nor warped: interpolation blurs, and users' do not."
    p_synthetic: float = 0.5
    "Share of samples rendered from labels alone, once training is at full difficulty."
    p_clinical: float = 0.15
    "Share of samples that show a clinical scan as it is, whatever the difficulty, if there are any."
    p_head: float = 0.6
    "Share of samples that show the whole head rather than the extracted brain."
    p_swollen: float = 0.4
    "Share of samples whose middle, and the ventricles with it, is widened or narrowed."
    swelling: float = 0.4
    p_recolour: float = 0.85
    "Share of real scans that get another contrast, by tissue, by grey value or by inversion."
    p_lesions: float = 0.5
    p_moved: float = 0.15
    "Share of samples with the ghosts of a head that moved."
    movement_mm: float = 6.0
    p_slices: float = 0.6
    max_slice_mm: float = 8.0
    p_cropped: float = 0.4
    "Share of samples that show a slab of the head; its width is drawn on a log scale down to one thick slice."
    p_first_look: float = 0.2
    "Share of samples with the grey values of the whole image, as the look that finds the brain sees them."
    multiple: int = 16
    "The network's: slabs are padded to it, as at inference."
