"""What is done to a scan before the network sees it. No torch here: it goes on while that is imported."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import Grid, conform
from bidsseg.imaging.image import Image
from bidsseg.imaging.sound import sound_values


def prepare(image: Image, bias_correction: bool, threads: int = 1) -> Image:
    """The scan with absurd grey values replaced and, where asked for, its bias field corrected."""
    data, warnings = sound_values(image.data)
    sound = replace(image, data=data, warnings=(*image.warnings, *warnings))
    if not bias_correction:
        return sound
    from bidsseg.imaging.bias import correct_bias  # and SimpleITK, which nothing else here needs

    return correct_bias(sound, threads)


class Conformed(NamedTuple):
    """A prepared scan on the grid that the network works on."""

    volume: Floats
    "(I, J, K), 1 mm RAS, with the scan's own grey values."
    grid: Grid
    warnings: tuple[str, ...]
    "Those of the prepared scan."
    scan: Image | None
    "The prepared scan, where voxels of the volume lie between its slices."


def conformed(prepared: Image, grid: Grid | None = None) -> Conformed:
    """Resample a prepared scan to a 1 mm grid: without one to that of its own, RAS."""
    volume, grid = conform(prepared, grid)
    between_slices = bool((grid.spacing_mm > 1).any())
    return Conformed(volume, grid, prepared.warnings, prepared if between_slices else None)
