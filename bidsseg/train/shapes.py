"""Tensors of one shape, which a GPU works on together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

One = TypeVar("One")


def in_groups(items: Iterable[One], shape: Callable[[One], torch.Size]) -> list[list[One]]:
    """Those of one shape together, in their order; shapes in the order in which they come first."""
    by_shape: dict[torch.Size, list[One]] = {}
    for item in items:
        by_shape.setdefault(shape(item), []).append(item)
    return list(by_shape.values())
