"""One head scanned again: in another position, with another coil field and other noise, with or without a change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bidsseg.evaluation.damage import add_bias, add_noise
from bidsseg.imaging.arrays import Floats, box_around
from bidsseg.imaging.image import Image

TURN_DEGREES, SHIFT_MM = 5.0, 5.0
ROOM = 12
"Voxels around the scan, so that no position cuts the brain."
NOISE, FIELD = 0.02, 0.2
"Standard deviation of noise, of the brightest grey values; strength of the coil field."
EDGE_MM = 0.7
"Standard deviation of the smoothing of a structure that grows."
HALVINGS = 12


def taken(image: Image, slice_mm: int, rng: Generator) -> Image:
    """A head at 1 mm in another position, which the header does not tell, in axial slices of ``slice_mm``."""
    data = np.pad(image.data, ROOM)
    turn = Rotation.from_euler("xyz", rng.uniform(-TURN_DEGREES, TURN_DEGREES, 3), degrees=True).as_matrix()
    middle = (np.array(data.shape) - 1) / 2
    offset = middle - turn @ (middle + rng.uniform(-SHIFT_MM, SHIFT_MM, 3))
    moved: Floats = ndimage.affine_transform(data, turn, offset, order=3, mode="constant").clip(0)
    moved = moved[box_around(moved > 0, slice_mm)]
    i, j, k = moved.shape
    slabs = moved[..., : k // slice_mm * slice_mm].reshape(i, j, -1, slice_mm).mean(-1)
    noisy = add_noise(add_bias(slabs, FIELD, rng), NOISE, rng).astype(np.float32)
    return replace(image, data=noisy, affine=image.affine @ np.diag((1.0, 1.0, slice_mm, 1.0)))


def widened(data: Floats, structure: NDArray[np.bool_], share: float) -> Floats:
    """Grey values (I, J, K) at 1 mm of a head in which a structure is larger by a share of its volume.

    Every part of the structure grows by this share, and what lies around gives way without a change of its volume.
    """
    outwards = _outwards(structure)
    places, before = np.indices(structure.shape, np.float32), structure.astype(np.float32)
    low, high = 0.0, 2.0 * share
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        after = ndimage.map_coordinates(before, places - np.float32(middle) * outwards, order=1)
        low, high = (middle, high) if after.sum() < (1 + share) * before.sum() else (low, middle)
    wider: Floats = ndimage.map_coordinates(data, places - np.float32(low) * outwards, order=3).clip(0)
    return wider


def _outwards(structure: NDArray[np.bool_]) -> Floats:
    """(3, I, J, K): a flow whose divergence is 1 in a structure and almost 0 elsewhere, the gradient of a potential."""
    frequencies = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in structure.shape), indexing="ij", sparse=True)
    squares = sum(axis**2 for axis in frequencies)
    source = np.fft.fftn(ndimage.gaussian_filter(structure.astype(np.float32), EDGE_MM))
    potential = np.divide(source, squares, out=np.zeros_like(source), where=squares > 0)
    flow: Floats = np.stack([np.fft.ifftn(-1j * axis * potential).real for axis in frequencies]).astype(np.float32)
    return flow
