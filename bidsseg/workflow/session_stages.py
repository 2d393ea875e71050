"""The sessions of one participant in one contrast, from files to files: the function of a workflow node. No nipype."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.errors import UserError, failure_of, one_line_errors
from bidsseg.files import read_json, write_json
from bidsseg.imaging.image import load
from bidsseg.segmentation.fusion import Matrix, register
from bidsseg.segmentation.longitudinal import Session, segment_with
from bidsseg.workflow.failures import write_log
from bidsseg.workflow.jobs import Job, SessionsJob
from bidsseg.workflow.scan_stages import (
    LESION_ANSWER,
    VOLUME,
    bias_stage,
    decide_with_others,
    judge,
    kept_contrast,
    output_stage,
    segmentation_stage,
)

ANSWERED = "answered.json"
"In the folder of a session, written last: what its answer was made from, and where it lies."


@dataclass(frozen=True)
class _Answered:
    """A scan that the network has answered for by itself, and where that lies."""

    job: Job
    folder: Path
    corrected: str
    segmentation: str

    @property
    def alone(self) -> _Answered:
        """As decided by itself."""
        return replace(self, job=replace(self.job, others=()))

    def has_say(self) -> bool:
        """Whether others are to be decided with it: noise, or a head of the wrong size, would only spoil them."""
        return judge(self.folder, load(self.job.scan), self.job.model)[1].verdict != "fail"


def segment_sessions(fields: dict[str, Any], folder: Path) -> str:
    """Ask the network about each session by itself, decide those together that have a say, and write what was decided.

    A session that fails gets a log, and the others go on without it. What stands from an earlier run is only done again
    where a session that is to do gets a say in it. The answers of a run that was killed are taken from ``folder``.
    """
    group = SessionsJob(**fields)
    heard, unheard = _answers([job for job in group.each if not job.stands], folder)
    if heard:
        more = _answers([job for job in group.each if job.stands], folder)
        heard = sorted(heard + more[0], key=lambda one: one.job.scan)
        unheard += more[1]
    for one, segmentation in chain(_decided_together(heard), ((one.alone, one.segmentation) for one in unheard)):
        with _logged(one.job):
            output_stage(asdict(one.job), one.corrected, segmentation)
    return group.name


def _answers(jobs: Sequence[Job], folder: Path) -> tuple[list[_Answered], list[_Answered]]:
    """What the network says of each scan by itself: of those that have a say, and of those that have none."""
    heard: list[_Answered] = []
    unheard: list[_Answered] = []
    for job in jobs:
        with _logged(job), one_line_errors(job.scan):
            one = _answer(job, folder / job.outputs.scan.stem)
            (heard if one.has_say() else unheard).append(one)
    return heard, unheard


def _answer(job: Job, place: Path) -> _Answered:
    """The network's answer, which may be there from a run that was killed."""
    alone = asdict(job.alone(job.scan))
    made_from = json.loads(json.dumps({"job": alone, "stamp": job.stamp}))
    known = read_json(place / ANSWERED)
    if known.get("made_from") != made_from:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        corrected = bias_stage(alone, place)
        known = {"corrected": corrected, "segmentation": segmentation_stage(alone, corrected, place)}
        write_json(place / ANSWERED, {"made_from": made_from, **known})
    return _Answered(job, place, known["corrected"], known["segmentation"])


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
        yield from ((one.alone, one.segmentation) for one in left)
        return
    for number, session in sessions.items():
        one = answered[number]
        heard = {answered[other].job.scan for other in sessions}
        job = replace(one.job, others=[scan for scan in one.job.others if scan in heard])
        with _logged(job), one_line_errors(job.scan):
            others = [(other, matrices[number, n]) for n, other in sessions.items() if n != number]
            found = segment_with(session, others, job.threads)
            target = one.folder / "together"
            segmentation = decide_with_others(asdict(job), session.contrast, session.volume, found, one.folder, target)
            if job.finds_lesions:  # they are told from the labels decided together
                shutil.copyfile(one.folder / LESION_ANSWER, target / LESION_ANSWER)
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
            both = register(sessions[a].contrast, sessions[b].contrast, answered[a].job.threads)
            matrices[a, b], matrices[b, a] = both
        if (a, b) not in matrices:
            del sessions[worse]
    return matrices
