"""Scans that belong together: those of a session, to fuse or to compare, and those of a participant's sessions."""

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


def with_other_sessions(all_outputs: Iterable[ScanOutputs]) -> list[ScanOutputs]:
    """The same scans, each with those of the participant's other sessions whose names differ in nothing but ``ses-``.

    A session has one scan of a name, so scans of one session are never together.
    """
    all_outputs = list(all_outputs)
    alike: dict[tuple[object, ...], list[Path]] = {}
    for outputs in all_outputs:
        alike.setdefault(_but_session(outputs), []).append(outputs.scan.path)
    return [
        replace(outputs, others=tuple(path for path in alike[_but_session(outputs)] if path != outputs.scan.path))
        for outputs in all_outputs
    ]


def session_groups(all_outputs: Iterable[ScanOutputs]) -> list[list[ScanOutputs]]:
    """The scans of several sessions, in groups that are segmented together."""
    groups: dict[tuple[object, ...], list[ScanOutputs]] = {}
    for outputs in all_outputs:
        if outputs.others:
            groups.setdefault(_but_session(outputs), []).append(outputs)
    return list(groups.values())


def _but_session(outputs: ScanOutputs) -> tuple[object, ...]:
    return outputs.out, outputs.scan.suffix, tuple(pair for pair in outputs.scan.entities if pair[0] != "ses")


def fused_outputs(outputs: ScanOutputs, partners: Sequence[Path]) -> ScanOutputs:
    scan = replace(outputs.scan, suffix=outputs.scan.suffix + FUSED)
    return replace(outputs, scan=scan, partners=tuple(partners))
