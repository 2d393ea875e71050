"""Checks of quality control from outside: clinical scans that look right, with manual masks of ventricles for some.

Nothing is fitted to them. Their labels were looked at slice by slice, so none of them should fail and few should be
asked to be looked at again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.evaluation.damage_study import Means, append_lines, in_parallel
from bidsseg.evaluation.patients import Group, agreement, groups, scan_name, ventricle_dice
from bidsseg.imaging.image import load
from bidsseg.imaging.preparation import prepare
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.quality.assessment import Assessment, assess
from bidsseg.quality.coverage import FieldOfView, field_of_view
from bidsseg.quality.evidence import Evidence, evidence_from
from bidsseg.quality.expectation import Calibration
from bidsseg.quality.judgement import examine
from bidsseg.segmentation.pipeline import answer, native
from bidsseg.segmentation.result import Segmentation

FOLDERS = ("ms-clinical-lesions", "ms-clinical-bids", "ms-lesions-mni", "whole-head-t1")


@dataclass(frozen=True)
class ClinicalScan:
    """What is known of a clinical scan."""

    name: str
    weights_sha256: str
    evidence: Evidence
    geometry: FieldOfView
    ventricle_dice: float | None
    "With the manual mask of all ventricles."
    agreement: float | None
    "Mean Dice of regions with the other contrasts on the same grid."


def run_clinical(means: Means, path: Path, workers: int, report: Callable[[str], None]) -> list[ClinicalScan]:
    """All clinical scans, those already in the file included; ``report`` is called with the name of each new one."""
    done = {scan.name: scan for scan in read_clinical(path) if scan.weights_sha256 == means.sha256}
    left = [
        group
        for group in groups(means.data, FOLDERS)
        if not {scan_name(one, means.data) for one in group} <= done.keys()
    ]
    for scans in in_parallel(partial(run_group, means), left, workers):
        append_lines(path, (json.dumps(asdict(scan)) for scan in scans))
        for scan in scans:
            report(scan.name)
        done |= {scan.name: scan for scan in scans}
    return sorted(done.values(), key=lambda scan: scan.name)


def run_group(means: Means, group: Group) -> list[ClinicalScan]:
    """Label the scans of one session as ``bidsseg participant`` does."""
    model, options = load_model(means.model), PredictOptions(means.device, 1)
    found: list[tuple[str, Evidence, FieldOfView, Segmentation, float | None]] = []
    for path in group:
        image = load(path)
        given = answer(prepare(image, True, 1), model, options)
        labelled = native(given, False)
        of_ventricles = ventricle_dice(means.data, path, labelled.labels("regions"))
        found.append(
            (scan_name(path, means.data), examine(given, model, options), field_of_view(image), labelled, of_ventricles)
        )
    return [
        ClinicalScan(name, means.sha256, evidence, view, dice, _agreement(labelled, [other[3] for other in found]))
        for name, evidence, view, labelled, dice in found
    ]


def _agreement(found: Segmentation, all_found: Sequence[Segmentation]) -> float | None:
    """Mean over the other contrasts on the same grid."""
    values = [agreement(other, found) for other in all_found if other is not found]
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 4) if known else None


def read_clinical(path: Path) -> Iterator[ClinicalScan]:
    """The scans in a file, empty where there is no such file; an incomplete line is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            stored = json.loads(line)
        except ValueError:
            continue
        evidence, view = evidence_from(stored.pop("evidence")), FieldOfView(**stored.pop("geometry"))
        yield ClinicalScan(evidence=evidence, geometry=view, **stored)


def verdicts(scans: Iterable[ClinicalScan], calibration: Calibration) -> list[tuple[ClinicalScan, Assessment]]:
    return [(scan, assess(scan.evidence, scan.geometry, calibration)) for scan in scans]


def about(judged: Sequence[tuple[ClinicalScan, Assessment]]) -> dict[str, Any]:
    """Counts of verdicts, and how ventricles and the agreement of contrasts go with the expected shortfall."""
    counts = Counter(found.verdict for _, found in judged)
    counted: dict[str, Any] = {
        "scans": len(judged),
        **{verdict: counts[verdict] for verdict in ("pass", "check", "fail")},
    }
    for name, of in (("ventricle_dice", "ventricle_dice"), ("agreement_of_contrasts", "agreement")):
        pairs = [
            (found.expectation.shortfall, value)
            for scan, found in judged
            if found.expectation and (value := getattr(scan, of)) is not None
        ]
        if len(pairs) > 2:
            shortfalls, values = np.array(pairs).T
            counted[name] = {
                "scans": len(pairs),
                "mean": round(float(values.mean()), 3),
                "correlation_with_shortfall": round(float(np.corrcoef(shortfalls, values)[0, 1]), 2),
            }
    return counted
