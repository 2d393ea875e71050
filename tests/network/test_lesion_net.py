"""The lesion network and what it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bidsseg.errors import FileError
from bidsseg.imaging.arrays import Floats
from bidsseg.labels import TISSUE, TISSUES
from bidsseg.network.lesion_card import LesionCard, read_lesion_card
from bidsseg.network.lesion_config import LesionNetConfig, Thresholds
from bidsseg.network.lesion_model import load_lesion_model, save_lesion_model
from bidsseg.network.lesion_net import (
    GROUPS,
    NEVER,
    PRESENT,
    LesionNet,
    depth_to_space,
    lesion_inputs,
    may_hold_lesion,
    tissue_box,
)
from bidsseg.network.unet import space_to_depth

SHAPE = (32, 40, 24)


def halves() -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.float16]]]:
    """White matter of 100 +- 10 on one side, cortex of 110 +- 5 on the other, a ventricle of 20 between."""
    rng = np.random.default_rng(0)
    tissue = np.zeros((len(TISSUES), *SHAPE), np.float16)
    tissue[TISSUE["white-matter"], :14] = 1
    tissue[TISSUE["lateral-ventricle"], 14:18] = 1
    tissue[TISSUE["cortex"], 18:] = 1
    grey = np.empty(SHAPE, np.float32)
    for name, mean, spread in (("white-matter", 100, 10), ("lateral-ventricle", 20, 1), ("cortex", 110, 5)):
        here = tissue[TISSUE[name]] > 0
        grey[here] = rng.normal(mean, spread, int(here.sum()))
    return grey, tissue


def test_grey_values_are_spreads_of_cortex_above_cortex() -> None:
    grey, tissue = halves()
    inputs, contrast = lesion_inputs(grey, tissue)
    of_cortex = inputs.relative[0, 18:].numpy()
    assert abs(np.median(of_cortex)) < 0.3
    assert of_cortex.std() == pytest.approx(1, abs=0.1)
    assert np.median(inputs.relative[0, :14]) == pytest.approx(-2, abs=0.3)
    factor, summand = inputs.white.tolist()
    of_white = factor * inputs.relative[0, :14] + summand
    assert of_white.median() == pytest.approx(0, abs=0.3)
    assert of_white.std() == pytest.approx(1, abs=0.1)
    assert (contrast.cortex, contrast.fluid) == pytest.approx((1, -8), abs=0.3)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_no_scanners_scale_reaches_the_network(scale: float) -> None:
    grey, tissue = halves()
    one, other = (lesion_inputs(grey * np.float32(factor), tissue)[0].relative for factor in (1, scale))
    assert torch.allclose(one, other, atol=1e-2)


def test_shading_of_white_matter_is_taken_out() -> None:
    """A field that brightens the scan towards one end of its second axis, by a tenth in all."""
    grey, tissue = halves()
    field = np.linspace(0.95, 1.05, SHAPE[1], dtype=np.float32)[None, :, None]
    relative = lesion_inputs(grey * field, tissue)[0].relative[0, :14]
    uncorrected = np.median((grey * field)[:14, -8:]) - np.median((grey * field)[:14, :8])
    assert abs(relative[:, -8:].median() - relative[:, :8].median()) < uncorrected / 5 / 2


def test_groups_share_out_the_brain_and_sides_grow() -> None:
    grey, tissue = halves()
    inputs, _ = lesion_inputs(np.ascontiguousarray(grey[:29]), np.ascontiguousarray(tissue[:, :29]))
    assert inputs.relative.shape == (1, *SHAPE)
    assert inputs.groups.shape == (len(GROUPS), 16, 20, 12)
    assert inputs.groups.sum(0)[:14].allclose(torch.ones(14, 20, 12))
    assert may_hold_lesion(inputs.groups[None])[0, 0].any((1, 2)).tolist() == [True] * 15 + [False]


def test_groups_are_means_of_blocks() -> None:
    """Of eight voxels three are thalamus and two putamen, one of them by half."""
    tissue = np.zeros((len(TISSUES), 2, 2, 2), np.float16)
    tissue[TISSUE["thalamus"], 0, 0] = 1
    tissue[TISSUE["thalamus"], 1, 1, 0] = 1
    tissue[TISSUE["putamen"], 1, 0] = (1, 0.5)
    inputs, _ = lesion_inputs(np.ones((2, 2, 2), np.float32), tissue)
    assert inputs.groups.sum() == inputs.groups.max() == 4.5 / 8
    assert "thalamus" in GROUPS[int(inputs.groups[:, 0, 0, 0].argmax())]


@pytest.mark.parametrize(("at", "expected"), [((20, 20, 20), (16, 28)), ((0, 39, 21), (0, 40))])
def test_the_box_of_tissue_has_a_margin(at: tuple[int, int, int], expected: tuple[int, int]) -> None:
    """Along the second axis of a volume of 40: around voxels 20 and 21, and around the first and the last."""
    tissue = np.zeros((len(TISSUES), 40, 40, 40), np.float16)
    tissue[TISSUE["csf"]] = 1
    for j in {at[1], 20 if at[1] == 20 else 0}:
        tissue[TISSUE["csf"], at[0] // 2 * 2, j // 2 * 2, at[2] // 2 * 2] = 0
        tissue[TISSUE["cortex"], at[0] // 2 * 2, j // 2 * 2, at[2] // 2 * 2] = 1
    side = tissue_box(tissue)[1]
    assert (side.start, side.stop) == expected


def test_every_tissue_but_fluid_and_air_is_in_one_group() -> None:
    assert sorted(name for names in GROUPS for name in names) == sorted(set(TISSUES) - {"background", "csf"})


def test_without_white_matter_nothing_stands_out() -> None:
    inputs, contrast = lesion_inputs(np.ones((4, 4, 4), np.float32), np.zeros((len(TISSUES), 4, 4, 4), np.float16))
    assert not inputs.relative.any()
    assert np.isnan(contrast.cortex)


def test_sub_voxels_return_to_their_places() -> None:
    volume = torch.arange(2 * 4 * 6 * 8.0).reshape(2, 1, 4, 6, 8)
    assert torch.equal(depth_to_space(space_to_depth(volume)), volume[:, 0])


def test_a_fresh_network_expects_few_lesions_everywhere() -> None:
    answer = LesionNet(LesionNetConfig(8, 8))(
        torch.randn(1, 1, 16, 20, 12), torch.rand(1, 2), torch.rand(1, len(GROUPS), 8, 10, 6) + PRESENT
    )
    assert answer.shape == (1, 16, 20, 12)
    assert torch.equal(answer, torch.full_like(answer, -4))


def test_no_lesion_lies_in_fluid_or_air() -> None:
    groups = torch.ones(1, len(GROUPS), 8, 10, 6)
    groups[:, :, :3] = 0
    answer = LesionNet(LesionNetConfig(8, 8))(torch.randn(1, 1, 16, 20, 12), torch.rand(1, 2), groups)
    assert (answer[:, :6] < NEVER / 2).all()
    assert (answer[:, 6:] > NEVER / 2).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = LesionNetConfig(8, 8)
    card = LesionCard("small", "0", config, "", thresholds=Thresholds(0.4, 0.6))
    save_lesion_model(tmp_path, LesionNet(config).state_dict(), card)
    return tmp_path


def test_a_model_comes_back_from_its_folder(folder: Path) -> None:
    model = load_lesion_model(folder)
    assert model.card.thresholds == (0.4, 0.6)
    assert model.net.config == LesionNetConfig(8, 8)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("card.json", b"[]"),
        ("card.json", b'{"name": "x"}'),
        ("weights.safetensors", b"none"),
    ],
)
def test_a_damaged_model_is_told_in_one_line(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(FileError, match=file):
        load_lesion_model(folder)


def test_a_threshold_out_of_bounds_is_refused(folder: Path) -> None:
    from bidsseg.network.lesion_card import write_lesion_card

    write_lesion_card(folder, replace(read_lesion_card(folder), thresholds=Thresholds(1.5, 0.5)))
    with pytest.raises(FileError, match="out of bounds"):
        read_lesion_card(folder)
