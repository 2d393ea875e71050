"""Arrays of voxels: boxes, grey values, and resampling by one matrix per axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
Numbers = TypeVar("Numbers", Floats, "Tensor")
"In numpy or in torch."
Box = tuple[slice, slice, slice]


def box_around(mask: NDArray[np.bool_], margin: int = 0) -> Box:
    """The smallest box that holds the mask, and ``margin`` voxels around it; the whole volume for an empty mask."""
    slices = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        low, high = (hit[0], hit[-1] + 1) if len(hit) else (0, mask.shape[axis])
        slices.append(slice(max(0, int(low) - margin), min(mask.shape[axis], int(high) + margin)))
    return slices[0], slices[1], slices[2]


def voxel_volume_mm3(affine: NDArray[np.floating[Any]]) -> float:
    """Of one voxel of a grid with this affine, 4x4."""
    return float(abs(np.linalg.det(affine[:3, :3])))


def normalise(volume: Numbers, inside: Any = None) -> Numbers:
    """Grey values to 0-1, from the 0.5th to the 99.5th percentile; float32.

    The percentiles are those of the voxels ``inside``, a mask of the same shape, or of what is brighter than the
    darkest value. They are found by sorting in torch, so that no GPU has to be waited for, also for arrays of numpy.
    """
    import torch  # readers of tables and headers do without

    if isinstance(volume, np.ndarray):
        return normalise(torch.from_numpy(np.ascontiguousarray(volume)), inside).numpy()
    step, volume = max(1, volume.numel() // 500_000), volume.float()
    sample = volume.reshape(-1)[::step]
    counted = sample > sample.min() if inside is None else torch.as_tensor(inside).reshape(-1)[::step]
    ordered = torch.where(counted, sample, torch.inf).sort().values
    last = counted.sum().sub(1).clamp(min=0)
    low, high = (_at(ordered, last.double() * share) for share in (0.005, 0.995))
    scaled = ((volume - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return scaled.where(counted.any(), 0.0)


def _at(ordered: Tensor, place: Tensor) -> Tensor:
    """An ordered row at a place between its samples, linear."""
    below, above = (ordered.take(end.long()) for end in (place.floor(), place.ceil()))
    return below.lerp(above, place.frac().float())


def as_float32(values: NDArray[Any]) -> Floats:
    """Numbers of any type as float32; halves by torch, which takes half of numpy's time."""
    if values.dtype != np.float16:
        return values.astype(np.float32)
    import torch  # readers of tables and headers do without

    converted: Floats = torch.from_numpy(np.ascontiguousarray(values)).float().numpy()
    return converted


def overlap(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int64]:
    """How many voxels have each code in one volume, in the other, and in both: (3, largest code + 1)."""
    size = int(max(one.max(), other.max())) + 1
    counted = (one.reshape(-1), other.reshape(-1), one[one == other])
    return np.stack([np.bincount(codes, minlength=size) for codes in counted])


def resampling_matrix(centres: NDArray[np.float64], n_in: int, width: float) -> Floats:
    """Weights (len(centres), n_in) that resample a row of ``n_in`` samples; every row sums to 1.

    Coordinates are in units of input samples. An output sample ``width`` wide takes each input sample by how much of it
    it covers; one no wider than the input's samples covers one sample's width, which is linear interpolation. So one
    rule both averages on the way down and interpolates on the way up. Beyond the ends the nearest sample counts.
    """
    half = max(width, 1.0) / 2
    sample = np.arange(n_in)
    low = np.maximum(centres[:, None] - half, sample - 0.5)
    high = np.minimum(centres[:, None] + half, sample + 0.5)
    weights = np.clip(high - low, 0, None)
    outside = weights.sum(1) < 1e-6
    weights[outside, np.clip(np.rint(centres[outside]), 0, n_in - 1).astype(int)] = 1
    shares: Floats = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return shares


def along(matrix: Numbers | None, volume: Numbers, axis: int) -> Numbers:
    """Apply an (m, n) matrix to one of the last three axes of (..., I, J, K); None is the identity."""
    if matrix is None:
        return volume
    *lead, i, j, k = volume.shape
    result = volume
    if axis == 2:
        result = volume @ matrix.T
    elif axis == 1:
        result = matrix @ volume
    else:
        result = (matrix @ volume.reshape(*lead, i, j * k)).reshape(*lead, len(matrix), j, k)
    return result
