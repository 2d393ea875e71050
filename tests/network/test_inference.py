from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import bidsseg.network.inference
import bidsseg.network.looks
from bidsseg.errors import UserError
from bidsseg.imaging.arrays import Box, Floats
from bidsseg.imaging.grey import normalise
from bidsseg.labels import TISSUE, TISSUES, lobe_parts
from bidsseg.network.device import choose_device
from bidsseg.network.inference import PASSES, PredictOptions, clean_islands, infer
from bidsseg.network.looks import Look
from bidsseg.network.probabilities import Probabilities
from bidsseg.network.unet import Features, UNet, padded_length
from bidsseg.network.weights import load_model
from bidsseg.segmentation.pipeline import segment
from tests.phantoms import head


def test_only_solid_pieces_stay_brain() -> None:
    tissue = np.zeros((len(TISSUES), 60, 20, 20), np.float16)
    tissue[TISSUE["cortex"], 2:22] = 1  # a slab of 20 mm
    tissue[TISSUE["cortex"], 30:36] = 1  # another of 6 mm, more than a tenth: kept
    tissue[TISSUE["cortex"], 45, 5, 5] = 1  # a speck
    tissue[TISSUE["cortex"], 22:28, 8:10, 8:10] = 1  # a thread 6 mm long; what is near the slab stays
    tissue[TISSUE["cortex"], 50:54, 5:9, 5:9] = 1  # a crumb
    tissue[0] = 1 - tissue[1:].sum(0)
    clean_islands(tissue)
    kept = tissue.argmax(0) > 0
    assert kept[2:22].all()
    assert kept[30:36].all()
    assert kept[25:28].sum() == 0
    assert not kept[36:].any()


@pytest.mark.parametrize("thickness", [1, 3])
def test_a_brain_too_thin_to_erode_stays(thickness: int) -> None:
    tissue = np.zeros((len(TISSUES), 20, 20, 20), np.float16)
    tissue[TISSUE["cortex"], ..., 10 : 10 + thickness] = 1
    tissue[0] = 1 - tissue[1:].sum(0)
    clean_islands(tissue)
    assert (tissue.argmax(0) > 0).sum() == 400 * thickness


@pytest.mark.parametrize("name", ["gpu", "cuda:77", "meta", "tpu:0"])
def test_unknown_devices_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=name):
        choose_device(name)


@pytest.mark.parametrize(
    ("voxels_that_fit", "tried", "warning"),
    [(10**6, ["cuda"], ""), (30_000, ["cuda"] * 3, "two halves"), (0, ["cuda"] * 2 + ["cpu"], "going on with the CPU")],
)
def test_too_little_gpu_memory_takes_halves_then_the_cpu(
    voxels_that_fit: int,
    tried: list[str],
    warning: str,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scan, model = head((160, 16, 16), np.eye(4)), load_model(tiny_model)
    real, calls = bidsseg.network.inference._whole, []

    def short_of_memory(device: torch.device, volume: Floats, *rest: object) -> tuple[Probabilities, Floats]:
        calls.append(device.type)
        if device.type == "cuda" and volume.size > voxels_that_fit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(torch.device("cpu"), volume, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(bidsseg.network.inference, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(bidsseg.network.inference, "_whole", short_of_memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    found = segment(scan, model, PredictOptions("cuda", 1))
    assert calls[:2] == tried[:2]
    assert calls[-1] == tried[-1]
    assert warning in caplog.text
    assert found.tissue.shape == (160, 16, 16)


def test_halves_join_where_each_saw_enough(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def voxelwise(device: torch.device, volume: Floats, *rest: object) -> tuple[Probabilities, Floats]:
        tissue = np.zeros((len(TISSUES), *volume.shape), np.float16)
        tissue[1] = volume
        parcels = np.stack([volume[2::2, ::2, ::2]] * len(lobe_parts()), -1).astype(np.float16)
        return Probabilities((2, 0, 0), tissue[:, 2:], volume[None, 2:].astype(np.float16), parcels), 2 * volume

    monkeypatch.setattr(bidsseg.network.inference, "_whole", voxelwise)
    volume = np.random.default_rng(0).random((102, 6, 5)).astype(np.float32)  # a block must not be cut at 51
    found, grey = bidsseg.network.inference._in_halves(
        torch.device("cpu"), volume, load_model(tiny_model), PredictOptions(), partial(normalise, volume)
    )
    np.testing.assert_array_equal(found.tissue[1, 2:], volume[2:].astype(np.float16))
    np.testing.assert_array_equal(found.parcels[1:, ..., 0], volume[2::2, ::2, ::2].astype(np.float16))
    np.testing.assert_array_equal(grey, 2 * volume)
    assert found.tissue[0, 0].min() == 1  # what neither half answered for is background


@pytest.mark.parametrize("scalp", [1.5, 4.0])
def test_the_second_look_has_the_grey_values_of_the_brain(
    scalp: float, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However bright the scalp is, the brain spans 0-1 where the network labels it."""
    volume = np.zeros((96, 96, 96), np.float32)
    volume[8:88, 8:88, 8:88] = scalp
    inside = np.zeros(volume.shape, bool)
    inside[24:72, 24:72, 24:72] = True
    volume[24:72, 24:72, 24:72] = np.linspace(0.5, 1, 48, dtype=np.float32)[:, None, None]
    monkeypatch.setattr(Look, "brain_in", lambda look, shape: inside)
    _, grey = infer(volume, load_model(tiny_model), PredictOptions("cpu", 1))
    assert grey[inside].min() == 0
    assert grey[inside].max() == 1
    assert grey[inside].mean() == pytest.approx(0.5, abs=0.01)
    assert grey[10:20, 10:20, 10:20].min() == 1


def test_a_volume_without_brain_is_background(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bidsseg.network.looks, "MOST_BRAIN_MM3", -1.0)
    monkeypatch.setattr(bidsseg.network.looks, "SURE_OF_NOISE", 1.01)
    noise = np.random.default_rng(0).random((48, 40, 32), np.float32)
    found, _ = infer(noise, load_model(tiny_model), PredictOptions("cpu", 1, gyri=True))
    assert found.tissue.shape == (len(TISSUES), *noise.shape)
    assert found.tissue[0].min() == 1


def test_the_second_look_is_at_the_brain_alone(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_model)
    volume = np.full((160, 130, 120), 0.2, np.float32)
    volume[:6] = 0.05
    volume[0, 0, 0] = 0
    volume[21:60, 30:70, 80:120] = 0.9
    real, seen = model.net.features, []

    def recorded(scan: Tensor, passes: int) -> Features:
        seen.append((scan[0, 0].numpy(), passes))
        return real(scan, passes)

    def bright(_: UNet, features: Features) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        grey = features.fine[model.net.config.widths[0] :][:8].amax(0)  # of a block's brightest voxel, 4 * (x - 0.3)
        return (grey > 1)[::2, ::2, ::2].numpy(), (grey > 1).numpy()

    monkeypatch.setattr(model.net, "features", recorded)
    monkeypatch.setattr("bidsseg.network.looks.find_brain", bright)
    found, _ = infer(volume, model, PredictOptions("cpu", 1))
    (head, once), (brain, twice) = seen
    assert (once, twice) == (1, 2)
    assert head.shape == tuple(padded_length(n, model.net.config.multiple) for n in volume.shape)
    assert (brain > 0.5).sum() == 39 * 40 * 40
    assert (brain > 0.1).sum() <= 42 * 42 * 42  # blocks are 2 mm, and may hold a layer of what is next to it
    assert found.origin == (20, 30, 80)
    assert found.tissue.shape[1:] == (40, 40, 40)


@pytest.mark.parametrize("gyri", [False, True])
def test_mirror_averaging_makes_left_and_right_alike(gyri: bool, tiny_model: Path) -> None:
    """The mirror image then gets the mirrored answer, sides exchanged, from any weights."""
    model, options = load_model(tiny_model), PredictOptions("cpu", 1, gyri, mirror=True)
    volume = np.random.default_rng(0).random((40, 36, 32)).astype(np.float32)
    (found, _), (mirrored, _) = (infer(seen, model, options) for seen in (volume, np.ascontiguousarray(volume[::-1])))
    plain, _ = infer(volume, model, replace(options, mirror=False))
    np.testing.assert_allclose(found.tissue, mirrored.tissue[:, ::-1], atol=2e-3)
    np.testing.assert_allclose(found.parcels, mirrored.parcels[::-1], atol=2e-3)
    near = found.right > 0
    np.testing.assert_allclose(found.right[near], 1 - mirrored.right[:, ::-1][near], atol=2e-3)
    assert np.abs(found.tissue - plain.tissue).max() > 0.01


@pytest.mark.parametrize(
    ("found_mm", "looks"),
    [
        ((64, 64), 2),
        ((64, 60), 2),  # 0.82 of what it looked at
        ((64, 48, 32, 32), 4),
        ((64, 56, 48, 40, 32, 24), 5),
    ],
)
def test_looks_again_while_much_less_is_found(
    found_mm: tuple[int, ...], looks: int, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bidsseg.network.looks.look_at
    passes_of: list[int] = []

    def look(net: UNet, volume: Floats, box: Box, mirror: bool, passes: int) -> Look:
        found = real(net, volume, box, mirror, passes)
        near = np.zeros_like(found.near)
        near[(slice(found_mm[len(passes_of)] // 2),) * 3] = True
        passes_of.append(passes)
        return found._replace(near=near)

    monkeypatch.setattr(bidsseg.network.inference, "look_at", look)
    even = np.random.default_rng(0).random((64, 64, 64), np.float32)
    infer(even, load_model(tiny_model), PredictOptions("cpu", 1))
    assert passes_of == [1, *[PASSES] * (looks - 1)]


@pytest.mark.parametrize(("scalp", "passes"), [(1.1, [1, PASSES]), (3.0, [1, 1, PASSES])])
def test_a_brain_squeezed_by_its_scalp_is_looked_for_once_more(
    scalp: float, passes: list[int], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = np.random.default_rng(0).random((96, 96, 96), np.float32)
    volume[:16] = scalp
    inside = np.zeros(volume.shape, bool)
    inside[32:64, 32:64, 32:64] = True
    real = bidsseg.network.looks.look_at
    passes_of: list[int] = []

    def look(net: UNet, volume: Floats, box: Box, mirror: bool, passes: int) -> Look:
        passes_of.append(passes)
        return real(net, volume, box, mirror, passes)

    monkeypatch.setattr(bidsseg.network.inference, "look_at", look)
    monkeypatch.setattr(Look, "brain_in", lambda look, shape: inside)
    monkeypatch.setattr(bidsseg.network.inference, "SETTLED", 0.0)
    infer(volume, load_model(tiny_model), PredictOptions("cpu", 1))
    assert passes_of == passes
