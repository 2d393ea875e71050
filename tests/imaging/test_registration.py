"""Rigid registration of thin scans: they are padded for it, which must not move them."""

from __future__ import annotations

import numpy as np
import pytest

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.registration import rigid_transform
from tests.phantoms import image


def blobs(thickness: int, shift: int) -> Floats:
    """(48, 48, thickness): three round shapes of different size and brightness, moved along the first axis."""
    i, j, _ = np.indices((48, 48, thickness))
    shapes = (((16, 18), 9, 40), ((32, 26), 6, 90), ((20, 36), 4, 70))
    parts = [
        bright * np.exp(-((i - a - shift) ** 2 + (j - b) ** 2) / (2 * width**2)) for (a, b), width, bright in shapes
    ]
    grey: Floats = np.sum(parts, 0, np.float32)
    return grey


@pytest.mark.parametrize("thickness", [1, 2, 5, 7])
def test_a_thin_scan_is_found_in_a_thicker_one(thickness: int) -> None:
    thin, thick = image(blobs(thickness, 0)), image(blobs(16, 3))
    for fixed, moving, expected in ((thin, thick, 3), (thick, thin, -3)):
        matrix = rigid_transform(fixed, moving)
        middle = matrix @ [24, 24, (thickness - 1) / 2, 1]
        assert middle[:2] == pytest.approx([24 + expected, 24], abs=0.7)
