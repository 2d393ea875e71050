"""The sessions of one participant together: steadier labels, in which true changes stay.

The network answers for each session by itself. Rigidly registered, its answers are averaged on the grid of each
session, as those of contrasts are (``fusion``): a mean takes out most of what noise, coil field and position do to an
answer, but also what has changed. How sessions differ is therefore asked of their grey values. At a border between two
tissues a grey value between theirs tells how much of the voxel each of them has; where a border moves, so many grey
values change. For any number of tissues of mean probabilities m and local grey values c, a session whose grey values
are I has

    m + m (c - m.c) G(I - m.c) G(Var) / (G(Var)^2 + s^4),    Var = m.c^2 - (m.c)^2,

with G the mean over a few mm: the borders within them move until they account for the grey values there, be they as
sharp in the answers as in the scan or sharper. Of the second term, each session gets what differs from the mean over
sessions, and the more of it the further the borders around have moved together: noise moves them here and there. What
all sessions have in common cancels out; so do scales of grey values, since each session has its own c. Where tissues
have hardly any contrast, s lets the mean stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from bidsseg.imaging.arrays import Floats, as_float32, sampled
from bidsseg.imaging.deformation import smoothed
from bidsseg.network.probabilities import Probabilities
from bidsseg.segmentation.fusion import Contrast, Matrix, fuse

CERTAIN = 0.995
"A voxel of which a tissue has more lies at no border."
COARSE = 4
"Voxels along the side of a coarse one, on which local means are taken."
LOCAL_MM = 8.0
"Standard deviation of the surroundings that grey values of tissues are taken from."
SQUARINGS = 3
"Of a probability, for the weight of a voxel in them: those at borders are mixed."
BORDER_MM = 1.2
"Standard deviation of G: borders in a scan are about as wide, and opposite sides of most structures lie further apart."
NOISE = 0.1
"s, of a scale on which the brain's grey values span 0-1."
SMALL_MOVE = 0.1
"""A common move of borders of which about half is believed, in shares of how far answers blur them. What scans differ
by without a change is mostly smaller, and a change moves all of the border around a structure."""
BELIEVED = 1.25
"""What the believed share tends to, if it were not for 1, its bound. ``benchmarks/longitudinal.py`` measures what these
numbers trade: steadiness without a change for what is left of a true change."""


@dataclass(frozen=True)
class Session:
    """One scan of a participant and contrast, and what the network says of it by itself."""

    contrast: Contrast
    volume: Floats
    "(I, J, K): the 1 mm grid as the network saw it, 0-1."


def segment_with(own: Session, others: Sequence[tuple[Session, Matrix]], threads: int = 0) -> Probabilities:
    """What is to be said of a session, on its own 1 mm grid, knowing other sessions.

    Each of the others comes with the transform, 4x4, from RAS mm of ``own`` to its RAS mm. Beyond its field of view,
    the rest count alone. 0 threads take all.
    """
    found = fuse(own.contrast, [(other.contrast, matrix) for other, matrix in others], threads)
    if others:
        _tell_apart(found.tissue, (_grey(own, m, one, found) for one, m in ((own, np.eye(4)), *others)))
    return found


def _grey(own: Session, to_other: Matrix, other: Session, found: Probabilities) -> Floats:
    """The grey values of a session in the box of probabilities on the grid of ``own``; NaN beyond its field of view."""
    corner = np.eye(4)
    corner[:3, 3] = found.origin
    matrix = np.linalg.inv(other.contrast.grid.affine) @ to_other @ own.contrast.grid.affine @ corner
    beyond = np.full(1, np.nan, np.float32)
    there: Floats = sampled(other.volume[None], matrix, found.tissue.shape[1:], beyond)[0]
    return there


def _tell_apart(tissue: NDArray[np.float16], greys: Iterator[Floats]) -> None:
    """In place: give mean probabilities (C, I, J, K) what is the first session's own, by the grey values (I, J, K) of
    all sessions that the mean was taken over.

    One session after the other, since what each tells is as large as the probabilities of all borders.
    """
    border = tissue.max(0) < CERTAIN
    own, own_seen = _change(tissue, border, next(greys))
    total, seen = own.copy(), own_seen.astype(np.int32)
    for grey in greys:
        change, here = _change(tissue, border, grey)
        total += change
        seen += here
    apart = np.where(own_seen, own - total / np.maximum(seen, 1), 0)
    mean = as_float32(tissue[:, border])
    probable = (mean + _trust(mean, apart, border) * apart).clip(0)
    tissue[:, border] = probable / probable.sum(0)


def _change(tissue: NDArray[np.float16], border: NDArray[np.bool_], grey: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """(C, N) as of ``_told``, 0 beyond the session's field of view, and where in the N voxels it reaches, (N,)."""
    seen = np.isfinite(grey[border])
    return np.where(seen, _told(tissue, border, grey), np.float32(0)), seen


def _told(tissue: NDArray[np.float16], border: NDArray[np.bool_], grey: Floats) -> Floats:
    """(C, N): by how much the grey values of one session change mean probabilities at the N voxels of borders."""
    expected, squares = np.zeros(border.shape, np.float32), np.zeros(border.shape, np.float32)
    levels = np.empty((len(tissue), np.count_nonzero(border)), np.float32)
    for probable, coarse, level in zip(tissue, _local_means(tissue, grey), levels, strict=True):
        fine, share = _fine(coarse, border.shape), as_float32(probable)
        expected += share * fine
        squares += share * fine**2
        level[:] = fine[border]
    off, variance = (
        ndimage.gaussian_filter(volume, BORDER_MM)[border]
        for volume in (np.nan_to_num(grey - expected), (squares - expected**2).clip(0))
    )
    change: Floats = (
        as_float32(tissue[:, border]) * (levels - expected[border]) * (off * variance / (variance**2 + NOISE**4))
    )
    return change


def _trust(mean: Floats, apart: Floats, border: NDArray[np.bool_]) -> Floats:
    """(N,): how much of a difference is taken, from how far the borders around have moved together.

    That is told by the more moved of the two likeliest tissues of a voxel.
    """
    likeliest = np.argpartition(mean, -2, 0)[-2:]
    most = np.zeros(mean.shape[1], np.float32)
    volume = np.zeros(border.shape, np.float32)
    for tissue, (share, change) in enumerate(zip(mean, apart, strict=True)):
        here = (likeliest == tissue).any(0)
        if not here.any():
            continue
        parts = []
        for values in (change, share * (1 - share)):
            volume[border] = values
            parts.append(_coarse(volume))
        moved, room = smoothed(torch.stack(parts), LOCAL_MM / COARSE)
        squares = (moved / (room + 1e-4)) ** 2
        trusted = _fine((BELIEVED * squares / (squares + SMALL_MOVE**2)).clamp(max=1), border.shape)[border]
        most = np.where(here, np.maximum(most, trusted), most)
    return most


def _local_means(tissue: NDArray[np.float16], grey: Floats) -> Tensor:
    """(C, i, j, k), coarse: the grey value of each tissue around each place; far from it, that of all of it."""
    seen = np.isfinite(grey)
    known = np.where(seen, grey, 0)
    weights, sums = [], []
    for probable in tissue:
        weight = as_float32(probable) * seen
        for _ in range(SQUARINGS):
            weight *= weight
        weights.append(_coarse(weight))
        sums.append(_coarse(weight * known))
    return _local(torch.stack(sums), torch.stack(weights))


def _local(sums: Tensor, weights: Tensor) -> Tensor:
    """Means around each place of weighted sums, both (C, i, j, k)."""
    overall = (sums.sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1e-6))[:, None, None, None]
    sigma, little = LOCAL_MM / COARSE, 1e-3
    return (smoothed(sums, sigma) + little * overall) / (smoothed(weights, sigma) + little)


def _coarse(volume: Floats) -> Tensor:
    """Means over cubes of ``COARSE`` voxels a side, of what there is of those at the far faces."""
    sides = [min(COARSE, n) for n in volume.shape]
    coarse: Tensor = F.avg_pool3d(torch.from_numpy(volume)[None], sides, COARSE, ceil_mode=True)[0]
    return coarse


def _fine(coarse: Tensor, shape: tuple[int, ...]) -> Floats:
    """The way back, trilinear."""
    fine = F.interpolate(coarse[None, None].float(), scale_factor=COARSE, mode="trilinear", align_corners=False)[0, 0]
    whole: Floats = fine[tuple(slice(n) for n in shape)].numpy()
    return whole
