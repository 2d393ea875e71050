"""Probabilities that one can add up by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.imaging.grid import grid_of
from bidsseg.labels import N_PARCELS, TISSUE, TISSUES, Scheme, label_table, lobe_parts
from bidsseg.network.probabilities import Probabilities
from bidsseg.quality.evidence import Evidence, as_sure_as, collect, evidence_from, step, unevenness
from bidsseg.segmentation.probseg import label_probabilities, write_probabilities

SHAPE = (4, 4, 4)


def two_voxels(parcels: int = 0) -> Probabilities:
    """A box of 4x4x4 at (0, 2, 3) of the grid: left putamen (0.8, right 0.25) in one voxel, cortex (0.6) in another."""
    tissue = np.zeros((len(TISSUES), *SHAPE), np.float16)
    tissue[0] = 1
    right = np.zeros((1, *SHAPE), np.float16)
    part = np.zeros((2, 2, 2, parcels or len(lobe_parts())), np.float16)
    tissue[[0, TISSUE["putamen"]], 0, 0, 0] = 0.2, 0.8
    right[0, 0, 0, 0] = 0.25
    tissue[[0, TISSUE["cortex"]], 1, 1, 1] = 0.4, 0.6
    right[0, 1, 1, 1] = 1
    part[..., 0] = 1
    return Probabilities((0, 2, 3), tissue, right, part)


def collected(found: Probabilities, volume: NDArray[np.float32]) -> Evidence:
    """The evidence of an answer on a grid of the scan's own 1 mm voxels."""
    return collect(found, volume, grid_of(volume.shape, np.eye(4)))


def test_sums_of_a_label() -> None:
    sums = collected(two_voxels(), np.zeros((4, 6, 7), np.float32)).sums["regions"]
    assert sums[12][:3] == pytest.approx((1, 0.6, 0.6), abs=0.01)  # 0.8 x 0.75
    assert sums[12].centre == (0, 2, 3)
    assert sums[51][:3] == pytest.approx((0, 0.2, 0), abs=0.01)
    assert sums[12].soft_dice == pytest.approx(2 * 0.6 / 1.6, abs=0.01)
    assert sums[10].soft_dice == 0


@pytest.mark.parametrize("parcels", [0, N_PARCELS])
def test_lobes_join_what_regions_hold(parcels: int) -> None:
    evidence = collected(two_voxels(parcels), np.zeros((4, 6, 7), np.float32))
    totals = []
    for scheme in ("regions", "lobes"):
        sums = evidence.sums[scheme].values()
        totals.append([sum(s.voxels for s in sums), sum(s.probable for s in sums), sum(s.inside for s in sums)])
    assert totals[0] == pytest.approx(totals[1], abs=0.02)
    assert evidence.intracranial_mm3 == 2


def test_faces_count_only_where_the_box_reaches_them() -> None:
    found = two_voxels()
    cut = collected(found, np.zeros((4, 6, 7), np.float32)).cut_mm2
    assert cut == dict.fromkeys(("right", "back", "front", "bottom", "top"), 0) | {"left": 1}
    inside = Probabilities((1, 2, 3), found.tissue, found.right, found.parcels)
    assert not any(collected(inside, np.zeros((9, 9, 9), np.float32)).cut_mm2.values())


def test_unevenness_is_that_of_ripples_not_of_noise_lesions_or_bias() -> None:
    tissue: NDArray[np.uint8] = np.full((40, 40, 40), TISSUE["white-matter"], np.uint8)
    tissue[:6] = TISSUE["cortex"]
    i = np.arange(40)[:, None, None]
    even = np.where(tissue == TISSUE["cortex"], 0.5, 0.8) + np.zeros((40, 40, 40))
    ripples = 0.1 * np.sin(0.7 * np.arange(40))[:, None] + np.zeros_like(even)
    noise = np.random.default_rng(0).normal(0, 0.1, even.shape)
    lesion = np.zeros_like(even)
    lesion[20:26, 20:26, 20:26] = 0.4
    found = [
        unevenness((even + change).astype(np.float32), tissue) for change in (0, ripples, noise, lesion, 0.002 * i)
    ]
    uneven = [ripple for ripple, _ in found]
    assert uneven[0] == pytest.approx(0, abs=1e-3)
    # of a wave 9 mm long means over 3 mm leave 0.84, over 9 mm nothing; its quartiles lie at 0.71
    assert uneven[1] == pytest.approx(2 * 0.71 * 0.84 * 0.1 / 1.349, rel=0.1)
    assert uneven[2] < 0.3 * uneven[1]
    assert max(uneven[3:]) < 0.1 * uneven[1]
    assert found[2][1] == pytest.approx(0.1 * np.sqrt(26 / 27), rel=0.05)  # the noise itself, less its mean's
    assert unevenness(even[:8].astype(np.float32), tissue[:8]) == (0, 0)  # too little white matter
    assert step(even.astype(np.float32), tissue, "white-matter", "cortex") == pytest.approx(0.3)
    assert step(even[:6].astype(np.float32), tissue[:6], "white-matter", "cortex") == 0  # no white matter


def test_surroundings_are_what_is_bright_around_the_brain() -> None:
    volume = np.zeros((4, 6, 7), np.float32)
    assert collected(two_voxels(), volume).surroundings == 0
    volume[:2] = 0.5
    assert collected(two_voxels(), volume).surroundings == pytest.approx(30 / 62, abs=1e-4)  # two of 32 are brain


def test_a_fused_answer_is_as_sure_as_the_scans_own() -> None:
    own = collected(two_voxels(), np.zeros((9, 9, 9), np.float32))
    found = two_voxels()
    spread = replace(found, tissue=(found.tissue * np.float16(0.6) + np.float16(0.4 / len(TISSUES))))
    fused = as_sure_as(collected(spread, np.zeros((9, 9, 9), np.float32)), own)
    grey = np.zeros((9, 9, 9), np.float32)
    assert as_sure_as(collect(spread, grey, grid_of(grey.shape, np.eye(4)), how_sure=False), own) == fused
    for code, row in fused.sums["regions"].items():
        assert row.voxels == own.sums["regions"][code].voxels
        assert row.soft_dice == pytest.approx(own.sums["regions"][code].soft_dice if row.voxels else 0)


def test_the_way_through_json_changes_nothing() -> None:
    evidence = collected(two_voxels(), np.zeros((4, 6, 7), np.float32))
    assert evidence_from(json.loads(json.dumps(evidence.as_json()))) == evidence


@pytest.mark.parametrize("scheme", ["regions", "lobes"])
def test_label_probabilities_add_up_to_those_of_the_tissues(scheme: Scheme) -> None:
    found = two_voxels()
    parts = np.moveaxis(found.parcels.repeat(2, 0).repeat(2, 1).repeat(2, 2), -1, 0)  # they are alike everywhere
    channels = np.concatenate((found.tissue, found.right, parts)).astype(np.float32)
    answer = label_probabilities(channels, scheme)
    np.testing.assert_allclose(answer.sum(0), 1 - channels[0], atol=2e-3)
    assert len(answer) == len(label_table(scheme))


def test_probabilities_are_stored_in_the_scans_own_axes(tmp_path: Path) -> None:
    affine = np.diag((-1.0, 1.0, 1.0, 1.0))  # the scan's first axis runs to the left
    found = two_voxels()
    stored = np.load(write_probabilities(tmp_path / "p.npy", found, grid_of((4, 6, 7), affine), "regions"))
    row = [label.index for label in label_table("regions")].index(12)
    assert stored.shape == (52, 4, 6, 7)
    assert stored[row, 3, 2, 3] == round(255 * 0.6)
    assert stored[row].sum() == stored[row, 3, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["p.npy"]
