"""Scans damaged on purpose, as scanners, patients and headers damage them, with the manual labels that still hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import Floats
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.held_out import Case

SEED = 7
CONTROL_POINTS = (4, 4, 4)
"Control points of the bias field."
LINES_AT_REST = 0.08
"Share of the middle of k-space during which the head is still, so that ghosts appear and one head is seen among them."
MOVEMENTS = 6
"Moments at which the head moves."


@dataclass(frozen=True)
class Damage:
    """One way to damage a scan."""

    kind: str
    "A key of ``KINDS``."
    strength: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.kind} {self.strength:g}" if self.strength else self.kind


def damage(case: Case, how: Damage) -> Case:
    """The damaged scan and the labels on its grid; the same input gives the same answer."""
    seed = [SEED, sum(map(ord, case.name)), sum(map(ord, how.kind)), round(1000 * how.strength)]
    return KINDS[how.kind](case, how.strength, np.random.default_rng(seed))


Damager = Callable[[Case, float, Generator], Case]


def _with(change: Callable[[Floats, float, Generator], Floats]) -> Damager:
    """A damage to the grey values alone."""

    def damager(case: Case, strength: float, rng: Generator) -> Case:
        data = change(case.image.data, strength, rng).astype(np.float32)
        return replace(case, image=replace(case.image, data=data))

    return damager


def top_of(data: Floats) -> float:
    """The grey value that noise is measured against: the 99.5th percentile of what is not zero."""
    return float(np.percentile(data[data > 0], 99.5))


def add_noise(data: Floats, strength: float, rng: Generator) -> Floats:
    """Rician noise; ``strength`` is its standard deviation over the brightest grey value."""
    real, imaginary = rng.normal(0, strength * top_of(data), (2, *data.shape))
    noisy: Floats = np.hypot(data + real, imaginary).astype(np.float32)
    return noisy


def add_motion(data: Floats, strength: float, rng: Generator) -> Floats:
    """A head that moves between the lines of k-space: ghosts along the second axis.

    ``strength`` is the standard deviation of its positions, in voxels, along the first two axes. The picture is put
    back to where it matches the head at rest best: that the head is seen elsewhere is no fault of its labels, and no
    single scan could show it.
    """
    k_space = np.fft.fft2(data, axes=(0, 1))
    n_read, n_phase = data.shape[:2]
    order = np.fft.fftshift(np.arange(n_phase))  # acquired from the lowest frequency to the highest
    begin = np.sort(rng.integers(0, n_phase, MOVEMENTS))
    position = rng.normal(0, strength, (MOVEMENTS + 1, 2))[np.searchsorted(begin, np.arange(n_phase), "right")]
    middle = np.abs(np.arange(n_phase) - n_phase // 2) < LINES_AT_REST * n_phase / 2
    position[middle] = 0
    shift = np.zeros((n_phase, 2))
    shift[order] = position
    ghosted = k_space * _moved(shift, n_read)
    ghosted *= _moved(np.broadcast_to(-_displacement(k_space, ghosted), shift.shape), n_read)
    seen: Floats = np.abs(np.fft.ifft2(ghosted, axes=(0, 1)))
    return seen.astype(np.float32)


def _moved(shift: NDArray[np.float64], n_read: int) -> NDArray[np.complexfloating[Any, Any]]:
    """What multiplies k-space (I, J, K) when its line n shows the head moved by shift[n], (J, 2) voxels."""
    turns = np.fft.fftfreq(n_read)[:, None] * shift[:, 0] + np.fft.fftfreq(len(shift)) * shift[:, 1]
    factors: NDArray[np.complexfloating[Any, Any]] = np.exp(-2j * np.pi * turns)[..., None]
    return factors


def _displacement(
    one: NDArray[np.complexfloating[Any, Any]], other: NDArray[np.complexfloating[Any, Any]]
) -> NDArray[np.float64]:
    """By how many voxels along the first two axes the one picture has to be moved to correlate best with the other.

    Both are given as k-space (I, J, K). A parabola through the largest correlation and its neighbours tells parts of
    a voxel.
    """
    correlation = np.fft.ifft2((np.conj(one) * other).sum(2)).real
    peak = np.array(np.unravel_index(correlation.argmax(), correlation.shape))
    found = np.zeros(2)
    for axis, n in enumerate(correlation.shape):
        line = np.roll(np.take(correlation, peak[1 - axis], 1 - axis), 1 - peak[axis])
        below, top, above = line[:3]
        bend = below - 2 * top + above
        found[axis] = (peak[axis] + n // 2) % n - n // 2 + ((below - above) / (2 * bend) if bend < 0 else 0.0)
    return found


def add_bias(data: Floats, strength: float, rng: Generator) -> Floats:
    """A smooth random gain; ``strength`` is the standard deviation of its logarithm at the control points."""
    points = rng.normal(0, strength, CONTROL_POINTS)
    zoom = [n / c for n, c in zip(data.shape, CONTROL_POINTS, strict=True)]
    field = ndimage.zoom(points, zoom, order=3, mode="nearest", grid_mode=True)
    biased: Floats = (data * np.exp(field)).astype(np.float32)
    return biased


def _header(change: Callable[[float], NDArray[np.float64]]) -> Damager:
    """A wrong header: the affine is multiplied by a matrix, the voxels stay as they are."""

    def damager(case: Case, strength: float, rng: Generator) -> Case:
        return replace(case, image=replace(case.image, affine=case.image.affine @ change(strength)))

    return damager


def _reversed(axis: int) -> Damager:
    signs = np.ones(4)
    signs[axis] = -1
    return _header(lambda strength: np.diag(signs))


def _swapped(order: tuple[int, int, int]) -> Damager:
    matrix = np.eye(4)[:, [*order, 3]]
    return _header(lambda strength: matrix)


def _cropped(upper: bool) -> Damager:
    """Only the upper or the lower part of the brain is scanned; ``strength`` is the share that is missing."""

    def damager(case: Case, strength: float, rng: Generator) -> Case:
        brain = np.flatnonzero((case.anatomy.tissue > 0).any((0, 1)))
        low, high = int(brain[0]), int(brain[-1]) + 1
        missing = round(strength * (high - low))
        window = (..., slice(low + missing, None) if upper else slice(0, high - missing))
        affine = case.image.affine.copy()
        affine[:3, 3] += affine[:3, 2] * (window[1].start or 0)
        tissue, side, parcel = (
            volume[window] for volume in (case.anatomy.tissue, case.anatomy.side, case.anatomy.parcel)
        )
        image = replace(case.image, data=case.image.data[window], affine=affine)
        return replace(case, image=image, anatomy=Anatomy(tissue, side, parcel))

    return damager


NONE = Damage("none")
KINDS: dict[str, Damager] = {
    NONE.kind: _with(lambda data, strength, rng: data),
    "noise": _with(add_noise),
    "motion": _with(add_motion),
    "bias": _with(add_bias),
    "upside down": _reversed(2),
    "back to front": _reversed(1),
    "axes swapped": _swapped((0, 2, 1)),
    "axes rotated": _swapped((1, 2, 0)),
    "voxel size": _header(lambda strength: np.diag((strength, strength, strength, 1.0))),
    "cut below": _cropped(upper=True),
    "cut above": _cropped(upper=False),
}
"Damages by name. A mirrored brain is not among them: it looks like a brain, and no image shows the fault."
STRENGTHS = {
    "noise": (0.1, 0.2, 0.4),
    "motion": (2.0, 4.0, 8.0),
    "bias": (0.6, 1.0, 1.5),
    "upside down": (0.0,),
    "back to front": (0.0,),
    "axes swapped": (0.0,),
    "axes rotated": (0.0,),
    "voxel size": (0.6, 0.8, 1.5),
    "cut below": (0.2, 0.4, 0.6),
    "cut above": (0.2, 0.5),
}
DAMAGES = tuple(Damage(kind, strength) for kind, strengths in STRENGTHS.items() for strength in strengths)
