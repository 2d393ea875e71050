"""Small images whose values one can work out."""

import itertools

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.image import Image

IDENTITY = np.eye(4)
ORIENTATIONS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)], float)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def image(data: NDArray[np.float32], affine: NDArray[np.float64] = IDENTITY) -> Image:
    return Image(data.astype(np.float32), affine)


def ramp(*shape: int) -> NDArray[np.float32]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def head(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Image:
    """A lopsided blob in noise."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    data = 100.0 * (i**2 + j**2 + k**2 < 0.7) + 60 * (i > 0.2) * (j > 0)
    data = data + np.random.default_rng(0).normal(10, 5, shape)
    return Image(data.astype(np.float32), affine)
