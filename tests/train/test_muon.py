import pytest
import torch

from bidsseg.train.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4)])
def test_singular_values_end_near_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn((2, *shape), generator=generator) * torch.tensor([1, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert 0.6 < values.min() <= values.max() < 1.3


def test_a_scaled_rotation_becomes_that_rotation() -> None:
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    (found,) = orthogonalise(50 * rotation[None])
    assert torch.allclose(found / found.norm() * rotation.norm(), rotation, atol=0.02)


def test_steps_go_downhill_and_are_kept_in_the_state() -> None:
    weight = torch.nn.Parameter(torch.full((2, 1, 1, 1, 2), 3.0))
    optimiser = Muon([weight], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        (weight - 1).square().sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert (weight - 1).abs().max() < 0.5
    assert optimiser.state_dict()["state"][0]["momentum"].shape == weight.shape
