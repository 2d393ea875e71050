"""By how much a found lesion load is expected to miss the truth.

Lesions of patients are painted into brains that never trained, in thin and in thick slices: there the truth is known
at any load, and tells how the error grows with it. But what is painted is found more easily than what a rater saw, so
the errors are scaled to those in patients who never trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bidsseg.evaluation.scores import AXES, Condition, simulate
from bidsseg.evaluation.views import View, shown_with_lesions
from bidsseg.imaging.arrays import along
from bidsseg.imaging.image import Image
from bidsseg.network.lesion_config import THICK_MM, LoadError, LoadErrors
from bidsseg.train.data import brain_folders

SLICES_MM = (1.0, 6.0)
LEAST_PAINTED_ML = (0.5, 10.0)
"In each brain: patients' lesions are painted until there is so much."
FLOOR_ML = 0.05
"No load is known better than this."


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


def painted_scans(data: Path) -> Iterator[tuple[str, Image, NDArray[np.bool_]]]:
    """Held-out brains of DATA in the contrast of FLAIR, with painted lesions; their names and their lesions."""
    for number, folder in enumerate(brain_folders(data, validation=True)):
        for seed, ml in enumerate(LEAST_PAINTED_ML):
            view = View(folder.name, "", "flair", ml, 1.0, "axial", 0, 10 * number + seed)
            case, lesion = shown_with_lesions(view, data)
            for slice_mm in SLICES_MM:
                image, matrix = simulate(case, Condition(slice_mm))
                share = lesion.astype(np.float32)
                share = share if matrix is None else along(matrix, share, AXES["axial"])
                yield f"{folder.name}, painted {seed + 1}, {slice_mm:g} mm", image, share > 0.5


def load_errors(painted: Sequence[ComparedLoad], patients: Sequence[ComparedLoad]) -> LoadErrors:
    """Fitted to painted scans, and scaled to the errors in patients."""
    shape = _shape(painted)
    factor = _factor(shape, patients)
    return LoadErrors(*(LoadError(round(factor * one.floor_ml, 3), round(factor * one.share, 3)) for one in shape))


def _shape(painted: Sequence[ComparedLoad]) -> LoadErrors:
    thick = [load for load in painted if load.slice_mm >= THICK_MM]
    return LoadErrors(_fitted(thick), _fitted([load for load in painted if load not in thick]))


def _fitted(loads: Sequence[ComparedLoad]) -> LoadError:
    """Least squares without negative terms; errors of small loads count for more, as they are smaller."""
    found, errors = np.array([[load.found_ml, load.error_ml] for load in loads]).reshape(-1, 2).T
    weights = 1 / (1 + found)
    (floor, share), _ = nnls(np.column_stack((weights, weights * found)), weights * errors)
    return LoadError(max(FLOOR_ML, float(floor)), float(share))


def _factor(shape: LoadErrors, patients: Sequence[ComparedLoad]) -> float:
    """How much larger errors are in patients than in painted scans; at least 1."""
    ratios = [load.error_ml / shape.of([load.slice_mm]).of(load.found_ml) for load in patients]
    return max(1.0, float(np.mean(ratios))) if ratios else 1.0


def validation(painted: Sequence[ComparedLoad], patients: Sequence[ComparedLoad]) -> dict[str, Any]:
    """How the errors in patients compare with what is expected of each without this patient, for the card."""
    ratios = {}
    for one in patients:
        others = load_errors(painted, [other for other in patients if other is not one])
        ratios[one.name] = one.error_ml / others.of([one.slice_mm]).of(one.found_ml)
    return {
        "error in patients over the expected one, each left out": {name: round(r, 2) for name, r in ratios.items()},
        "patients within twice the expected error": sum(ratio <= 2 for ratio in ratios.values()),
        "painted scans, mL found and painted": {
            load.name: [round(load.found_ml, 2), round(load.true_ml, 2)] for load in painted
        },
    }
