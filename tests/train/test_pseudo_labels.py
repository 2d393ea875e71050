from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.blocks import blocks_along
from bidsseg.labels import N_GYRI, N_PARCELS, TISSUE, TISSUES, UNKNOWN_PARCEL
from bidsseg.network.probabilities import Probabilities
from bidsseg.network.weights import load_model
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.data import LESION_KIND, LabelledPatient, Patient, Subject, TrainingSet, pack, unpack
from bidsseg.train.options import SynthesisSettings
from bidsseg.train.packing import pack_training_set, unpack_training_set
from bidsseg.train.pseudo_labels import OUTER_KIND, RENDERINGS, averaged, decided, parcelled, with_parcels
from bidsseg.train.sampling_grids import grid_of_slices, sampling_grid, upsample
from bidsseg.train.synthesis import Material, _chosen, _degrade, draw
from bidsseg.train.training_set import load_subjects, subjects_of

RECIPE = SynthesisSettings(shape=(32, 32, 32), shift_mm=2, warp_mm=1, multiple=4)
BOX = np.array([[4.0, 4.0, 4.0], [27.0, 27.0, 27.0]])


def answer(*names: str, second: str = "thalamus", origin: tuple[int, int, int] = (2, 0, 0)) -> Probabilities:
    """One voxel for each tissue along the first axis, on the right, of parcel 5; another is held for possible."""
    tissue = np.zeros((len(TISSUES), len(names), 1, 1), np.float16)
    for place, name in enumerate(names):
        tissue[TISSUE[second], place] = 0.25
        tissue[TISSUE[name], place] = 0.75
    parcels = np.zeros((*blocks_along(tissue.shape[1:]), N_PARCELS), np.float16)
    parcels[..., 5] = 1
    return Probabilities(origin, tissue, np.ones((1, *tissue.shape[1:]), np.float16), parcels)


def mask(*set_to: int, n: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(n), set_to).reshape(n, 1, 1)


@pytest.mark.parametrize(
    ("tissue", "second", "masks", "expected"),
    [
        ("white-matter", "third-ventricle", ("ventricle",), "third-ventricle"),
        ("white-matter", "thalamus", ("ventricle",), "lateral-ventricle"),
        ("inferior-lateral-ventricle", "thalamus", ("ventricle",), "inferior-lateral-ventricle"),
        ("lateral-ventricle", "thalamus", (), "thalamus"),
        ("fourth-ventricle", "csf", (), "csf"),
        ("inferior-lateral-ventricle", "thalamus", (), "inferior-lateral-ventricle"),
        ("cortex", "white-matter", ("lesion",), "white-matter"),
        ("cortex", "csf", ("lesion",), "white-matter"),
        ("inferior-lateral-ventricle", "pallidum", ("lesion",), "pallidum"),
        ("lateral-ventricle", "white-matter", ("lesion", "ventricle"), "lateral-ventricle"),
    ],
)
def test_the_raters_masks_decide(tissue: str, second: str, masks: tuple[str, ...], expected: str) -> None:
    given = {name: mask(*([2] if name in masks else []), n=4) for name in ("ventricle", "lesion")}
    packed = decided(answer(tissue, second=second), np.zeros((4, 1, 1), bool), given)
    assert [TISSUES[code] for code in unpack(packed).tissue[:, 0, 0]] == [*["background"] * 2, expected, "background"]
    kind = int(packed.view(np.uint16)[2, 0, 0] >> 12)
    assert kind == (LESION_KIND if masks == ("lesion",) and expected == "white-matter" else 0)


def test_without_masks_the_network_decides_and_the_rest_of_the_head_is_told_from_air() -> None:
    found = answer("lateral-ventricle", "cortex", "background")
    packed = decided(found, mask(2, 3, 4, n=6), {})
    anatomy = unpack(packed)
    assert anatomy.tissue[:, 0, 0].tolist() == [0, 0, TISSUE["lateral-ventricle"], TISSUE["cortex"], 0, 0]
    assert anatomy.side[:, 0, 0].tolist()[2:4] == [1, 1]
    assert anatomy.parcel[:, 0, 0].tolist() == [*[UNKNOWN_PARCEL] * 3, 5, *[UNKNOWN_PARCEL] * 2]
    assert (packed.view(np.uint16)[:, 0, 0] >> 12).tolist() == [0, 0, 0, 0, OUTER_KIND, 0]


def test_answers_are_averaged_over_the_box_that_holds_them() -> None:
    mean = averaged(answer("cortex", "csf"), answer("csf", "csf", origin=(4, 0, 0)), 1)
    mean = averaged(mean, answer("csf", "csf", origin=(0, 0, 0)), 2)
    assert mean.origin == (0, 0, 0)
    np.testing.assert_allclose(mean.tissue[TISSUE["csf"], :, 0, 0], [0.25, 0.25, 0, 0.25, 0.25, 0.25], atol=2e-3)
    np.testing.assert_allclose(mean.tissue[0, :, 0, 0], [2 / 3] * 6, atol=2e-3)
    np.testing.assert_allclose(mean.tissue.astype(float).sum(0), 1, atol=5e-3)
    np.testing.assert_allclose(mean.right, 2 / 3, atol=2e-3)  # one knows that it is right, and two know nothing
    np.testing.assert_allclose(mean.parcels[:, 0, 0, 5], [1 / 3] * 3, atol=2e-3)


GYRUS, OTHER_GYRUS, VERMIS = 5, 40, N_GYRI + 1


@pytest.mark.parametrize(
    ("shares", "tissues", "expected"),
    [
        ({GYRUS: 0.3, VERMIS: 0.7}, "cortex cerebellum-cortex thalamus", [GYRUS, VERMIS, UNKNOWN_PARCEL]),
        ({GYRUS: 0.3, OTHER_GYRUS: 0.7}, "cortex cortex csf", [OTHER_GYRUS, OTHER_GYRUS, UNKNOWN_PARCEL]),
        ({GYRUS: 1}, "white-matter cortex background", [GYRUS, GYRUS, UNKNOWN_PARCEL]),
        ({GYRUS: 1}, "white-matter cerebellum-cortex csf", [UNKNOWN_PARCEL, N_GYRI, UNKNOWN_PARCEL]),
        ({}, "white-matter cortex cerebellum-cortex", [UNKNOWN_PARCEL] * 3),
    ],
)
def test_a_map_takes_the_likeliest_parcels_of_its_own_tissues(
    shares: dict[int, float], tissues: str, expected: list[int]
) -> None:
    found = answer(*["putamen"] * 3)
    found.parcels[:] = 0
    for parcel, share in shares.items():
        found.parcels[..., parcel] = share
    codes = [TISSUE[name] for name in tissues.split()]
    tissue = np.array([0, 0, *codes, 0], np.uint8).reshape(6, 1, 1)
    packed = parcelled(pack(Anatomy(tissue, tissue * 0, tissue * 0 + UNKNOWN_PARCEL)), found)
    assert unpack(packed).parcel[2:5, 0, 0].tolist() == expected
    np.testing.assert_array_equal(unpack(packed).tissue, tissue)


def test_white_matter_takes_the_parcel_of_the_nearest_cortex_of_its_side_where_that_is_known() -> None:
    row = np.array([1, 1, 2, 2, 2, 1, 2], np.uint8).reshape(7, 1, 1)
    side = np.array([0, 0, 0, 1, 0, 0, 1], np.uint8).reshape(7, 1, 1)
    found = answer("cortex", "cortex", origin=(0, 0, 0))
    parcel = unpack(parcelled(pack(Anatomy(row, side, row * 0 + UNKNOWN_PARCEL)), found)).parcel
    assert parcel[:, 0, 0].tolist() == [5, 5, 5, *[UNKNOWN_PARCEL] * 4]  # beyond the box cortex is unknown


def ball() -> Subject:
    """A ball of white matter in cortex in CSF, in a skull, without parcels; its kinds and sides are all in use."""
    radius = np.sqrt(sum((axis - 23.5) ** 2 for axis in np.ogrid[:48, :48, :48]))
    tissue = np.select([radius < 10, radius < 14, radius < 17], [2, 1, 7], 0).astype(np.uint8)
    side = (np.arange(48)[:, None, None] > 23).astype(np.uint8) * (tissue > 0)
    kind = ((radius >= 17) & (radius < 20)) * 3 + (radius < 4) * LESION_KIND
    return Subject(
        "ball", pack(Anatomy(tissue, side, tissue * 0 + UNKNOWN_PARCEL), kind.astype(np.uint8)), None, BOX + 8
    )


def test_a_map_keeps_all_but_its_parcels_and_gets_the_same_ones_every_time(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Floats] = []

    def watched(volume: Floats, *rest: object) -> tuple[Probabilities, Floats]:
        seen.append(volume)
        grid = answer(*["thalamus"] * 48, origin=(0, 0, 0))
        tissue = np.broadcast_to(grid.tissue, (len(TISSUES), 48, 48, 48)).copy()
        right = np.broadcast_to(grid.right, (1, 48, 48, 48)).copy()
        parcels = np.broadcast_to(grid.parcels, (24, 24, 24, N_PARCELS)).copy()
        return Probabilities((0, 0, 0), tissue, right, parcels), volume

    monkeypatch.setattr("bidsseg.train.pseudo_labels.infer", watched)
    before, model = ball(), load_model(tiny_model)
    after = with_parcels(before, model)
    old, new = unpack(before.packed), unpack(after.packed)
    np.testing.assert_array_equal((before.packed ^ after.packed) & ~np.int16(63 << 6), 0)
    np.testing.assert_array_equal(new.parcel, np.where(np.isin(old.tissue, (1, 2)), 5, UNKNOWN_PARCEL))
    assert len(seen) == RENDERINGS
    for volume in seen:  # as T1w scans are
        fluid, grey, white = (float(volume[old.tissue == code].mean()) for code in (TISSUE["csf"], 1, 2))
        assert fluid < grey < white
    assert abs(seen[0] - seen[1]).max() > 0.1
    with_parcels(before, model)
    np.testing.assert_array_equal(seen[:RENDERINGS], seen[RENDERINGS:])


def test_a_network_that_answers_changes_nothing_but_parcels(tiny_model: Path) -> None:
    before = ball()
    after = with_parcels(before, load_model(tiny_model))
    assert (after.name, after.image) == (before.name, None)
    np.testing.assert_array_equal((before.packed ^ after.packed) & ~np.int16(63 << 6), 0)
    parcel, tissue = unpack(after.packed).parcel, unpack(after.packed).tissue
    assert (parcel[tissue == 1] < N_GYRI).all()
    assert (parcel[~np.isin(tissue, (1, 2))] == UNKNOWN_PARCEL).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_stay_slices(axis: int) -> None:
    within = tuple(a for a in range(3) if a != axis)
    coarse = grid_of_slices(BOX, axis, RECIPE, 1.0, np.random.default_rng(axis))
    grid = upsample(coarse, RECIPE.shape, CPU).numpy()
    assert np.ptp(grid[axis], within).max() < 1e-3
    steps = np.diff(grid[axis].mean(within))
    np.testing.assert_allclose(steps, steps[0], atol=1e-3)
    assert 0.95 <= steps[0] <= 1.052
    assert np.ptp(sampling_grid(BOX, RECIPE, 1.0, np.random.default_rng(axis))[axis], within).max() > 1


@pytest.mark.parametrize("seed", range(6))
def test_degrading_does_not_blur_across_slices(seed: int) -> None:
    planes = torch.zeros(RECIPE.shape)
    planes[:, :, ::4] = 1
    recipe = replace(RECIPE, p_slices=1, p_moved=1, movement_mm=3)
    found = _degrade(planes, recipe, 0.0, Chance.of(seed), slice_axis=2)
    between = found[8:24, 8:24, 2::4].abs().mean()
    assert between < 0.05 * found[8:24, 8:24, ::4].mean()


def clinical(size: int = 40) -> Subject:
    """A brain of grey value 0.5, which is labelled, in a bright head in slices along the last axis."""
    tissue, scan = np.zeros((size, size, size), np.uint8), np.zeros((size, size, size), np.float16)
    tissue[10:30, 10:30, 10:30] = TISSUE["white-matter"]
    scan[4:36, 4:36, 4:36] = 2
    scan[tissue > 0] = 0.5
    packed = pack(Anatomy(tissue, tissue * 0, tissue * 0), ((scan > 1) * OUTER_KIND).astype(np.uint8))
    return Subject("clinical", packed, scan, np.array([[10.0] * 3, [29.0] * 3]), slice_axis=2, whole_head=True)


def label_map() -> Subject:
    return replace(clinical(), name="map", image=None, slice_axis=None, whole_head=False)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 40), (0.5, 20)])
def test_clinical_scans_are_drawn_by_their_share_alone(share: float, expected: int) -> None:
    brain = replace(label_map(), image=clinical().image)
    material = Material.on(CPU, [clinical(), label_map(), brain], [])
    rng = np.random.default_rng(1)
    drawn = [_chosen(material, replace(RECIPE, p_clinical=share), 0.0, rng)[0].whole_head for _ in range(40)]
    assert abs(sum(drawn) - expected) <= (0 if share in (0.0, 1.0) else 9)


@pytest.mark.parametrize("p_head", [0.0, 1.0])
def test_what_lies_around_a_clinical_brain_is_real_or_taken_away(p_head: float) -> None:
    quiet = replace(
        RECIPE, p_clinical=1, p_still=1, p_head=p_head, p_slices=0, p_moved=0, p_cropped=0, p_first_look=1, shift_mm=0
    )
    material = Material.on(CPU, [clinical()], [np.ones((182, 218, 182), np.uint8)])
    sample = draw(material, replace(quiet, p_lesions=1), 0.0, Chance.of(3))
    kinds = (sample.packed >> 12) & 15
    around, brain = sample.image[2:4, 8:24, 8:24].float().mean(), sample.image[12:20, 12:20, 12:20].float().mean()
    assert not (kinds == LESION_KIND).any()
    if p_head:
        assert around > 2 * brain
        assert (kinds == OUTER_KIND).any()
    else:
        assert around < 0.2 < brain
        assert not kinds.any()


def patient() -> LabelledPatient:
    rng = np.random.default_rng(0)
    scans = {
        name: (100 + rng.normal(0, 2, (30, 30, 5)) + grey * np.eye(30)[:, :, None]).astype(np.float32)
        for name, grey in (("FLAIR", 10), ("T1w", 20))
    }
    tissue = np.zeros((30, 30, 30), np.uint8)
    tissue[8:22, 8:22, 8:22] = TISSUE["white-matter"]
    packed = pack(Anatomy(tissue, tissue * 0, tissue * 0))
    return LabelledPatient(Patient("sub-01", scans, {}, np.diag((1.0, 1.0, 6.0, 1.0))), packed)


def test_every_scan_of_a_patient_is_a_subject_in_grey_values_of_its_brain() -> None:
    found = patient().subjects()
    assert [subject.name for subject in found] == ["sub-01_FLAIR", "sub-01_T1w"]
    for subject in found:
        assert (subject.slice_axis, subject.whole_head, subject.packed.shape) == (2, True, (32, 32, 32))
        assert subject.image is not None
        assert np.percentile(subject.image[(subject.packed & 31) != 0], 99.5) == pytest.approx(1, abs=2e-3)
        assert subject.image[1:-1, 1:-1, 1:-1].min() > 0.5  # what lies around is there, too


def test_labelled_patients_are_packed_and_unpacked(tmp_path: Path) -> None:
    known = TrainingSet([], [], [], [patient()])
    pack_training_set(known, tmp_path / "file")
    before, after = subjects_of(known), subjects_of(unpack_training_set(tmp_path / "file"))
    for one, other in zip(before, after, strict=True):
        assert (one.name, one.slice_axis, one.whole_head) == (other.name, other.slice_axis, other.whole_head)
        np.testing.assert_array_equal(one.packed, other.packed)
        np.testing.assert_array_equal(one.box, other.box)
        assert one.image is not None
        assert other.image is not None
        np.testing.assert_allclose(one.image.astype(float), other.image.astype(float), atol=0.02)


def test_the_cache_keeps_what_the_scans_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = TrainingSet([label_map()], [], [], [patient()])
    monkeypatch.setattr("bidsseg.train.training_set.load_training_set", lambda data: known)
    load_subjects(tmp_path, tmp_path / "cache")
    monkeypatch.setattr("bidsseg.train.training_set.load_training_set", lambda data: pytest.fail("made again"))
    found = load_subjects(tmp_path, tmp_path / "cache")
    assert [(s.name, s.slice_axis, s.whole_head, s.image is None) for s in found] == [
        ("map", None, False, True),
        ("sub-01_FLAIR", 2, True, False),
        ("sub-01_T1w", 2, True, False),
    ]
