"""Painted lesions, pieces of examples, and a short training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bidsseg.cli.lesion_training import _log_step
from bidsseg.network.lesion_config import LesionNetConfig
from bidsseg.network.lesion_net import GROUPS
from bidsseg.network.weights import load_model
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.lesion_examples import Examples, LesionExample, from_painted
from bidsseg.train.lesion_painting import painted_flair
from bidsseg.train.lesion_training import (
    LesionTrainOptions,
    Piece,
    changed,
    draw_pieces,
    loss_of,
    places_of,
    train_lesions,
)
from bidsseg.train.options import SynthesisSettings
from bidsseg.train.synthesis import Material
from tests.train.test_train import ball

SIZE = 10
SMALL = SynthesisSettings(shape=(48, 48, 48), shift_mm=2, warp_mm=1)


def material() -> Material:
    return Material.on(CPU, [ball()], [np.ones((182, 218, 182), np.uint8)])


@pytest.mark.parametrize("seed", range(6))
def test_painted_lesions_are_bright_and_the_truth_follows_slices(seed: int) -> None:
    painted = painted_flair(material(), Chance.of(seed), SMALL)
    lesion = painted.lesion
    assert painted.image.shape == lesion.shape == SMALL.shape
    assert 0 <= lesion.min() <= lesion.max() <= 1 + 1e-5
    if (lesion > 0.9).sum() > 20:
        assert painted.image[lesion > 0.9].mean() > painted.image[lesion == 0].mean()


def test_the_same_number_paints_the_same_scan() -> None:
    one, other = (painted_flair(material(), Chance.of(3), SMALL) for _ in range(2))
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.lesion, other.lesion)


def test_an_example_of_a_painted_scan_has_whole_blocks_of_both_levels(tiny_model: Path) -> None:
    example = from_painted(material(), load_model(tiny_model), 1, SMALL)
    assert all(n % 4 == 0 for n in example.lesion.shape)
    assert example.relative.shape[1:] == example.lesion.shape == example.bright.shape
    assert example.groups.shape == (len(GROUPS), *(n // 2 for n in example.lesion.shape))


def example(lesion_at: tuple[int, int, int] = (30, 40, 20)) -> LesionExample:
    """White matter everywhere, and in it a bright cube of 8 mm."""
    lesion = torch.zeros(64, 56, 40)
    lesion[tuple(slice(n, n + 8) for n in lesion_at)] = 1
    groups = torch.zeros(len(GROUPS), 32, 28, 20)
    groups[GROUPS.index(("white-matter",))] = 1
    relative = 5 * lesion + 0.3 * torch.randn((1, *lesion.shape), generator=torch.Generator().manual_seed(0))
    return LesionExample(
        relative.half(), torch.tensor((1.0, 0.0)), groups.half(), lesion.half(), torch.zeros_like(lesion).half()
    )


def test_pieces_have_one_size_and_show_lesions() -> None:
    options = LesionTrainOptions(p_lesion=1, batch=6, piece=SIZE, stray=2)
    pieces = draw_pieces([[places_of(example())], []], options, np.random.default_rng(0))
    assert {piece.relative.shape for piece in pieces} == {(1, *(2 * SIZE,) * 3)}
    assert {piece.groups.shape for piece in pieces} == {(len(GROUPS), *(SIZE,) * 3)}
    assert all(piece.truth[0].max() > 0.5 for piece in pieces)


def test_mirrored_and_turned_grey_values_stay_on_their_lesions() -> None:
    rng = np.random.default_rng(1)
    options = LesionTrainOptions(p_lesion=1, batch=1, piece=SIZE, stray=2)
    for _ in range(10):
        (piece,) = draw_pieces([[places_of(example())], []], options, rng)
        inside, outside = (piece.relative[0][where].mean() for where in (piece.truth[0] > 0.9, piece.truth[0] == 0))
        assert inside > outside + 1


def test_nothing_is_asked_for_outside_the_brain() -> None:
    from bidsseg.network.lesion_net import LesionNet

    net, options = LesionNet(LesionNetConfig(8, 8)), LesionTrainOptions()
    shape = (2 * SIZE,) * 3
    no_tissue = torch.zeros(len(GROUPS), *(SIZE,) * 3)
    outside = Piece(torch.randn(1, *shape), torch.tensor((1.0, 0.0)), no_tissue, torch.ones(2, *shape))
    assert loss_of(net, [outside], options).item() == pytest.approx(0, abs=1e-6)


def test_changes_keep_the_shapes() -> None:
    shape, blocks = (20, 20, 20), (10, 10, 10)
    piece = Piece(torch.randn(1, *shape), torch.rand(2), torch.rand(len(GROUPS), *blocks), torch.rand(2, *shape))
    rng = np.random.default_rng(0)
    for _ in range(8):
        assert [part.shape for part in changed(piece, rng)] == [part.shape for part in piece]


def test_a_short_training_finds_the_bright_cube() -> None:
    given = Examples([example(), example((50, 10, 10))], [])
    losses: list[float] = []
    options = LesionTrainOptions(minutes=5, steps=40, batch=2, piece=SIZE, stray=2, warmup_steps=5, threads=1)
    weights = train_lesions(given, options, lambda step, done, loss: losses.append(loss), LesionNetConfig(8, 8))
    assert len(weights) > 5
    assert losses[-1] < losses[0]


def test_the_log_has_a_head_and_a_row_for_every_step_told(tmp_path: Path) -> None:
    with (tmp_path / "log.csv").open("w") as log:
        for step in (20, 40):
            _log_step(log, step, step / 80, 1 / step)
    assert (tmp_path / "log.csv").read_text() == "step,progress,loss\n20,0.2500,0.0500\n40,0.5000,0.0250\n"
