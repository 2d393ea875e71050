"""All that the card says of a lesion network, from patients and brains that it never learned from.

Patients against their manual masks, beside a rule of one line, and by how much their loads are missed; other contrasts
than FLAIR; brains without lesions; and patients who are scanned again without a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nilearn.datasets import load_mni152_template

from bidsseg.evaluation.lesion_load import ComparedLoad, load_errors, validation
from bidsseg.evaluation.lesion_rescan import false_changes
from bidsseg.evaluation.lesion_scores import (
    LesionScore,
    as_row,
    compare,
    found_in,
    masked_scans,
    rule_of_one_line,
    summary,
)
from bidsseg.evaluation.scores import recolour
from bidsseg.imaging.image import Image, at_1mm
from bidsseg.network.lesion_config import LoadErrors
from bidsseg.network.lesion_model import LesionModel
from bidsseg.network.weights import Model
from bidsseg.segmentation.template_labels import template
from bidsseg.train.data import VALIDATION_MASK
from bidsseg.train.held_out import Case, validation_cases

NOT_OFFERED = ("T1w", "T2w")
"Contrasts in which lesions are not looked for, measured all the same."
Told = Callable[[str], None]


@dataclass(frozen=True)
class LesionMeasures:
    """By scan."""

    network: dict[str, LesionScore] = field(default_factory=dict)
    rule: dict[str, LesionScore] = field(default_factory=dict)
    "The same of the rule of one line."
    patients: list[ComparedLoad] = field(default_factory=list)
    "The loads of the same scans."
    again: dict[str, dict[str, int]] = field(default_factory=dict)
    "Lesions of the same scans by what became of them in a scan taken again without a change."
    not_offered: dict[str, dict[str, LesionScore]] = field(default_factory=dict)
    "Of other contrasts."
    lesion_free_ml: dict[str, float] = field(default_factory=dict)
    "What was found in brains of healthy people."

    @property
    def load_errors(self) -> LoadErrors:
        """What is expected of loads that the network finds."""
        return load_errors(self.patients)


def measure(data: Path, model: Model, lesion_model: LesionModel, told: Told) -> LesionMeasures:
    """Find lesions in the validation patients of DATA, and in brains without any."""
    measured = LesionMeasures()
    _measure_patients(measured, data, model, lesion_model, told)
    _measure_other_contrasts(measured, data, model, lesion_model, told)
    for name, image in lesion_free(data):
        mask = found_in(image, model, lesion_model).mask(lesion_model.card.thresholds.of(image.spacing_mm))
        measured.lesion_free_ml[name] = float(mask.sum()) * image.voxel_volume_mm3 / 1000
        told(f"{name}: {measured.lesion_free_ml[name]:.2f} mL found where there are no lesions")
    return measured


def _measure_patients(
    measured: LesionMeasures, data: Path, model: Model, lesion_model: LesionModel, told: Told
) -> None:
    for scan in masked_scans(data):
        found = found_in(scan.image, model, lesion_model)
        threshold = lesion_model.card.thresholds.of(scan.image.spacing_mm)
        for scores, mask in (
            (measured.network, found.mask(threshold)),
            (measured.rule, rule_of_one_line(scan.image, found.segmentation)),
        ):
            scores[scan.name] = compare(mask, scan.manual, scan.image.voxel_volume_mm3)
        score = measured.network[scan.name]
        slice_mm = float(max(scan.image.spacing_mm))
        measured.patients.append(ComparedLoad(scan.name, slice_mm, score.found_ml, score.manual_ml))
        measured.again[scan.name] = false_changes(scan.image, found, model, lesion_model)
        changes = measured.again[scan.name]
        told(
            f"{scan.name}: Dice {score.dice:.3f}, by the rule {measured.rule[scan.name].dice:.3f}; "
            f"scanned again {changes['new']} lesions new, {changes['vanished']} vanished"
        )


def _measure_other_contrasts(
    measured: LesionMeasures, data: Path, model: Model, lesion_model: LesionModel, told: Told
) -> None:
    for contrast in NOT_OFFERED:
        scores = measured.not_offered[contrast] = {}
        for scan in masked_scans(data, contrast):
            threshold = lesion_model.card.thresholds.of(scan.image.spacing_mm)
            mask = found_in(scan.image, model, lesion_model).mask(threshold)
            scores[scan.name] = compare(mask, scan.manual, scan.image.voxel_volume_mm3)
            told(f"{scan.name}, {contrast}: Dice {scores[scan.name].dice:.3f}, not offered")


def measured_as_json(measured: LesionMeasures) -> dict[str, Any]:
    """For the card."""
    clinical = [name for name in measured.network if name != VALIDATION_MASK]
    return {
        "validation patients": {name: as_row(score) for name, score in measured.network.items()},
        "rule of one line": {name: as_row(score) for name, score in measured.rule.items()},
        "mean": summary([*measured.network.values()]),
        "mean of the rule": summary([*measured.rule.values()]),
        "mean of 2D FLAIR": summary([measured.network[name] for name in clinical]),
        "mean of 2D FLAIR, rule": summary([measured.rule[name] for name in clinical]),
        "not offered": {
            contrast: {name: as_row(score) for name, score in scores.items()}
            for contrast, scores in measured.not_offered.items()
        },
        "lesion-free brains, mL found": {name: round(ml, 3) for name, ml in measured.lesion_free_ml.items()},
        "lesion load": validation(measured.patients),
        "scanned again without a change": measured.again,
    }


def lesion_free(data: Path) -> Iterator[tuple[str, Image]]:
    """Brains of healthy people, and the MNI152 template, in the contrast of FLAIR, which have no lesions."""
    for case in validation_cases(data):
        yield case.name, at_1mm(recolour(case, "flair"))
    mean = load_mni152_template(resolution=1)
    scan = at_1mm(np.asarray(mean.dataobj, np.float32))
    yield "MNI152 template", at_1mm(recolour(Case("MNI152 template", scan, template()), "flair"))
