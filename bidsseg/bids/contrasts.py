"""Scans of one session together: which to fuse, and what their quality files tell of their agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from bidsseg.bids.outputs import FUSED, Place
from bidsseg.files import read_json, write_json

AGREEMENT = "ContrastAgreement"
WITH = "ContrastAgreementWith"
LOW_AGREEMENT = 0.5
"Mean Dice over regions of two contrasts below which a scan needs a look."
AGREE_LITTLE = "the answers from the session's contrasts agree little"


def other_contrasts(places: Iterable[Place]) -> dict[Place, list[Place]]:
    """For every scan that has any, the scans of its session with another suffix."""
    places = list(places)
    found = {}
    for place in places:
        others = [other for other in places if _session(other) == _session(place)]
        others = [other for other in others if other.scan.suffix != place.scan.suffix]
        if others:
            found[place] = others
    return found


def _session(place: Place) -> tuple[Path, str, str | None]:
    return place.out, place.scan.subject, place.scan.session


def fused_places(places: Iterable[Place]) -> list[Place]:
    """Where the fused segmentations go, one on the grid of every scan whose session has other contrasts."""
    groups = other_contrasts(places).items()
    return [fused_place(place, [other.scan.path for other in others]) for place, others in groups]


def fused_place(place: Place, partners: Sequence[Path]) -> Place:
    scan = replace(place.scan, suffix=place.scan.suffix + FUSED)
    return replace(place, scan=scan, partners=tuple(partners))


def sessions_to_compare(places: Iterable[Place]) -> list[list[Place]]:
    """Sessions with several contrasts, all segmented, whose quality files lack a part of their agreement."""
    groups: dict[tuple[Path, str, str | None], list[Place]] = {}
    for place in other_contrasts(places):
        groups.setdefault(_session(place), []).append(place)
    return [group for group in groups.values() if _is_incomplete(group)]


def _is_incomplete(group: Sequence[Place]) -> bool:
    """A scan done again has a fresh quality file, without agreement."""
    qualities = {place: read_json(place.marker) for place in group}
    if not all(qualities.values()):
        return False
    others = other_contrasts(group)
    return any({other.scan.stem for other in others[place]} != set(qualities[place].get(WITH, {})) for place in group)


def compare_session(group: Sequence[Place], threads: int) -> None:
    """Register a session's scans and write into their quality files how much their regions, or lobes, agree."""
    from bidsseg.imaging.image import load
    from bidsseg.segmentation.fusion import register_answers

    labels = [_label_image(place) for place in group]
    if not all(labels):
        return
    scans = [(load(place.scan.path), load(path)) for place, path in zip(group, labels, strict=True) if path]
    pairs = [(a, b) for a, b in combinations(range(len(group)), 2) if group[a].scan.suffix != group[b].scan.suffix]
    found = register_answers(scans, pairs, threads)
    for a, place in enumerate(group):
        by_other = {
            other.scan.stem: round(found[a, b], 4)
            for b, other in enumerate(group)
            if other.scan.suffix != place.scan.suffix
        }
        write_json(place.marker, with_agreement(read_json(place.marker), by_other))


def _label_image(place: Place) -> Path | None:
    """The coarsest division of the cortex there is; gyri differ too much to tell a bad answer."""
    for scheme in ("regions", "lobes", "gyri"):
        path = place.file("dseg.nii.gz", space="orig", seg=scheme, desc=place.scan.suffix)
        if path.exists():
            return path
    return None


def with_agreement(quality: Mapping[str, Any], by_other: Mapping[str, float]) -> dict[str, Any]:
    """A quality file's content with the agreement, in place of an earlier one; a scan that passed needs a look where it
    is low, and needs none where that was all."""
    mean = round(sum(by_other.values()) / len(by_other), 4)
    changed = {**quality, AGREEMENT: mean, WITH: dict(by_other)}
    if "Verdict" not in quality:
        return changed
    before = list(quality.get("Reasons", []))
    reasons = [reason for reason in before if not reason.startswith(AGREE_LITTLE)]
    verdict = "pass" if before and not reasons and quality["Verdict"] == "check" else quality["Verdict"]
    if mean < LOW_AGREEMENT:
        reasons.append(f"{AGREE_LITTLE}: mean Dice {mean:.2f}")
        verdict = "check" if verdict == "pass" else verdict
    return {**changed, "Verdict": verdict, "Reasons": reasons}
