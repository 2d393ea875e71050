import pytest
import torch

from bidsseg.network import Features, UNet, space_to_depth
from bidsseg.unet_config import UNetConfig

SMALL = UNetConfig(widths=(4, 6, 8), head_width=5)


def test_space_to_depth_names_sub_voxels_in_order() -> None:
    volume = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert space_to_depth(volume).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 8, 24)])
def test_features_lie_on_the_2_mm_grid(shape: tuple[int, int, int]) -> None:
    volume = torch.rand(1, 1, *shape)
    fine, context = UNet(SMALL).features(volume)
    assert fine.shape == (4 + 8, *(n // 2 for n in shape))
    assert context.shape == (SMALL.head_width, *(n // 4 for n in shape))
    assert torch.allclose(fine[4:] / 4 + 0.3, space_to_depth(volume)[0], atol=1e-6)


def test_blocks_get_the_context_of_the_coarse_block_they_lie_in() -> None:
    net = UNet(SMALL)
    with torch.no_grad():
        net.hidden.weight.zero_()
        net.hidden.bias.zero_()
    context = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4).expand(SMALL.head_width, -1, -1, -1)
    features = Features(torch.zeros(4 + 8, 4, 6, 8), context)
    everywhere = net.embed(features, torch.arange(features.n_blocks))[0].reshape(4, 6, 8)
    assert torch.equal(everywhere, context[0].repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_heads_answer_for_eight_sub_voxels() -> None:
    net = UNet(SMALL)
    embedded = net.embed(net.features(torch.randn(1, 1, 16, 16, 16)), torch.arange(7))
    assert net.tissue_logits(embedded).shape == (8, SMALL.n_tissues, 7)
    assert net.side_logits(embedded).shape == (8, 1, 7)
    assert net.parcel_logits(embedded).shape == (8, SMALL.n_parcels, 7)


def test_config_says_what_the_sides_must_be_multiples_of() -> None:
    assert SMALL.multiple == 8
    with pytest.raises(RuntimeError):
        UNet(SMALL).features(torch.randn(1, 1, 20, 16, 16))


def test_the_whole_network_learns() -> None:
    net = UNet(SMALL)
    features = net.features(torch.randn(1, 1, 16, 16, 16))
    embedded = net.embed(features, torch.arange(features.n_blocks))
    total = net.tissue_logits(embedded).sum() + net.side_logits(embedded).sum() + net.parcel_logits(embedded).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in net.parameters())
