"""The training set as one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidsseg.train.data import Subject, load_lesions, load_subjects


@dataclass(frozen=True)
class TrainingSet:
    """All that a network learns from."""

    subjects: list[Subject]
    lesions: list[NDArray[np.uint8]]


def load_training_set(data: Path, cache: Path) -> TrainingSet:
    """From a folder."""
    return TrainingSet(load_subjects(data, cache), load_lesions(data))
