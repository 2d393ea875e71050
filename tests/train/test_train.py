import itertools
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from bidsseg.errors import FileError
from bidsseg.labels import TISSUE, TISSUES, UNKNOWN_PARCEL, gyri
from bidsseg.network.config import UNetConfig
from bidsseg.network.weights import load_model
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.contrast import FATTY, N_CLASSES, Mixture, _palette, remap
from bidsseg.train.data import (
    LESION_KIND,
    VALIDATION_SUBJECTS,
    Subject,
    brain_box,
    brain_folders,
    into_head,
    pack,
    unpack,
    without_fluid,
)
from bidsseg.train.lessons import Lesson, LessonStream, Place, shared_progress
from bidsseg.train.loop import (
    Run,
    State,
    export,
    final_weights,
    new_state,
    save_state,
    schedule,
    set_gradients,
    start_or_resume,
    train,
    update,
)
from bidsseg.train.losses import IGNORE, _cross_entropy, _pick, choose_targets, class_weights, losses, soft_dice_loss
from bidsseg.train.options import SynthesisSettings, TrainOptions
from bidsseg.train.sampling_grids import FINEST, _warp, gather, own_voxels, sampling_grid, upsample
from bidsseg.train.shapes import in_groups
from bidsseg.train.synthesis import (
    MNI_BRAIN_BOX,
    SLICE_MM,
    Material,
    Sample,
    Slices,
    _finish,
    _in_slices,
    _move,
    draw,
)

GYRUS = {gyrus.abbreviation: index for index, gyrus in enumerate(gyri())}
RECIPE = SynthesisSettings(shape=(32, 32, 32), shift_mm=2, warp_mm=1, multiple=4)


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


def seen_whole(packed: Tensor) -> Sample:
    return Sample(packed.half(), packed, torch.ones(packed.shape, dtype=torch.bool))


def material(*lesions: NDArray[np.uint8]) -> Material:
    return Material.on(CPU, [ball()], lesions)


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
    assert GYRUS["SFG"] not in unpack(joined.packed).parcel  # of the host


def test_validation_subjects_never_train(tmp_path: Path) -> None:
    for name in ("sub-1000", "sub-1001", *VALIDATION_SUBJECTS):
        (tmp_path / "miccai2012-train" / name).mkdir(parents=True)
    assert [folder.name for folder in brain_folders(tmp_path, validation=False)] == ["sub-1000", "sub-1001"]
    assert [folder.name for folder in brain_folders(tmp_path, validation=True)] == list(VALIDATION_SUBJECTS)


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_samples_are_normalised_and_match_their_labels(difficulty: float, seed: int) -> None:
    sample = draw(material(), RECIPE, difficulty, Chance.of(seed))
    assert sample.image.shape == sample.packed.shape == sample.weight.shape
    assert all(n in (16, 20, 24, 28, 32) for n in sample.image.shape)
    assert sample.image.min() >= 0
    assert sample.image.max() <= 1
    assert torch.isfinite(sample.image).all()
    assert set(np.unique(sample.packed.numpy() & 31).tolist()) <= {0, 1, 2, TISSUE["csf"]}
    assert not sample.image[~sample.weight].any()


# What this recipe gave on a CPU when warps first had octaves: number of the sample, shape, voxels of
# white matter, cortex, CSF and lesion, mean and standard deviation of the image, its middle voxel.
EVERYTHING = replace(RECIPE, p_lesions=1.0, p_moved=0.5, p_still=0.3)
FIRST_SAMPLES = [
    (0, (32, 32, 32), (964, 3491, 3011, 376), (0.1971, 0.2722, 0.1584)),
    (1, (32, 32, 32), (945, 3569, 3181, 413), (0.0872, 0.156, 0.8887)),
    (2, (32, 32, 16), (782, 2668, 2362, 351), (0.2176, 0.2364, 0.4441)),
    (3, (32, 32, 32), (912, 3312, 2984, 344), (0.1335, 0.228, 0.8696)),
    (4, (32, 32, 32), (978, 3628, 3135, 468), (0.09, 0.1925, 0.4187)),
    (5, (32, 32, 16), (844, 1602, 1027, 328), (0.1621, 0.2996, 0.2041)),
    (6, (32, 32, 20), (1167, 3414, 2894, 483), (0.2549, 0.2675, 0.2228)),
    (7, (32, 32, 28), (929, 3440, 2976, 400), (0.2917, 0.1645, 0.7588)),
    (8, (32, 32, 16), (912, 2612, 1768, 344), (0.243, 0.2538, 0.6802)),
    (9, (32, 32, 32), (2429, 8821, 7155, 962), (0.4849, 0.3144, 0.3677)),
    (10, (32, 32, 32), (912, 3312, 2984, 344), (0.2658, 0.2597, 0.8076)),
    (11, (32, 32, 32), (1073, 3660, 3310, 457), (0.1761, 0.2691, 0.5181)),
    (12, (32, 32, 32), (912, 3312, 2984, 344), (0.2129, 0.2138, 0.4844)),
    (13, (32, 32, 16), (301, 972, 635, 154), (0.0609, 0.1934, 0.8125)),
    (14, (32, 32, 16), (607, 1123, 755, 256), (0.0697, 0.1771, 0.7627)),
    (15, (28, 32, 32), (1550, 5431, 4475, 649), (0.1911, 0.1999, 0.4111)),
    (16, (32, 32, 20), (981, 3233, 2600, 416), (0.2053, 0.2707, 0.3149)),
    (17, (32, 16, 32), (48, 1351, 1669, 36), (0.1014, 0.2237, 0.6675)),
    (18, (32, 32, 32), (923, 3511, 3045, 388), (0.1447, 0.2572, 0.8833)),
    (19, (32, 16, 32), (1177, 2234, 1376, 499), (0.1377, 0.2502, 0.0345)),
]


def half_a_head_of_lesions() -> NDArray[np.uint8]:
    mask = np.zeros((MNI_BRAIN_BOX[1] + 20).astype(int), np.uint8)
    mask[: len(mask) // 2] = 1
    return mask


@pytest.mark.parametrize(("number", "shape", "voxels", "greys"), FIRST_SAMPLES)
def test_samples_are_those_of_the_first_synthesis(
    number: int, shape: tuple[int, ...], voxels: tuple[int, ...], greys: tuple[float, ...]
) -> None:
    sample = draw(material(half_a_head_of_lesions()), EVERYTHING, 1.0, Chance.of((7, number)))
    assert sample.image.shape == shape
    tissue = sample.packed & 31
    counts = [(tissue == kind).sum().item() for kind in (TISSUE["white-matter"], TISSUE["cortex"], TISSUE["csf"])]
    lesion = ((sample.packed >> 12) & 15 == LESION_KIND).sum().item()
    assert (*counts, lesion) == voxels
    image = sample.image.float()
    middle = image[tuple(n // 2 for n in shape)]
    assert [image.mean().item(), image.std(correction=0).item(), middle.item()] == pytest.approx(greys, abs=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("number", range(12))
def test_samples_of_a_gpu_are_those_of_the_cpu_but_for_noise(number: int) -> None:
    drawn = []
    for device in (CPU, torch.device("cuda")):
        made_there = Material.on(device, [ball()], [half_a_head_of_lesions()])
        drawn += [draw(made_there, EVERYTHING, 1.0, Chance.of((7, number), device)) for _ in range(2)]
    for one, again in (drawn[:2], drawn[2:]):
        assert torch.equal(one.image, again.image)
    there, here = drawn[2], drawn[0]
    assert (there.packed.cpu() != here.packed).float().mean() < 1e-3
    assert torch.equal(there.weight.cpu(), here.weight)
    assert there.image.float().mean().item() == pytest.approx(here.image.float().mean().item(), abs=0.01)
    assert there.image.float().std().item() == pytest.approx(here.image.float().std().item(), abs=0.01)


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_one_seed_and_number_give_one_sample(difficulty: float) -> None:
    one, same, other = (draw(material(), RECIPE, difficulty, Chance.of((3, n))) for n in (5, 5, 6))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.packed, same.packed)
    assert one.image.shape != other.image.shape or not torch.equal(one.image, other.image)


def test_a_flip_swaps_the_sides() -> None:
    """Whatever the draw, left lies on the left: low i."""
    for seed in range(8):
        sample = draw(material(), replace(RECIPE, p_cropped=0), 0.0, Chance.of(seed))
        brain = ((sample.packed & 31) == TISSUE["white-matter"]).numpy()
        side = ((sample.packed >> 5) & 1).numpy().astype(bool)
        i = np.arange(32)[:, None, None] * np.ones_like(brain)
        assert i[brain & ~side].mean() < i[brain & side].mean()


def test_lesions_are_painted_into_white_matter_only() -> None:
    shape = tuple((MNI_BRAIN_BOX[1] + 20).astype(int))
    everywhere: NDArray[np.uint8] = np.ones(shape, np.uint8)
    recipe = replace(RECIPE, p_lesions=10.0, p_synthetic=0.0, p_cropped=0)
    packed = draw(material(everywhere), recipe, 0.0, Chance.of(0)).packed.numpy()
    lesion = ((packed.view(np.uint16) >> 12) & 15) == LESION_KIND
    white = (packed & 31) == TISSUE["white-matter"]
    np.testing.assert_array_equal(lesion, white)


def test_slabs_show_whole_sections_and_are_padded_as_at_inference() -> None:
    recipe, thin = replace(RECIPE, p_cropped=10.0), 0
    for seed in range(12):
        sample = draw(material(), recipe, 0.5, Chance.of(seed))
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
    old, new = torch.zeros(N_CLASSES), torch.zeros(N_CLASSES)
    for name, before, after in (("lateral-ventricle", 0.2, 0.9), ("cortex", 0.6, 0.5), ("white-matter", 0.8, 0.3)):
        old[TISSUE[name]], new[TISSUE[name]] = before, after
    scan = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.7, 0.8])
    found = remap(scan, old, new, np.random.default_rng(0))
    np.testing.assert_allclose(found, [0, 0.9, 0.7, 0.5, 0.4, 0.3], atol=1e-6)


def test_a_swollen_middle_leaves_the_rim_in_place() -> None:
    plain = SynthesisSettings(rotation_deg=0, scaling=0, shift_mm=0, warp_mm=0, p_swollen=0)
    grids = [
        sampling_grid(ball().box, recipe, 1.0, np.random.default_rng(2))
        for recipe in (plain, replace(plain, p_swollen=1.0))
    ]
    moved = np.linalg.norm(grids[1] - grids[0], axis=0)
    assert moved[8:13:4, 12, 8:13:4].min() > 2  # 22 mm from the middle
    assert moved[0, 0, 0] < 0.1


def moves_only(octave: int) -> Mock:
    """Chance that moves every node of one octave of a warp, as far as it may, and no other."""
    drawn = itertools.count()
    return Mock(
        normal=lambda mean, height, shape: np.full(shape, height * (next(drawn) == octave)),
        uniform=lambda least, most: most,
    )


@pytest.mark.parametrize(("octave", "moved_mm"), [(0, 10), (1, 4), (2, 1.6)])
def test_every_octave_of_a_warp_is_lower(octave: int, moved_mm: float) -> None:
    np.testing.assert_allclose(_warp(10, moves_only(octave)), np.full((3, *FINEST), moved_mm, float), rtol=1e-5)


def test_a_warp_bends_within_8_mm() -> None:
    bend = np.diff(_warp(5, np.random.default_rng(1)), 2, axis=1)
    assert np.abs(bend[:, ::2]).max() > 0.5
    assert np.abs(bend[:, 1::2]).max() > 0.5


@pytest.mark.parametrize(("size", "first"), [(40, 4), (41, 5)])
def test_a_still_scan_keeps_its_own_voxels(size: int, first: int) -> None:
    subject = ball(size)
    grid = upsample(own_voxels(subject.box, RECIPE), RECIPE.shape, CPU)
    still = gather(torch.from_numpy(subject.packed), grid)
    expected = subject.packed[(slice(first, first + 32),) * 3]
    np.testing.assert_array_equal(still.numpy(), expected)


@pytest.mark.parametrize("spacing", [2.0, 3.5, 8.0])
def test_slices_keep_a_constant(spacing: float) -> None:
    np.testing.assert_allclose(Slices.of(32, spacing, 0.8, 0.4).matrix.sum(1), 1, atol=1e-5)


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
    seen = (
        torch.from_numpy(Slices.of(32, 4.0, 1.0, 0.375).matrix) @ edge
    )  # the first slice's centre at 1.5: samples 0-3
    assert seen[:14].max() == 0
    assert seen[18:].min() == 1
    assert 0.3 < seen[15] < 0.5


def test_targets_are_those_of_the_drawn_blocks() -> None:
    packed = torch.from_numpy(ball(16).packed.copy())
    weight = torch.ones(packed.shape, dtype=torch.bool)
    options = TrainOptions(lesion_blocks=0, brain_blocks=50, outer_blocks=30, any_blocks=10, parcel_blocks=20)
    targets = choose_targets(Sample(packed.half(), packed, weight), options, torch.Generator().manual_seed(0))
    assert targets.tissue.shape == (8, 90)
    assert targets.parcel.shape == (8, 20)
    assert (targets.tissue[:, :50] > 0).any(0).all()
    assert (targets.tissue[:, 50:80] == 0).any(0).all()
    assert torch.isnan(targets.side[targets.tissue == TISSUE["csf"]]).all()
    assert set(np.unique(targets.parcel.numpy()).tolist()) <= {IGNORE, GYRUS["SFG"]}


def test_of_an_extracted_brain_nothing_outside_is_learned() -> None:
    recipe = replace(RECIPE, p_head=0, p_cropped=0)
    options = TrainOptions(lesion_blocks=0, brain_blocks=0, outer_blocks=30, any_blocks=0)
    targets = choose_targets(draw(material(), recipe, 0.5, Chance.of(1)), options, torch.Generator().manual_seed(0))
    assert (targets.tissue == IGNORE).all()


def test_painted_lesions_are_drawn_on_purpose_and_learn_gyri_first() -> None:
    packed = torch.from_numpy(ball(16).packed.copy())
    white = torch.nonzero((packed & 31) == TISSUE["white-matter"])[:1]
    packed[tuple(white.T)] |= LESION_KIND << 12
    options = TrainOptions(lesion_blocks=5, brain_blocks=20, outer_blocks=0, any_blocks=0, parcel_blocks=5)
    targets = choose_targets(seen_whole(packed), options, torch.Generator())
    i, j, k = (white[0] // 2).tolist()
    assert targets.blocks[:5].tolist() == 5 * [(i * 8 + j) * 8 + k]
    assert targets.with_parcel.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_blocks_are_drawn_evenly_from_a_pool_and_from_an_empty_one_in_name_alone(share: float) -> None:
    pool = torch.rand(5000, generator=torch.Generator().manual_seed(1)) < share
    places, found = _pick(pool, 20_000, torch.Generator().manual_seed(2))
    assert found.all() if share else not found.any()
    counts = torch.bincount(places, minlength=len(pool))
    if share:
        expected = len(places) / pool.sum()
        assert not counts[~pool].any()
        assert (counts[pool] - expected).abs().max() < 6 * expected**0.5 + 1


def test_what_a_sample_does_not_offer_costs_nothing() -> None:
    """Air alone: no brain, lesion, side or parcel to learn, and no number that is none."""
    air = torch.zeros(16, 16, 16, dtype=torch.int16)
    targets = choose_targets(seen_whole(air), TrainOptions(), torch.Generator().manual_seed(0))
    assert (targets.tissue[:, :-2000] == IGNORE).all()
    assert (targets.tissue[:, -2000:] == 0).all()
    net = new_state(UNetConfig(widths=(8, 8), head_width=16), TrainOptions()).net
    found = losses(net, net.features(torch.rand(1, 1, 16, 16, 16)), [targets], torch.ones(len(TISSUES)))
    assert found["side"] == 0
    assert found["parcel"] == 0
    assert all(torch.isfinite(loss) for loss in found.values())


def test_losses_are_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    log_p = torch.randn(8, 5, 2, 30, generator=generator).log_softmax(1)
    truth = torch.randint(0, 5, (8, 2, 30), generator=generator)
    truth[0, :, :7] = IGNORE
    weight = torch.rand(5, generator=generator) + 0.5
    for sample, found in enumerate(_cross_entropy(log_p, truth, weight)):
        expected = torch.nn.functional.nll_loss(log_p[:, :, sample], truth[:, sample], weight, ignore_index=IGNORE)
        assert found == pytest.approx(expected.item(), rel=1e-5)


def test_a_step_on_samples_of_several_shapes_is_the_mean_of_their_own() -> None:
    recipe = replace(RECIPE, p_cropped=1.0)
    options = TrainOptions(brain_blocks=300, outer_blocks=50, any_blocks=50, lesion_blocks=10, parcel_blocks=100)
    stream = LessonStream(material(), recipe, shared_progress(0.5), options, Place())
    drawn = list(itertools.islice(stream, 5))
    drawn.append(drawn[0])
    groups = in_groups(drawn, lambda lesson: lesson.shape)
    assert 1 < len(groups) < len(drawn)
    in_order = [lesson for group in groups for lesson in group]
    state = new_state(UNetConfig(widths=(8, 8), head_width=16), options)

    def gradients(steps: list[list[Lesson]]) -> list[Tensor]:
        found = []
        for step in steps:
            set_gradients(state, step, options, 0.5)
            found.append(torch.cat([w.grad.flatten() for w in state.net.parameters() if w.grad is not None]))
        return found

    (together,) = gradients([in_order])
    alone = torch.stack(gradients([[lesson] for lesson in in_order])).mean(0)
    assert torch.norm(together - alone) < 0.02 * torch.norm(alone)  # bfloat16 rounds


def test_no_number_is_read_back_while_samples_are_made_and_learned_from() -> None:
    """A GPU would have to be waited for; fake tensors have shapes and no values, and refuse."""
    options = TrainOptions()
    state = new_state(UNetConfig(widths=(8, 8), head_width=16), options)
    made_from = material(half_a_head_of_lesions())
    with FakeTensorMode(allow_non_fake_inputs=True):
        drawn = list(itertools.islice(LessonStream(made_from, EVERYTHING, shared_progress(1.0), options, Place()), 20))
        parts = set_gradients(state, drawn[:3], options, 0.5)
        update(state, options)
        with pytest.raises(DataDependentOutputException):
            parts["tissue"].item()


def test_nothing_is_learned_where_there_is_no_image() -> None:
    packed = torch.from_numpy(ball(16).packed.copy())
    weight = torch.zeros(packed.shape, dtype=torch.bool)
    weight[..., :8] = True
    options = TrainOptions(lesion_blocks=0, brain_blocks=200, outer_blocks=50, any_blocks=50)
    targets = choose_targets(Sample(packed.half(), packed, weight), options, torch.Generator().manual_seed(0))
    assert (targets.blocks % 8 < 4).all()  # the third axis of the 8x8x8 blocks


def test_soft_dice_of_the_truth_is_perfect_and_of_the_opposite_bad() -> None:
    truth = torch.tensor([[[0, 1, 1, 2] * 25], [[2, 1, 0, 1] * 25]])  # (2, 1, 100): one sample
    sure = torch.nn.functional.one_hot(truth, 4).float().permute(0, 3, 1, 2)
    opposite = torch.cat((sure, sure.roll(1, 1)), 2)
    good, bad = soft_dice_loss(opposite, truth.expand(-1, 2, -1))
    assert good == pytest.approx(0, abs=1e-6)
    assert bad > 0.4


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


@pytest.mark.parametrize("damage", ["another network", "cut", "another file"])
def test_a_checkpoint_that_does_not_fit_is_named(damage: str, tmp_path: Path) -> None:
    run = Run([ball()], [], tmp_path, UNetConfig(widths=(4, 4), head_width=8))
    checkpoint = tmp_path / "checkpoint.safetensors"
    save_state(start_or_resume(run), tmp_path)
    if damage == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    elif damage == "another file":
        save_file(load_file(checkpoint), checkpoint)  # without what was noted beside the tensors
    else:
        run = replace(run, config=UNetConfig(widths=(4, 6), head_width=8))
    with pytest.raises(FileError, match="no checkpoint of this training; give the --init and --widths"):
        start_or_resume(run)


def test_a_resumed_training_is_the_one_that_went_through(tmp_path: Path) -> None:
    """Though lessons wait for their like when it is interrupted."""
    options = TrainOptions(
        steps=6,
        batch=4,
        alike=2,
        checkpoint_s=0,
        workers=0,
        threads=1,
        brain_blocks=100,
        outer_blocks=20,
        any_blocks=20,
        parcel_blocks=20,
    )
    recipe = replace(RECIPE, p_cropped=1.0)
    run = Run([ball()], [], tmp_path / "through", UNetConfig(widths=(4, 4), head_width=8), recipe, options)
    whole, waited = train(run), 0

    def interrupted(state: State) -> None:
        nonlocal waited
        waited = len(state.place.waiting)
        if state.step == 3:
            raise KeyboardInterrupt

    again = replace(run, out=tmp_path / "interrupted")
    with pytest.raises(KeyboardInterrupt):
        train(again, on_save=interrupted)
    assert waited > 0
    resumed = train(again)
    assert resumed.place == whole.place
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


@pytest.mark.parametrize(("share", "expected"), [(0.0, 3.0), (0.25, 2.5), (1.0, 1.0)])
def test_finished_weights_keep_a_share_of_the_first(share: float, expected: float, tmp_path: Path) -> None:
    options = TrainOptions(init_share=share)
    state = new_state(UNetConfig(widths=(8, 8), head_width=16), options)
    state.average = {name: torch.full_like(value, 3.0) for name, value in state.average.items()}
    first = {name: torch.ones_like(value) for name, value in state.average.items()}
    found = final_weights(Run([], [], tmp_path, options=options, weights=first), state)
    assert all((value == expected).all() for value in found.values())
    from_none = final_weights(Run([], [], tmp_path, options=options), state)
    assert all((value == 3.0).all() for value in from_none.values())


@pytest.mark.parametrize("known", [True, False])
def test_grey_values_span_the_brain_where_it_is_known(known: bool) -> None:
    """Bright fat around a brain of 0 to 0.5 leaves it half of the scale where the whole image counts."""
    packed = torch.full((32, 32, 32), 3 << 12, dtype=torch.int16)
    packed[8:24, 8:24, 8:24] = TISSUE["cortex"]
    image = torch.ones(packed.shape)
    image[0] = 0
    image[8:24, 8:24, 8:24] = torch.linspace(0, 0.5, 16)[:, None, None]
    brain = without_fluid(packed & 31) if known else None
    found = _finish(image, packed, brain, replace(RECIPE, p_cropped=0), 1.0, np.random.default_rng(0)).image
    brightest = float(found[8:24, 8:24, 8:24].max())
    assert brightest == (1 if known else pytest.approx(0.5, abs=0.02))


@pytest.mark.parametrize(("known", "between"), [(True, 1.0), (False, 5.5)])
def test_a_scalp_is_no_brighter_than_the_brain_in_slices_where_the_brain_is_known(known: bool, between: float) -> None:
    """Slices of 4 mm, the first eight samples brain of 1, the others scalp of 10: between the two lies their mean."""
    image = torch.ones(4, 4, 16)
    image[..., 8:] = 10
    slices = Slices.of(16, 4.0, 1.0, 0.375)  # centred at 1.5, 5.5, 9.5 and 13.5
    seen = _in_slices(image, slices, 2, image == 1 if known else None)
    torch.testing.assert_close(seen[0, 0, 7:9].mean(), torch.tensor(between))
    torch.testing.assert_close(_in_slices(image, slices, 2, image < 0), _in_slices(image, slices, 2, None))


def test_fat_is_brighter_than_white_matter_in_many_palettes() -> None:
    ratios = []
    for seed in range(300):
        means, _ = _palette(np.random.default_rng(seed), Mixture())
        ratios.append(means[len(TISSUES) - 1 + FATTY[0]] / max(means[TISSUE["white-matter"]], 0.01))
    bright = np.array(ratios) > 1.2
    assert 0.4 < bright.mean() < 0.9
    assert 2 < np.percentile(np.array(ratios)[bright], 60) < 3.5
