"""Scans with manual labels, kept out of training; and those that the training learns from, to compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bidsseg.imaging.image import Image, load
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.coded_labels import anatomy_from_braincolor
from bidsseg.train.data import brain_folders, load_ras


@dataclass(frozen=True)
class Case:
    """A scan with manual labels, in RAS at 1 mm."""

    name: str
    image: Image
    anatomy: Anatomy


def validation_cases(data: Path) -> Iterator[Case]:
    """The scans kept out of training."""
    return map(case_in, brain_folders(data, validation=True))


def training_cases(data: Path) -> Iterator[Case]:
    """The scans that the training learns from, as users would give them."""
    return map(case_in, brain_folders(data, validation=False))


def case_in(folder: Path) -> Case:
    """The scan and the manual labels in a folder."""
    path = next(folder.glob("*_T1w.nii.gz"))
    volume, affine = load_ras(path)
    manual, _ = load_ras(next(folder.glob("*_dseg.nii.gz")))
    scan = replace(load(path), data=volume, affine=affine)
    return Case(folder.name, scan, anatomy_from_braincolor(manual.astype(np.int16)))
