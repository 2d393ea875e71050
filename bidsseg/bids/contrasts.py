"""Scans of one session together: which to fuse, and which to compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bidsseg.bids.outputs import FUSED, ScanOutputs


def other_contrasts(places: Iterable[ScanOutputs]) -> dict[ScanOutputs, list[ScanOutputs]]:
    """For every scan that has any, the scans of its session with another suffix."""
    places = list(places)
    found = {}
    for place in places:
        others = [other for other in places if session_key(other) == session_key(place)]
        others = [other for other in others if other.scan.suffix != place.scan.suffix]
        if others:
            found[place] = others
    return found


def session_key(place: ScanOutputs) -> tuple[Path, str, str | None]:
    return place.out, place.scan.subject, place.scan.session


def fused_places(places: Iterable[ScanOutputs]) -> list[ScanOutputs]:
    """Where the fused segmentations go, one on the grid of every scan whose session has other contrasts."""
    groups = other_contrasts(places).items()
    return [fused_place(place, [other.scan.path for other in others]) for place, others in groups]


def fused_place(place: ScanOutputs, partners: Sequence[Path]) -> ScanOutputs:
    scan = replace(place.scan, suffix=place.scan.suffix + FUSED)
    return replace(place, scan=scan, partners=tuple(partners))
