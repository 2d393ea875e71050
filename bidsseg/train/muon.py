"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum made orthogonal.

The update of each convolution, seen as a matrix (out, in * 27), is replaced by the nearest orthogonal matrix, so that
every direction learns at one rate. torch.optim.Muon takes matrices only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bidsseg.train.shapes import in_groups

# Coefficients of the quintic iteration given by Jordan et al.: singular values end between about 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions, the first being the output."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            learning = [weight for weight in group["params"] if weight.grad is not None]
            for weights in in_groups(learning, lambda weight: weight.flatten(1).shape):
                self._update(weights, group["lr"], group["momentum"])

    def _update(self, weights: Sequence[Tensor], lr: float, momentum: float) -> None:
        """Weights whose matrices have one shape, all at once: a GPU is faster than its host can ask for each."""
        ahead = [self._nesterov(weight, momentum) for weight in weights]
        steps = orthogonalise(torch.stack([gradient.flatten(1) for gradient in ahead]))
        taller = max(1.0, steps.shape[1] / steps.shape[2]) ** 0.5
        for weight, step in zip(weights, steps, strict=True):
            weight.add_(step.reshape(weight.shape), alpha=-lr * taller)

    def _nesterov(self, weight: Tensor, momentum: float) -> Tensor:
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(state["momentum"], momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Roughly the nearest matrices (B, M, N) with orthonormal rows or columns, by Newton-Schulz in bfloat16."""
    a, b, c = QUINTIC
    x: Tensor = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).type_as(matrices)
