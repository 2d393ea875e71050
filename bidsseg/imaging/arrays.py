"""Arrays of voxels: boxes, grey values, and resampling by one matrix per axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
Numbers = TypeVar("Numbers", Floats, "Tensor")
"In numpy or in torch."
Box = tuple[slice, slice, slice]
CHANNELS_AT_ONCE = 4
PLANES_AT_ONCE = 16
SAMPLED = 500_000
"About as many voxels are enough for percentiles."


def box_around(mask: NDArray[np.bool_], margin: int = 0) -> Box:
    """The smallest box that holds the mask, and ``margin`` voxels around it; the whole volume for an empty mask."""
    slices = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        low, high = (hit[0], hit[-1] + 1) if len(hit) else (0, mask.shape[axis])
        slices.append(slice(max(0, int(low) - margin), min(mask.shape[axis], int(high) + margin)))
    return slices[0], slices[1], slices[2]


def box_at(origin: Sequence[int], shape: Sequence[int]) -> Box:
    """The box of this shape (I, J, K) that begins at a voxel."""
    i, j, k = (slice(first, first + n) for first, n in zip(origin, shape, strict=True))
    return i, j, k


def voxel_volume_mm3(affine: NDArray[np.floating[Any]]) -> float:
    """Of one voxel of a grid with this affine, 4x4."""
    return float(abs(np.linalg.det(affine[:3, :3])))


def as_float32(values: NDArray[Any]) -> Floats:
    """Numbers of any type as float32, the same array if they are; halves by torch, in half of numpy's time."""
    if values.dtype != np.float16:
        return values.astype(np.float32, copy=False)
    import torch  # readers of tables and headers do without

    halves = torch.from_numpy(values if min(values.strides, default=0) >= 0 else np.ascontiguousarray(values))
    converted: Floats = halves.to(torch.float32, memory_format=torch.contiguous_format).numpy()
    return converted


def first_axis_fastest(volume: NDArray[Any]) -> NDArray[Any]:
    """The same array in the order in which files hold it.

    A few planes at a time stay in a processor's cache, which takes a quarter of the time of ``np.asfortranarray``.
    """
    if volume.flags.f_contiguous:
        return volume
    result = np.empty(volume.shape, volume.dtype, order="F")
    for first in range(0, len(volume), PLANES_AT_ONCE):
        result[first : first + PLANES_AT_ONCE] = volume[first : first + PLANES_AT_ONCE]
    return result


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


def sampled(
    channels: NDArray[Any],
    matrix: NDArray[np.float64],
    shape: tuple[int, ...],
    beyond: NDArray[Any],
    where: NDArray[np.bool_] | None = None,
) -> Floats:
    """Channels (C, I, J, K) where a 4x4 matrix leads the indices of (i, j, k), trilinear: (C, i, j, k) float32.

    Places beyond the outer faces of (I, J, K) get the values ``beyond`` (C,), and so do those outside a mask (i, j, k)
    where it is given. A few channels at a time, since they are converted to float32.
    """
    import torch
    from torch.nn.functional import grid_sample

    rows, size = matrix[:3].tolist(), channels.shape[1:]
    i, j, k = (torch.arange(n, dtype=torch.float32) for n in shape)
    indices = [(row[0] * i + row[3])[:, None, None] + (row[1] * j)[:, None] + row[2] * k for row in rows]
    inside = torch.ones(shape, dtype=torch.bool) if where is None else torch.from_numpy(where)
    for index, n in zip(indices, size, strict=True):
        inside = inside & (index >= -0.5) & (index <= n - 0.5)
    # from -1 to 1 between the centres of the outermost voxels, the last axis first
    at = torch.stack([index[inside] * (2 / max(n - 1, 1)) - 1 for index, n in zip(indices, size, strict=True)][::-1], 1)
    result = torch.from_numpy(as_float32(beyond))[:, None, None, None].repeat(1, *shape)
    for first in range(0, len(channels), CHANNELS_AT_ONCE):
        some = torch.from_numpy(as_float32(channels[first : first + CHANNELS_AT_ONCE]))
        found = grid_sample(some[None], at[None, None, None], padding_mode="border", align_corners=True)[0, :, 0, 0]
        for target, values in zip(result[first:], found, strict=False):
            target[inside] = values
    sampled_there: Floats = result.numpy()
    return sampled_there
