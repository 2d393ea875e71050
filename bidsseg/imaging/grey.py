"""The scale of grey values that the networks see, in training and at inference."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidsseg.imaging.arrays import SAMPLED, Floats
from bidsseg.imaging.grid import conform
from bidsseg.imaging.preparation import Conformed

CLIPPED = 0.005
"Share of the voxels that count, at either end, whose grey values are clipped."


def normalise(volume: Floats, inside: NDArray[np.bool_] | None = None) -> Floats:
    """``normalised`` of numpy arrays, (I, J, K)."""
    scaled: Floats = normalised(torch.from_numpy(volume), None if inside is None else torch.from_numpy(inside)).numpy()
    return scaled


def on_scale_of(seen: Conformed, brain: NDArray[np.bool_]) -> Floats:
    """A scan's volume with the grey values of its brain (I, J, K) at 0-1, what is darker or brighter at 0 and 1.

    Between thick slices a bright scalp is interpolated far into the brain: so it is clipped before, in the slices.
    """
    if seen.scan is None:
        return normalise(seen.volume, brain)
    top = brightest_inside(seen.volume, brain & seen.grid.in_slices)
    return normalise(conform(seen.scan, seen.grid, top)[0], brain)


def brightest_inside(volume: Floats, inside: NDArray[np.bool_]) -> float:
    """The grey value at which ``normalise`` clips what is inside a mask (I, J, K).

    Infinite where ``normalise`` uses no mask, since this one is empty or holds a single value.
    """
    values = torch.from_numpy(volume[inside])
    if not len(values):
        return np.inf
    low, high = map(float, _sampled_span(values, torch.ones_like(values, dtype=torch.bool)))
    return high if high > low else np.inf


def brightest(values: Tensor, counted: Tensor) -> Tensor:
    """The grey value at which ``normalised`` clips values (N,) of which these count, (N,) bool; 0 where none does."""
    return _sampled_span(values, counted)[1]


def _sampled_span(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """``_span`` of ``SAMPLED`` values or a few more."""
    step = max(1, values.numel() // SAMPLED)
    return _span(values[::step], counted[::step])


def normalised(image: Tensor, inside: Tensor | None = None) -> Tensor:
    """Clip grey values at the 0.5th and 99.5th percentile of what counts, and map these to 0 and 1.

    What counts is the brain, where a mask (I, J, K) of it is given: a bright scalp or a marker must not set the scale.
    Without a mask, or with one that holds a single value, it is all that is brighter than the darkest value. Nothing
    here waits for the image's device; so values that do not count are sorted to the end rather than left out.
    """
    darkest = image.min()
    step = max(1, image.numel() // SAMPLED)
    some = image.reshape(-1)[::step]
    low, high = _span(some, some > darkest)
    if inside is not None:
        of_inside = _span(some, inside.reshape(-1)[::step])
        several = of_inside[1] > of_inside[0]
        low, high = (torch.where(several, one, other) for one, other in zip(of_inside, (low, high), strict=True))
    one_value = high <= low
    low = torch.where(one_value, darkest, low)
    width = torch.where(one_value, torch.finfo(image.dtype).tiny, high - low)  # all that is brighter is then 1
    return (image - low).div_(width).clamp_(0, 1)


def _span(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The percentiles of the values (N,) that count; twice the same where there are none."""
    ordered = torch.where(counted, values, torch.inf).sort().values
    last = counted.sum().sub(1).clamp(min=0)
    places = (last.double() * share for share in (CLIPPED, 1 - CLIPPED))
    low, high = (
        ordered.take(place.floor().long()).lerp(ordered.take(place.ceil().long()), place.frac().float())
        for place in places
    )
    return low.nan_to_num(0, 0, 0), high.nan_to_num(0, 0, 0)
