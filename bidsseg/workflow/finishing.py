"""The steps after all scans: comparing the contrasts of each session, and writing the participants' reports."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from bidsseg import __version__
from bidsseg.authorship import refuse_to_replace
from bidsseg.bids.contrasts import other_contrasts, session_key
from bidsseg.bids.outputs import ParticipantOutputs, ScanOutputs, sidecar_of
from bidsseg.errors import named
from bidsseg.files import read_json, write_json
from bidsseg.labels import SCHEMES
from bidsseg.quality.verdicts import WITH
from bidsseg.report.volumes_over_time import COLUMNS, series_of, write_volumes_over_time
from bidsseg.workflow.workers import end_processes, end_with_parent


def compare_sessions(all_outputs: Sequence[ScanOutputs], threads: int, workers: int) -> list[str]:
    """How much the contrasts of each session agree, several sessions at once; returns a line for each failure."""
    groups = sessions_to_compare(all_outputs)
    job = partial(_compare_session, threads=threads)
    return in_processes(job, groups, workers, "some sessions were not compared, because a process was killed")


def _compare_session(group: Sequence[ScanOutputs], threads: int) -> str | None:
    try:
        compare_session(group, threads)
    except Exception as error:
        return f"{group[0].scan.stem}: not compared with other contrasts ({named(error)})"
    return None


def report_is_stale(out: Path, subject: str) -> bool:
    """Whether results of the participant, or their failures, are newer than the report and what is written with it."""
    found = ParticipantOutputs(out, subject)
    written = found.report.stat().st_mtime if found.report.exists() else 0.0
    is_older = any(result.stat().st_mtime > written for result in found.reported())
    return is_older or found.volumes_over_time.exists() != bool(series_of(out, subject))


def write_reports(out: Path, subjects: Sequence[str], workers: int, overwrite: bool = False) -> list[str]:
    """Reports and tables over time of some participants, several at once; returns a line for each that failed."""
    killed = "some reports are missing, because a process was killed; give --reports-only to write them"
    return in_processes(partial(_write_report, out, overwrite), subjects, workers, killed)


def in_processes(job: Callable[[Any], str | None], items: Sequence[Any], workers: int, killed: str) -> list[str]:
    """Do a job for every item, several at once; returns the lines that tell what went wrong."""
    if min(workers, len(items)) < 2:
        return list(filter(None, map(job, items)))
    spawned = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=spawned, initializer=end_with_parent)
    try:
        return list(filter(None, pool.map(job, items)))
    except BrokenProcessPool:
        return [killed]
    finally:
        end_processes(pool)


def _write_report(out: Path, overwrite: bool, subject: str) -> str | None:
    try:
        from bidsseg.report.participant import participant_report

        found = ParticipantOutputs(out, subject)
        if not overwrite:
            tables = (found.volumes_over_time, sidecar_of(found.volumes_over_time))
            refuse_to_replace([*tables, found.report], [tuple(COLUMNS)])
        write_volumes_over_time(out, subject)
        participant_report(out, subject)
    except Exception as error:
        return f"sub-{subject}: no report ({named(error)})"
    return None


def sessions_to_compare(all_outputs: Iterable[ScanOutputs]) -> list[list[ScanOutputs]]:
    """Sessions with several contrasts, all segmented, of which a part of the agreement is not known."""
    groups: dict[tuple[Path, str, str | None], list[ScanOutputs]] = {}
    for outputs in other_contrasts(all_outputs):
        groups.setdefault(session_key(outputs), []).append(outputs)
    return [group for group in groups.values() if _is_incomplete(group)]


def _is_incomplete(group: Sequence[ScanOutputs]) -> bool:
    """A scan done again has lost what was known of it."""
    if not all(read_json(outputs.quality) for outputs in group):
        return False
    others, known = other_contrasts(group), {outputs: read_json(outputs.agreement).get(WITH, {}) for outputs in group}
    return any({other.scan.stem for other in others[outputs]} != set(known[outputs]) for outputs in group)


def compare_session(group: Sequence[ScanOutputs], threads: int) -> None:
    """Register a session's scans as ``--fuse`` does and write how far their regions, or lobes, agree, a file each."""
    from bidsseg.imaging.image import load
    from bidsseg.quality.agreement import agreement_file, register_answers

    labels = [_label_image(outputs) for outputs in group]
    if not all(labels):
        return
    scans = [(load(outputs.preprocessed), load(path)) for outputs, path in zip(group, labels, strict=True) if path]
    pairs = [(a, b) for a, b in combinations(range(len(group)), 2) if group[a].scan.suffix != group[b].scan.suffix]
    found = register_answers(scans, pairs, threads)
    for a, outputs in enumerate(group):
        by_other = {
            other.scan.stem: found[a, b] for b, other in enumerate(group) if other.scan.suffix != outputs.scan.suffix
        }
        write_json(outputs.agreement, agreement_file(by_other, {"SoftwareVersion": __version__}))


def _label_image(outputs: ScanOutputs) -> Path | None:
    """The coarsest division of the cortex there is; gyri differ too much to tell a bad answer."""
    return next((path for path in map(outputs.labels, SCHEMES) if path.exists()), None)
