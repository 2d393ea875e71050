import pytest
import torch

from bidsseg.network.config import UNetConfig
from bidsseg.network.unet import Features, HeadInputs, UNet, space_to_depth

SMALL = UNetConfig(widths=(4, 6, 8), head_width=5)


def test_space_to_depth_names_sub_voxels_in_order() -> None:
    volume = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert space_to_depth(volume).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 8, 24)])
def test_features_lie_on_the_2_mm_grid(shape: tuple[int, int, int]) -> None:
    volume = torch.rand(1, 1, *shape)
    fine, contexts = UNet(SMALL).features(volume, passes=2)
    assert fine.shape == (4 + 8 * (1 + SMALL.n_filters), *(n // 2 for n in shape))
    assert [context.shape for context in contexts] == 2 * [(SMALL.head_width, *(n // 4 for n in shape))]
    assert torch.allclose(fine[4:12] / 4 + 0.3, space_to_depth(volume)[0], atol=1e-6)


def test_blocks_get_the_context_of_the_coarse_block_they_lie_in() -> None:
    net = UNet(SMALL)
    with torch.no_grad():
        net.hidden.weight.zero_()
        net.hidden.bias.zero_()
    context = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4).expand(SMALL.head_width, -1, -1, -1)
    features = Features(torch.zeros(4 + 24, 4, 6, 8), (context,))
    everywhere = net.embed(features, torch.arange(features.n_blocks)).hidden[0].reshape(4, 6, 8)
    assert torch.equal(everywhere, context[0].repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_of_two_passes_the_second_ones_context_was_moved_by_one_block() -> None:
    net = UNet(SMALL)
    with torch.no_grad():
        net.hidden.weight.zero_()
        net.hidden.bias.zero_()
    first = torch.zeros(SMALL.head_width, 2, 3, 4)
    second = torch.tensor([10.0, 30.0])[:, None, None].expand(SMALL.head_width, 2, 3, 4)
    features = Features(torch.zeros(4 + 24, 4, 6, 8), (first, second))
    along_first_axis = net.embed(features, torch.arange(4) * 6 * 8).hidden[0]
    assert along_first_axis.tolist() == [5, 15, 15, 5]


def test_passes_are_moved_back_before_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    net, volume = UNet(SMALL), torch.rand(1, 1, 16, 16, 16)
    monkeypatch.setattr(net, "_below_top", lambda top: (top, torch.zeros(1, SMALL.head_width, 4, 4, 4)))
    with torch.no_grad():
        assert torch.equal(net.features(volume, passes=2).fine, net.features(volume).fine)


def test_heads_answer_for_eight_sub_voxels_and_for_parcels_of_blocks() -> None:
    net = UNet(SMALL)
    embedded = net.embed(net.features(torch.randn(1, 1, 16, 16, 16)), torch.arange(7))
    assert net.tissue_logits(embedded).shape == (8, SMALL.n_tissues, 7)
    assert net.side_logits(embedded.hidden).shape == (8, 1, 7)
    assert net.parcel_logits(embedded.hidden).shape == (SMALL.n_parcels, 7)


def test_tissues_are_told_apart_by_each_sub_voxels_own_grey_value() -> None:
    """Of two tissues with means -1 and 2 and one width, the border is half-way, at 0.5, whatever the block's others."""
    net = UNet(SMALL)
    grey = torch.tensor([-3.0, -1.0, 0.0, 0.4, 0.6, 1.0, 2.0, 4.0])
    cues = torch.zeros(2 + SMALL.n_filters, 8, 1)
    cues[0, :, 0], cues[-1, :, 0] = grey, grey.square()
    with torch.no_grad():
        for layer in (net.tissue_head, net.slope_head):
            layer.weight.zero_()
            layer.bias.zero_()
        of_tissue = net.slope_head.bias.view(2 + SMALL.n_filters, SMALL.n_tissues)
        prior = net.tissue_head.bias.view(8, SMALL.n_tissues)
        prior[:] = -100
        for tissue, mean in ((1, -1.0), (2, 2.0)):  # log of exp(-(g - mean)^2 / 2), opened out
            prior[:, tissue], of_tissue[0, tissue], of_tissue[-1, tissue] = -(mean**2) / 2, mean, -0.5
    logits = net.tissue_logits(HeadInputs(torch.zeros(SMALL.head_width, 1), cues))[..., 0]
    assert logits.argmax(1).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert torch.allclose(logits[:, 2] - logits[:, 1], 3 * (grey - 0.5))


def test_config_says_what_the_sides_must_be_multiples_of() -> None:
    assert (UNetConfig().multiple, SMALL.multiple, UNetConfig(widths=(4, 6)).multiple) == (16, 4, 4)
    assert UNet(SMALL).features(torch.randn(1, 1, 20, 16, 12)).fine.shape[1:] == (10, 8, 6)
    with pytest.raises(RuntimeError):
        UNet(SMALL).features(torch.randn(1, 1, 17, 16, 16))


def test_the_whole_network_learns() -> None:
    net = UNet(SMALL)
    features = net.features(torch.randn(1, 1, 16, 16, 16))
    embedded = net.embed(features, torch.arange(features.n_blocks))
    heads = (net.tissue_logits(embedded), net.side_logits(embedded.hidden), net.parcel_logits(embedded.hidden))
    total = torch.stack([logits.sum() for logits in heads]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in net.parameters())
