from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bidsseg.labels import LEFT, RIGHT, TISSUE, TISSUES, UNKNOWN_PARCEL, gyri
from bidsseg.network.config import UNetConfig
from bidsseg.network.weights import load_model
from bidsseg.train.contrast import FATTY, N_CLASSES, _palette, remap
from bidsseg.train.data import (
    LESION_KIND,
    VALIDATION_SUBJECTS,
    Anatomy,
    Subject,
    anatomy_from_aseg,
    anatomy_from_braincolor,
    brain_box,
    brain_folders,
    into_head,
    pack,
)
from bidsseg.train.loop import Run, export, final_weights, new_state, schedule, train
from bidsseg.train.losses import IGNORE, choose_targets, class_weights, soft_dice_loss
from bidsseg.train.options import TrainOptions
from bidsseg.train.synthesis import (
    MNI_BRAIN_BOX,
    SLICE_MM,
    Recipe,
    _gather,
    _move,
    _normalised,
    _own_voxels,
    _sampling_grid,
    _upsample,
    draw,
    slice_matrix,
)

GYRUS = {gyrus.abbreviation: index for index, gyrus in enumerate(gyri())}
RECIPE = Recipe(shape=(32, 32, 32), shift_mm=2, warp_mm=1, multiple=4)


def ball(size: int = 40) -> Subject:
    """A head: white matter within cortex within CSF within one outer tissue; the left half is on the left."""
    axes = np.meshgrid(*(np.arange(size) - (size - 1) / 2,) * 3, indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    tissue = np.select(
        [radius < 6, radius < 10, radius < 12], [TISSUE["white-matter"], TISSUE["cortex"], TISSUE["csf"]], 0
    ).astype(np.uint8)
    side = ((axes[0] > 0) & (tissue > 0)).astype(np.uint8)
    kind = ((radius >= 12) & (radius < 15)).astype(np.uint8)
    parcel = np.where(tissue > 0, GYRUS["SFG"], UNKNOWN_PARCEL).astype(np.uint8)
    scan = np.select([tissue == 2, tissue == 1, tissue == 7], [0.9, 0.6, 0.2], 0).astype(np.float16)
    return Subject("ball", pack(Anatomy(tissue, side, parcel), kind), scan, brain_box(tissue))


@pytest.mark.parametrize(
    ("code", "tissue", "side"),
    [
        (44, "white-matter", RIGHT),
        (45, "white-matter", LEFT),
        (4, "third-ventricle", 0),
        (35, "brainstem", 0),
        (23, "accumbens", RIGHT),
        (30, "accumbens", LEFT),
        (100, "cortex", RIGHT),
        (101, "cortex", LEFT),
        (69, "background", 0),
    ],
)
def test_braincolor_codes(code: int, tissue: str, side: int) -> None:
    codes = np.zeros((3, 3, 3), np.int16)
    codes[0, 0, 0], codes[2] = code, 44  # some sided tissue for others to be near
    found = anatomy_from_braincolor(codes)
    assert TISSUES[found.tissue[0, 0, 0]] == tissue
    assert found.side[0, 0, 0] == side


@pytest.mark.parametrize(("code", "tissue", "side"), [(2, "white-matter", LEFT), (43, "lateral-ventricle", RIGHT)])
def test_aseg_codes(code: int, tissue: str, side: int) -> None:
    found = anatomy_from_aseg(np.full((2, 2, 2), code, np.int16))
    assert (found.tissue == TISSUE[tissue]).all()
    assert (found.side == side).all()
    assert (found.parcel == UNKNOWN_PARCEL).all()


def test_white_matter_belongs_to_the_nearest_cortex_of_its_own_side() -> None:
    # along a row: left PrG, left white matter x3, right white matter, right STG
    codes = np.array([183, 45, 45, 45, 44, 200], np.int16).reshape(6, 1, 1)
    parcel = anatomy_from_braincolor(codes).parcel[:, 0, 0]
    assert parcel.tolist() == [GYRUS["PrG"]] * 4 + [GYRUS["STG"]] * 2


def test_vermis_takes_the_nearer_side() -> None:
    codes = np.array([39, 71, 71, 38], np.int16).reshape(4, 1, 1)
    found = anatomy_from_braincolor(codes)
    assert found.side[:, 0, 0].tolist() == [LEFT, LEFT, RIGHT, RIGHT]
    assert (found.tissue == TISSUE["cerebellum-cortex"]).all()


def test_a_brain_put_into_a_head_keeps_its_labels_and_gets_the_heads_surroundings() -> None:
    host = ball()
    guest = np.zeros((12, 12, 12), np.uint8)
    guest[1:11, 1:11, 1:11] = TISSUE["cortex"]
    side, parcel = np.zeros_like(guest), np.zeros_like(guest)
    joined = into_head(Anatomy(guest, side, parcel), (guest > 0).astype(np.float16), host, "joined")
    tissue, kind = joined.packed & 31, (joined.packed.view(np.uint16) >> 12) & 15
    assert (tissue == TISSUE["cortex"]).sum() == 1000
    assert (tissue == TISSUE["csf"]).any()
    assert (kind == 1).any()
    assert not (kind[tissue > 0]).any()


def test_validation_subjects_never_train(tmp_path: Path) -> None:
    for name in ("sub-1000", "sub-1001", *VALIDATION_SUBJECTS):
        (tmp_path / "miccai2012-train" / name).mkdir(parents=True)
    assert [folder.name for folder in brain_folders(tmp_path, validation=False)] == ["sub-1000", "sub-1001"]
    assert [folder.name for folder in brain_folders(tmp_path, validation=True)] == list(VALIDATION_SUBJECTS)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_samples_are_normalised_and_match_their_labels(difficulty: float, seed: int) -> None:
    torch.manual_seed(seed)
    sample = draw([ball()], [], RECIPE, difficulty, np.random.default_rng(seed))
    assert sample.image.shape == sample.packed.shape == sample.weight.shape
    assert all(n in (16, 20, 24, 28, 32) for n in sample.image.shape)
    assert sample.image.min() >= 0
    assert sample.image.max() <= 1
    assert torch.isfinite(sample.image).all()
    assert set(np.unique(sample.packed.numpy() & 31).tolist()) <= {0, 1, 2, TISSUE["csf"]}
    assert not sample.image[~sample.weight].any()


def test_a_flip_swaps_the_sides() -> None:
    """Whatever the draw, left lies on the left: low i."""
    for seed in range(8):
        sample = draw([ball()], [], replace(RECIPE, p_cropped=0), 0.0, np.random.default_rng(seed))
        brain = ((sample.packed & 31) == TISSUE["white-matter"]).numpy()
        side = ((sample.packed >> 5) & 1).numpy().astype(bool)
        i = np.arange(32)[:, None, None] * np.ones_like(brain)
        assert i[brain & ~side].mean() < i[brain & side].mean()


def test_lesions_are_painted_into_white_matter_only() -> None:
    shape = tuple((MNI_BRAIN_BOX[1] + 20).astype(int))
    everywhere: NDArray[np.uint8] = np.ones(shape, np.uint8)
    recipe = replace(RECIPE, p_lesions=10.0, p_synthetic=0.0, p_cropped=0)
    packed = draw([ball()], [everywhere], recipe, 0.0, np.random.default_rng(0)).packed.numpy()
    lesion = ((packed.view(np.uint16) >> 12) & 15) == LESION_KIND
    white = (packed & 31) == TISSUE["white-matter"]
    np.testing.assert_array_equal(lesion, white)


def test_slabs_show_whole_sections_and_are_padded_as_at_inference() -> None:
    recipe, thin = replace(RECIPE, p_cropped=10.0), 0
    for seed in range(12):
        sample = draw([ball()], [], recipe, 0.5, np.random.default_rng(seed))
        seen = np.argwhere(sample.weight.numpy())
        extent = seen.max(0) - seen.min(0) + 1
        assert len(seen) == extent.prod()
        assert sum(extent < 32) == 1
        axis = int(np.argmin(extent))
        assert sample.image.shape[axis] == max(16, -(-extent[axis] // 4) * 4)
        assert not sample.packed[~sample.weight].any()
        if extent[axis] <= SLICE_MM:
            thin += 1
            assert (sample.image.numpy()[sample.weight.numpy()].reshape(extent).std(axis) < 1e-3).all()
    assert thin


def test_a_remapped_scan_has_the_new_means_and_keeps_partial_volumes_between_them() -> None:
    old, new = np.zeros(N_CLASSES, np.float32), np.zeros(N_CLASSES, np.float32)
    for name, before, after in (("lateral-ventricle", 0.2, 0.9), ("cortex", 0.6, 0.5), ("white-matter", 0.8, 0.3)):
        old[TISSUE[name]], new[TISSUE[name]] = before, after
    scan = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.7, 0.8])
    found = remap(scan, old, new, np.random.default_rng(0))
    np.testing.assert_allclose(found, [0, 0.9, 0.7, 0.5, 0.4, 0.3], atol=1e-6)


def test_a_swollen_middle_leaves_the_rim_in_place() -> None:
    plain = Recipe(rotation_deg=0, scaling=0, shift_mm=0, warp_mm=0, p_swollen=0)
    grids = [
        _sampling_grid(ball(), recipe, 1.0, np.random.default_rng(2)).numpy()
        for recipe in (plain, replace(plain, p_swollen=1.0))
    ]
    moved = np.linalg.norm(grids[1] - grids[0], axis=0)
    assert moved[2:4, 3, 2:4].min() > 2  # 22 mm from the middle
    assert moved[0, 0, 0] < 0.1


@pytest.mark.parametrize(("size", "first"), [(40, 4), (41, 5)])
def test_a_still_scan_keeps_its_own_voxels(size: int, first: int) -> None:
    subject = ball(size)
    still = _gather(torch.from_numpy(subject.packed), _upsample(_own_voxels(subject, RECIPE), RECIPE.shape))
    expected = subject.packed[(slice(first, first + 32),) * 3]
    np.testing.assert_array_equal(still.numpy(), expected)


@pytest.mark.parametrize("spacing", [2.0, 3.5, 8.0])
def test_slices_keep_a_constant(spacing: float) -> None:
    np.testing.assert_allclose(slice_matrix(32, spacing, 0.8, 0.4).sum(1), 1, atol=1e-5)


def test_ghosts_spread_along_one_axis() -> None:
    image = torch.zeros(32, 32, 32)
    image[12:20, 12:20, 12:20] = 1
    moved = _move(image, 3.0, np.random.default_rng(1))
    outside = [moved.amax([a for a in range(3) if a != axis])[:10].max().item() for axis in range(3)]
    assert sum(value > 0.02 for value in outside) == 1
    torch.testing.assert_close(_move(image, 0.0, np.random.default_rng(1)), image, atol=1e-5, rtol=0)


def test_slices_blur_along_their_axis() -> None:
    # 4 mm slices, each the mean of its 4 samples: an edge between slices becomes a ramp
    edge = torch.cat((torch.zeros(16), torch.ones(16)))
    seen = slice_matrix(32, 4.0, 1.0, 0.375) @ edge  # the first slice's centre at 1.5: samples 0-3
    assert seen[:14].max() == 0
    assert seen[18:].min() == 1
    assert 0.3 < seen[15] < 0.5


def test_targets_are_those_of_the_drawn_blocks() -> None:
    packed = torch.from_numpy(ball(16).packed.copy())
    weight = torch.ones(packed.shape, dtype=torch.bool)
    options = TrainOptions(brain_blocks=50, outer_blocks=30, any_blocks=10, parcel_blocks=20)
    targets = choose_targets(packed, weight, options, torch.Generator().manual_seed(0))
    assert targets.tissue.shape == (8, 90)
    assert targets.parcel.shape == (8, 20)
    assert (targets.tissue[:, :50] > 0).any(0).all()
    assert (targets.tissue[:, 50:80] == 0).any(0).all()
    assert torch.isnan(targets.side[targets.tissue == TISSUE["csf"]]).all()
    assert set(np.unique(targets.parcel.numpy()).tolist()) <= {IGNORE, GYRUS["SFG"]}


def test_painted_lesions_are_drawn_on_purpose_and_learn_gyri_first() -> None:
    packed = torch.from_numpy(ball(16).packed.copy())
    white = torch.nonzero((packed & 31) == TISSUE["white-matter"])[:1]
    packed[tuple(white.T)] |= LESION_KIND << 12
    options = TrainOptions(lesion_blocks=5, brain_blocks=20, outer_blocks=0, any_blocks=0, parcel_blocks=5)
    targets = choose_targets(packed, torch.ones(packed.shape, dtype=torch.bool), options, torch.Generator())
    i, j, k = (white[0] // 2).tolist()
    assert targets.blocks[:5].tolist() == 5 * [(i * 8 + j) * 8 + k]
    assert targets.with_parcel.tolist() == [0, 1, 2, 3, 4]


def test_nothing_is_learned_where_there_is_no_image() -> None:
    packed = torch.from_numpy(ball(16).packed.copy())
    weight = torch.zeros(packed.shape, dtype=torch.bool)
    weight[..., :8] = True
    options = TrainOptions(brain_blocks=200, outer_blocks=50, any_blocks=50)
    targets = choose_targets(packed, weight, options, torch.Generator().manual_seed(0))
    assert (targets.blocks % 8 < 4).all()  # the third axis of the 8x8x8 blocks


def test_soft_dice_of_the_truth_is_perfect_and_of_the_opposite_bad() -> None:
    truth = torch.tensor([[0, 1, 1, 2] * 25, [2, 1, 0, 1] * 25])
    sure = torch.nn.functional.one_hot(truth, 4).float().transpose(1, 2)
    assert soft_dice_loss(sure, truth) == pytest.approx(0, abs=1e-6)
    assert soft_dice_loss(sure.roll(1, 1), truth) > 0.4


def test_rare_classes_weigh_more() -> None:
    weights = class_weights(torch.tensor([0.9, 0.1]), 0.5)
    assert weights[1] / weights[0] == pytest.approx(3.0, rel=1e-5)
    assert (weights * torch.tensor([0.9, 0.1])).sum() == pytest.approx(1.0)
    assert torch.equal(class_weights(torch.tensor([0.9, 0.1]), 0.0), torch.ones(2))


def test_learning_rates_warm_up_and_fall() -> None:
    options = TrainOptions(warmup_steps=10)
    rates = [schedule(options, step, step / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == max(rates[8:12])
    assert rates[-1] < 0.02


def test_training_learns_resumes_and_exports(tmp_path: Path) -> None:
    options = TrainOptions(
        steps=40,
        brain_blocks=400,
        outer_blocks=50,
        any_blocks=100,
        parcel_blocks=100,
        workers=0,
        threads=1,
        warmup_steps=5,
    )
    run = Run([ball()], [], tmp_path, UNetConfig(widths=(8, 8), head_width=16), RECIPE, options)
    first = train(run)
    rows = (tmp_path / "log.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[3]) for row in rows]
    assert np.median(losses[-15:]) < 0.8 * np.mean(losses[:5])  # the median, because single samples are very hard
    again = train(replace(run, options=replace(options, steps=45)))
    assert (first.step, again.step) == (40, 45)
    assert again.seconds > first.seconds
    export(run, again, tmp_path / "model", earlier=[{"hours": 1.5, "steps": 10, "options": {}}])
    training = load_model(tmp_path / "model").card.about["training"]
    assert training["steps"] == 10 + again.step
    assert 1.5 <= training["hours"] < 1.6
    assert [run["steps"] for run in training["runs"]] == [10, again.step]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 3.0), (0.25, 2.5), (1.0, 1.0)])
def test_finished_weights_keep_a_share_of_the_first(share: float, expected: float, tmp_path: Path) -> None:
    options = TrainOptions(init_share=share)
    state = new_state(UNetConfig(widths=(8, 8), head_width=16), options)
    state.average = {name: torch.full_like(value, 3.0) for name, value in state.average.items()}
    first = {name: torch.ones_like(value) for name, value in state.average.items()}
    found = final_weights(Run([], [], tmp_path, options=options, weights=first), state)
    assert all((value == expected).all() for value in found.values())
    assert final_weights(Run([], [], tmp_path, options=options), state) is state.average


@pytest.mark.parametrize(("p_first_look", "spans_the_brain"), [(0.0, True), (1.0, False)])
def test_grey_values_span_the_brain_but_for_the_first_look(p_first_look: float, spans_the_brain: bool) -> None:
    """Bright fat around a brain of 0 to 0.5 leaves it half of the scale where the whole image counts."""
    packed = torch.full((32, 32, 32), 3 << 12, dtype=torch.int16)
    packed[8:24, 8:24, 8:24] = TISSUE["cortex"]
    image = torch.ones(packed.shape)
    image[0] = 0
    image[8:24, 8:24, 8:24] = torch.linspace(0, 0.5, 16)[:, None, None]
    recipe = replace(RECIPE, p_first_look=p_first_look)
    found = _normalised(image.clone(), packed, recipe, np.random.default_rng(0))
    brightest = float(found[8:24, 8:24, 8:24].max())
    assert brightest == (1 if spans_the_brain else pytest.approx(0.5, abs=0.02))


def test_fat_is_brighter_than_white_matter_in_many_palettes() -> None:
    ratios = []
    for seed in range(300):
        means, _ = _palette(np.random.default_rng(seed))
        ratios.append(means[len(TISSUES) - 1 + FATTY[0]] / max(means[TISSUE["white-matter"]], 0.01))
    bright = np.array(ratios) > 1.2
    assert 0.4 < bright.mean() < 0.9
    assert 2 < np.percentile(np.array(ratios)[bright], 60) < 3.5
