"""The sessions of one participant in one contrast, from files to files: the function of a workflow node. No nipype."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.errors import UserError, failure_of, one_line_errors
from bidsseg.segmentation.fusion import Matrix, register
from bidsseg.segmentation.longitudinal import Session, segment_with
from bidsseg.workflow.failures import write_log
from bidsseg.workflow.jobs import Job, SessionsJob
from bidsseg.workflow.scan_stages import (
    LESION_ANSWER,
    VOLUME,
    bias_stage,
    decide_with_others,
    kept_contrast,
    output_stage,
    segmentation_stage,
)


@dataclass(frozen=True)
class _Answered:
    """A scan that the network has answered for by itself, and where that lies."""

    job: Job
    folder: Path
    corrected: str
    segmentation: str


def segment_sessions(fields: dict[str, Any], folder: Path) -> str:
    """Ask the network about each session by itself, decide all of them together, and write what was decided.

    A session that fails gets a log, and the others go on without it.
    """
    group = SessionsJob(**fields)
    answered = []
    for number, job in enumerate(group.each):
        with _logged(job):
            place = folder / str(number)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            alone = asdict(job.alone(job.scan))
            corrected = bias_stage(alone, place)
            answered.append(_Answered(job, place, corrected, segmentation_stage(alone, corrected, place)))
    for one, segmentation in _decided_together(answered):
        with _logged(one.job):
            output_stage(asdict(one.job), one.corrected, segmentation)
    return group.name


@contextmanager
def _logged(job: Job) -> Iterator[None]:
    """Leave a log of what goes wrong with one scan, in place of that of an earlier run."""
    try:
        yield
    except UserError as error:
        write_log(job.outputs.log, failure_of(error))


def _decided_together(answered: Sequence[_Answered]) -> Iterator[tuple[_Answered, str]]:
    """Each scan, as segmented with those others that the network has answered for, and the path of its anatomy."""
    sessions = {number: _session(one) for number, one in enumerate(answered)} if len(answered) > 1 else {}
    matrices = _register_all(answered, sessions)
    if len(sessions) < 2:
        left = [answered[number] for number in sessions] or answered
        yield from ((replace(one, job=replace(one.job, others=())), one.segmentation) for one in left)
        return
    for number, session in sessions.items():
        one = answered[number]
        job = replace(one.job, others=[answered[other].job.scan for other in sessions if other != number])
        with _logged(job), one_line_errors(job.scan):
            others = [(other, matrices[number, n]) for n, other in sessions.items() if n != number]
            found = segment_with(session, others, job.threads)
            target = one.folder / "together"
            segmentation = decide_with_others(asdict(job), session.contrast, session.volume, found, one.folder, target)
            if job.finds_lesions:  # they are told from the labels decided together
                (one.folder / LESION_ANSWER).rename(target / LESION_ANSWER)
            yield replace(one, job=job), segmentation


def _session(one: _Answered) -> Session:
    return Session(kept_contrast(one.folder), np.load(one.folder / VOLUME))


def _register_all(answered: Sequence[_Answered], sessions: dict[int, Session]) -> dict[tuple[int, int], Matrix]:
    """The transform from RAS mm of each session to that of each other one, whatever order they come in.

    Of two that do not fit together, the one that shows less brain gets a log and leaves the sessions.
    """
    order = sorted(sessions, key=lambda number: answered[number].job.scan)
    matrices: dict[tuple[int, int], Matrix] = {}
    for a, b in combinations(order, 2):
        if not {a, b} <= sessions.keys():
            continue
        worse = min(a, b, key=lambda number: np.count_nonzero(sessions[number].contrast.brain))
        with _logged(answered[worse].job), one_line_errors(answered[worse].job.scan):
            matrices[a, b] = register(sessions[a].contrast, sessions[b].contrast, answered[a].job.threads)
            matrices[b, a] = np.asarray(np.linalg.inv(matrices[a, b]), np.float64)
        if (a, b) not in matrices:
            del sessions[worse]
    return matrices
