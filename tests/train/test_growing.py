import pytest
import torch

from bidsseg.network.config import UNetConfig
from bidsseg.network.unet import UNet, features_of
from bidsseg.train.growing import grown

SMALL = UNetConfig((2, 3, 4), 5)


def trained(config: UNetConfig) -> UNet:
    """A network none of whose weights is 0 or 1 by its beginnings."""
    torch.manual_seed(1)
    net = UNet(config)
    for weight in net.parameters():
        torch.nn.init.normal_(weight)
    return net.eval()


def answers(net: UNet, volumes: torch.Tensor, passes: int) -> list[torch.Tensor]:
    features = features_of(*net.body(volumes, passes))
    embedded = net.embed(features, torch.arange(features.n_blocks))
    return [net.tissue_logits(embedded), net.side_logits(embedded.hidden), net.parcel_logits(embedded.hidden)]


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("widths", [(2, 3, 4), (2, 5, 4), (2, 3, 7), (2, 6, 9)])
def test_a_grown_network_answers_as_before(widths: tuple[int, ...], passes: int) -> None:
    small, volume = trained(SMALL), torch.randn((1, 1, 16, 20, 16), generator=torch.Generator().manual_seed(0))
    large = UNet(UNetConfig(widths, 5)).eval()
    large.load_state_dict(grown(small.state_dict(), SMALL, widths, seed=3))
    for before, after in zip(answers(small, volume, passes), answers(large, volume, passes), strict=True):
        assert torch.allclose(before, after, rtol=1e-3, atol=1e-3 * before.abs().max().item())


def test_every_new_channel_learns() -> None:
    """At the first step only what reads them, at the second they themselves."""
    widths = (2, 6, 9)
    net = UNet(UNetConfig(widths, 5))
    net.load_state_dict(grown(trained(SMALL).state_dict(), SMALL, widths, seed=3))
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    volume = torch.randn((1, 1, 16, 20, 16), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(net.parameters())
    for _ in range(2):
        optimiser.zero_grad()
        sum(answer.square().mean() for answer in answers(net, volume, 1)).backward()  # type: ignore[union-attr]
        optimiser.step()
    for name, weight in net.named_parameters():
        if weight.ndim == 5 and not name.startswith("filters"):
            assert ((weight - before[name]).abs().amax((2, 3, 4)) > 0).all(), name


def test_one_seed_gives_one_network_and_leaves_chance_alone() -> None:
    small = trained(SMALL).state_dict()
    state = torch.get_rng_state()
    one, same, other = (grown(small, SMALL, (2, 6, 9), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("widths", "told"),
    [
        ((2, 3), "grows neither in levels"),
        ((2, 3, 4, 5), "grows neither in levels"),
        ((3, 3, 4), "first level's channels"),
        ((2, 2, 9), "does not shrink"),
    ],
)
def test_other_shapes_are_refused(widths: tuple[int, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        grown(trained(SMALL).state_dict(), SMALL, widths, seed=1)
