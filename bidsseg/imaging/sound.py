"""Grey values that no scanner measured: wrapped or saturated voxels, and frames painted around a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import SAMPLED, Floats

MOST_UNSOUND = 0.06
"Share of the voxels at either end that may be absurd; more of them are taken for part of the scan."
FRAMED_SHARE = 0.5
"Share of a face of the volume that a frame fills at least."
BEYOND_MEASURE = 1000
"Times the range of all other values."


def sound_values(data: Floats) -> tuple[Floats, tuple[str, ...]]:
    """The scan (I, J, K) with frames made dark and absurd values replaced by their neighbours', and what was done.

    A frame is one value that fills half of a face of the volume and what hangs together with it; it becomes the darkest
    of the other values. Absurd are a few per cent of the values that
    lie far beyond all others, and close together.
    """
    unspoilt, replaced = _without_absurd(data)
    sound, framed = _without_frame(unspoilt)
    warnings = []
    if framed:
        warnings.append(
            f"a frame of the value {framed[0]:g} fills {framed[1]:.0%} of the image; it counts as background"
        )
    if replaced:
        warnings.append(
            f"{replaced:.2%} of its voxels have values far beyond all others (overflow, or a marker); "
            "the values of their neighbours were used"
        )
    return sound, tuple(warnings)


def _without_frame(data: Floats) -> tuple[Floats, tuple[float, float] | None]:
    """The scan without its frame, and the frame's value and share; a frame of the darkest value needs no change."""
    darkest = float(data.min())
    for value in {_value_of_face(face) for face in _faces(data)} - {None, darkest}:
        pieces, _ = ndimage.label(data == value)
        touching = np.unique(np.concatenate([np.unique(face) for face in _faces(pieces)]))
        frame = np.isin(pieces, touching[touching > 0])
        if not frame.all():
            return np.where(frame, data[~frame].min(), data), (float(data[frame][0]), float(frame.mean()))
    return data, None


def _faces(volume: NDArray[Any]) -> list[NDArray[Any]]:
    return [volume[(slice(None),) * axis + (end,)] for axis in range(3) for end in (0, -1)]


def _value_of_face(face: Floats) -> float | None:
    """The value that most of a face has, if any."""
    middle = float(np.partition(face, face.size // 2, None)[face.size // 2])
    return middle if (face == middle).mean() > FRAMED_SHARE else None


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
