"""The labels of the template, for those who need no registration and so no torch."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np

from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.spaces import TEMPLATE

TEMPLATE_FILE = f"{TEMPLATE}.npz"


@cache
def template() -> Anatomy:
    """The labels of the template, on its grid of 1 mm."""
    with (files("bidsseg") / "tables" / TEMPLATE_FILE).open("rb") as file, np.load(file) as stored:
        tissue, side, parcel, affine = (stored[name] for name in ("tissue", "side", "parcel", "affine"))
    return Anatomy(tissue, side, parcel, affine)
