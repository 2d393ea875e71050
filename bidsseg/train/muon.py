"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum made orthogonal.

The update of each convolution, seen as a matrix (out, in * 27), is replaced by the nearest orthogonal matrix, so that
every direction learns at one rate. torch.optim.Muon takes matrices only.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

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
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group["lr"], group["momentum"])

    def _update(self, weight: Tensor, lr: float, momentum: float) -> None:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        nesterov = weight.grad.lerp(state["momentum"], momentum)  # type: ignore[union-attr]
        step = orthogonalise(nesterov.flatten(1))
        taller = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
        weight.add_(step.reshape(weight.shape), alpha=-lr * taller)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Roughly the nearest matrix (M, N) with orthonormal rows or columns, by Newton-Schulz in bfloat16."""
    a, b, c = QUINTIC
    x: Tensor = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).type_as(matrix)
