"""Grey values that no scanner measured: wrapped or saturated voxels, and frames painted around a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import SAMPLED, Floats

MOST_UNSOUND = 0.06
"Share of the voxels at either end that may be absurd; more of them are taken for part of the scan."
LEAST_FRAME = 0.01
"Share of the volume that a frame fills at least."
CRUMB = 0.01
"Of the largest piece of an area."
PARTS = 8
FLAT = 0.75
"Share of equal neighbours from which equal voxels are an even area: among values of noise it is about their frequency."
FAR_BELOW = 0.05
"Of the range of all other values: a dark frame that is nearer to them does no harm."
OWN_AIR = 0.1
"Share of the other values that is air, where a scan shows any."
BEYOND_MEASURE = 1000
"Times the range of all other values."


def sound_values(data: Floats) -> tuple[Floats, tuple[str, ...]]:
    """The scan (I, J, K) with frames made dark and absurd values replaced by their neighbours', and what was done.

    A frame is what a program put around the scan: an even area that holds half of the volume's corners, as that of
    every scan does that was padded on one side, or turned, or given another background; or else half of its border. It
    becomes as dark as the darkest of the other values. Absurd are a few per cent of the values that lie far beyond all
    others, and close together.
    """
    sound, replaced = _without_absurd(data)
    framed = []
    for value in _values_of_border(sound):
        sound, share = _without_frame(sound, value)
        if share:
            framed.append(f"a frame of the value {value:g} fills {share:.0%} of the image; it counts as background")
    if not replaced:
        return sound, tuple(framed)
    absurd = (
        f"{replaced:.2%} of its voxels have values far beyond all others (overflow, or a marker); "
        "the values of their neighbours were used"
    )
    return sound, (*framed, absurd)


def _values_of_border(data: Floats) -> list[float]:
    """The values that half of the corners have, and that of most of the border.

    Saturated tissue may fill a face of the volume, but not these. Half of the corners of a turned and shifted field of
    view always lie outside the old one, since of two opposite corners one is moved outwards.
    """
    corners, counts = np.unique(data[np.ix_((0, -1), (0, -1), (0, -1))], return_counts=True)
    border = np.concatenate([face.reshape(-1) for face in _faces(data)])
    middle = np.partition(border, border.size // 2)[border.size // 2]
    often = [middle] if (border == middle).mean() > 0.5 else []
    return sorted({float(value) for value in (*corners[counts >= 4], *often)})


def _without_frame(data: Floats, value: float) -> tuple[Floats, float]:
    """The scan without the frame of this value, and the frame's share; 0 where it is none or need not change."""
    others = data != value
    darkest, brightest = float(data.min(where=others, initial=np.inf)), float(data.max(where=others, initial=-np.inf))
    if darkest >= brightest or (value < darkest and not _is_below_air(data, value, darkest, brightest)):
        return data, 0.0  # a scan of two values would be left with one
    frame, large = _at_the_border(~others)
    share = float(frame.mean())
    if share < LEAST_FRAME or _flatness(large) < FLAT:
        return data, 0.0
    if value < darkest:
        return np.maximum(data, np.float32(darkest)), share
    return np.where(frame, data.min(where=~frame, initial=np.inf), data), share


def _at_the_border(area: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Its pieces that touch the border of the volume, and those of them that are no crumbs of noise."""
    pieces, last = ndimage.label(area)
    touching = np.unique(np.concatenate([np.unique(face) for face in _faces(pieces)]))
    parts = np.array_split(pieces, PARTS)  # counting makes a copy of twice the size
    sizes = sum((np.bincount(part.reshape(-1), minlength=last + 1) for part in parts), np.zeros(last + 1, np.int64))
    at_border = np.isin(np.arange(last + 1), touching[touching > 0])
    large = at_border & (sizes > CRUMB * sizes[1:].max(initial=0))
    return at_border[pieces], large[pieces]


def _is_below_air(data: Floats, value: float, darkest: float, brightest: float) -> bool:
    """Whether the darkest value lies below all others, as a scanner or the stripping of a skull never leaves it.

    The others are then a scan with its own air, whose spread is less than half the distance to it. Those of a stripped
    brain spread more: some of its fluid is about as dark as what was put around it.
    """
    some = data.flat[:: max(1, data.size // SAMPLED)]
    if not (some > value).any():
        return False
    air = float(np.quantile(some[some > value], OWN_AIR))
    return darkest - value > max(2 * (air - darkest), FAR_BELOW * (brightest - darkest))


def _flatness(area: NDArray[np.bool_]) -> float:
    """Share of the neighbours of its voxels, inside the volume, that belong to it."""
    along = [np.moveaxis(area, axis, 0) for axis in range(3)]
    equal = sum(2 * int(np.count_nonzero(one[1:] & one[:-1])) for one in along)
    at_border = sum(int(np.count_nonzero(face)) for face in _faces(area))
    return equal / max(1, 6 * int(np.count_nonzero(area)) - at_border)


def _faces(volume: NDArray[Any]) -> list[NDArray[Any]]:
    return [volume[(slice(None),) * axis + (end,)] for axis in range(3) for end in (0, -1)]


def _without_absurd(data: Floats) -> tuple[Floats, float]:
    """The scan with absurd values replaced by the mean of their sound neighbours, and the share of these."""
    low, high = _sound_range(data)
    if (low, high) == (-np.inf, np.inf):
        return data, 0.0
    sound = (data >= low) & (data <= high)
    share = 1 - float(sound.mean())
    if share == 0:
        return data, 0.0
    box = ndimage.uniform_filter(sound.astype(np.float32), 3)
    mean = ndimage.uniform_filter(np.where(sound, data, np.float32(0)), 3) / np.maximum(box, 1 / 54)
    alone = data[sound].min()  # inside a patch of absurd values, mostly a marker, there is no sound neighbour
    return np.where(sound, data, np.where(box > 1 / 54, mean, alone)), share


def _sound_range(data: Floats) -> tuple[float, float]:
    """The lowest and the highest of the values that hang together."""
    values = np.sort(data.flat[:: max(1, data.size // SAMPLED)])  # of another order of axes, reshape would copy all
    few = int(MOST_UNSOUND * values.size)
    inner = values[few : values.size - few]
    high = _end_of(values[values.size - few - 1 :], float(inner[0]))
    low = -_end_of(-values[: few + 1][::-1], -float(inner[-1]))
    return low if low > values[0] else -np.inf, high if high < values[-1] else np.inf


def _end_of(upwards: Floats, lowest: float) -> float:
    """The last of rising values before a gap that no scanner leaves.

    Such a gap is wider than twice all that lies below it, down to ``lowest``, and than twice the spread of what lies
    above it, as tissue on an even background never is; or beyond all measure.
    """
    values = upwards.astype(np.float64)
    gaps, below, above = np.diff(values), values[:-1] - lowest, values[-1] - values[1:]
    wide = np.flatnonzero((below > 0) & (gaps > 2 * below) & ((gaps > 2 * above) | (gaps > BEYOND_MEASURE * below)))
    return float(values[wide[0]] if len(wide) else values[-1])
