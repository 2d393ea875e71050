"""By how much a found lesion load is expected to miss the truth, from patients who never trained.

They are few, so nothing but a share of the load is fitted, for thick slices and for thin ones. Lesions painted into
held-out brains would be many, but their errors depend more on how they are painted than on the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bidsseg.network.lesion_config import THICK_MM, LoadError, LoadErrors

FLOOR_ML = 0.1
"No load is told as known better than this: in brains without lesions less is found."
UNKNOWN_SHARE = 1.0
"Where there is no patient to tell."


@dataclass(frozen=True)
class ComparedLoad:
    """A lesion load as it was found, and as it is."""

    name: str
    slice_mm: float
    found_ml: float
    true_ml: float

    @property
    def error_ml(self) -> float:
        return abs(self.found_ml - self.true_ml)


def load_errors(patients: Sequence[ComparedLoad]) -> LoadErrors:
    """The mean share by which loads were missed, for scans in thick and in thin slices."""
    return LoadErrors(
        _of([load for load in patients if _is_thick(load)]), _of([load for load in patients if not _is_thick(load)])
    )


def _of(loads: Sequence[ComparedLoad]) -> LoadError:
    """Such that the errors expected of these loads have the mean of those that they have."""
    shares = [max(0.0, load.error_ml - FLOOR_ML) / max(load.found_ml, FLOOR_ML) for load in loads]
    return LoadError(FLOOR_ML, round(float(np.mean(shares)), 3) if shares else UNKNOWN_SHARE)


def validation(patients: Sequence[ComparedLoad]) -> dict[str, Any]:
    """How the error in each patient compares with what the others in such slices let expect, for the card.

    A patient without any others tells nothing, and is left out.
    """
    ratios = {}
    for one in patients:
        others = [load for load in patients if load is not one and _is_thick(load) == _is_thick(one)]
        if others:
            ratios[one.name] = round(one.error_ml / _of(others).of(one.found_ml), 2)
    return {
        "error in patients over the expected one, each left out": ratios,
        "patients within twice the expected error": sum(ratio <= 2 for ratio in ratios.values()),
    }


def _is_thick(load: ComparedLoad) -> bool:
    return load.slice_mm >= THICK_MM
