"""Scans of one session together: which to fuse, and which to compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bidsseg.bids.outputs import FUSED, ScanOutputs


def other_contrasts(all_outputs: Iterable[ScanOutputs]) -> dict[ScanOutputs, list[ScanOutputs]]:
    """For every scan that has any, the scans of its session with another suffix."""
    all_outputs = list(all_outputs)
    found = {}
    for outputs in all_outputs:
        others = [other for other in all_outputs if session_key(other) == session_key(outputs)]
        others = [other for other in others if other.scan.suffix != outputs.scan.suffix]
        if others:
            found[outputs] = others
    return found


def session_key(outputs: ScanOutputs) -> tuple[Path, str, str | None]:
    return outputs.out, outputs.scan.subject, outputs.scan.session


def all_fused_outputs(all_outputs: Iterable[ScanOutputs]) -> list[ScanOutputs]:
    """Where the fused segmentations go, one on the grid of every scan whose session has other contrasts."""
    groups = other_contrasts(all_outputs).items()
    return [fused_outputs(outputs, [other.scan.path for other in others]) for outputs, others in groups]


def fused_outputs(outputs: ScanOutputs, partners: Sequence[Path]) -> ScanOutputs:
    scan = replace(outputs.scan, suffix=outputs.scan.suffix + FUSED)
    return replace(outputs, scan=scan, partners=tuple(partners))
