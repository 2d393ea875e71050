"""The lesions of one participant, from files to files: the function of a workflow node, and what is up to date.

Lesions are placed in the label images of an earlier segmentation, so a new mask or another option costs no second
segmentation. No nipype here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidsseg.authorship import refuse_to_replace
from bidsseg.bids.completeness import all_there, listed, remove_outputs
from bidsseg.bids.outputs import NEEDED_SCHEMES, ParticipantOutputs, ScanOutputs, sidecar_of
from bidsseg.errors import UserError, failure_of, one_line_errors
from bidsseg.files import all_whole, read_json, sha256_of, write_json
from bidsseg.imaging.image import Image, load
from bidsseg.lesions.changes import CHANGE_COLUMNS, Session, change_counts, follow, write_changes
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.finding import load_fields
from bidsseg.lesions.masks import is_probability
from bidsseg.lesions.records import FOUND, GIVEN, LesionReport
from bidsseg.lesions.tables import LESION_TABLES, summary, write_lesions
from bidsseg.lesions.together import JointLesions, SessionLesions, joint_lesions
from bidsseg.network.card import folder_of
from bidsseg.network.lesion_card import LESION_MODEL, read_lesion_card
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.spaces import TEMPLATE
from bidsseg.workflow.failures import remove_log, write_log
from bidsseg.workflow.jobs import LesionJob
from bidsseg.workflow.labelled import anatomy_of
from bidsseg.workflow.lesion_filling import Masked, fill_session

IN_TEMPLATE = "Lesions on the template's grid."


def origin(outputs: ScanOutputs, mask: str, job: LesionJob) -> dict[str, Any]:
    """All that the lesions of a scan depend on. Raises ``OSError`` where something is missing."""
    return {
        "SoftwareVersion": job.version,
        "Scan": outputs.scan.path.name,
        "ScanBytes": outputs.scan.path.stat().st_size,
        "MaskSHA256": sha256_of(Path(mask)),
        "DecidedWithSHA256": [
            sha256_of(Path(job.masks[number])) for number in found_by_network(job) if Path(mask) == outputs.lesion_mask
        ],
        "LabelsSHA256": [
            sha256_of(scan.labels(scheme))
            for scan in (outputs, *job.filled_beside(outputs))
            for scheme in NEEDED_SCHEMES
        ],
        "Options": json.loads(json.dumps(job.options)),
        "Filled": job.fill,
        "InTemplate": outputs.transforms[0].exists(),
    }


def is_done(job: LesionJob) -> bool:
    """Whether everything about the participant's lesions is there and up to date."""
    if any(not _is_current(outputs, mask, job) for outputs, mask in zip(job.all_outputs, job.masks, strict=True)):
        return False
    if len(job.scans) < 2:
        return True
    changes = read_json(ParticipantOutputs(Path(job.out), job.subject).changes)
    return changes.get("Scans") == [outputs.scan.stem for outputs in job.all_outputs]


def _is_current(outputs: ScanOutputs, mask: str, job: LesionJob) -> bool:
    there = all_there(outputs.out, outputs.lesions.summary)
    try:
        return there and read_json(outputs.lesions.summary).get("Origin") == origin(outputs, mask, job)
    except OSError:
        return False


def not_described(job: LesionJob) -> list[ScanOutputs]:
    """The scans whose lesions are still to be described; all, where only what is told of all of them is missing."""
    pairs = zip(job.all_outputs, job.masks, strict=True)
    return [outputs for outputs, mask in pairs if not _is_current(outputs, mask, job)] or list(job.all_outputs)


def remove_lesions(outputs: ScanOutputs) -> bool:
    """Remove the results of a mask, or the log of its failure; return whether there was anything."""
    failed = remove_log(outputs.lesion_log)
    return remove_outputs(outputs.out, outputs.lesions.summary) or failed


def make_room(outputs: ScanOutputs, overwrite: bool, others: Sequence[ScanOutputs] = ()) -> None:
    """Remove earlier results before they are written again; ``others`` are the scans that are filled with this one.

    Raises ``UserError`` where bidsseg did not write some of them, unless ``overwrite``.
    """
    if not overwrite:
        expected = [
            *outputs.lesions.files,
            outputs.lesion_figure,
            *(scan.filled for scan in (outputs, *others)),
            outputs.lesions_in_template,
            *listed(outputs.out, outputs.lesions.summary),
        ]
        refuse_to_replace(expected, LESION_TABLES)
    remove_lesions(outputs)


def remove_changes(out: Path, subject: str) -> bool:
    """Remove the changes over sessions; return whether there was anything."""
    return remove_outputs(out, ParticipantOutputs(out, subject).changes)


def describe_participant(fields: dict[str, Any]) -> str:
    """Describe the lesions of every scan and their changes; a mask that fails gets a log, and the others continue."""
    job = LesionJob(**fields)
    sessions: list[Session] = []
    stems: list[str] = []
    first: tuple[Image, Anatomy] | None = None
    together = _together(job)
    for number, outputs in enumerate(job.all_outputs):
        try:
            with one_line_errors(job.masks[number]):
                make_room(outputs, job.overwrite, job.filled_beside(outputs))
            with one_line_errors(str(outputs.scan.path)):
                image = load(outputs.scan.path)
            with one_line_errors(job.masks[number]):
                report = describe(outputs, image, number, job, together.lesions.get(number))
                matrix = together.from_first.get(number)
                if matrix is None or first is None:
                    matrix = np.eye(4) if first is None else _from_first(first, image, job.threads)
        except UserError as error:
            write_log(outputs.lesion_log, failure_of(error))
            continue
        first = first or (image, report.anatomy)
        name = outputs.scan.session or outputs.scan.stem
        sessions.append(Session(name, report.lesions, report.components, matrix))
        stems.append(outputs.scan.stem)
    if not job.overwrite:
        table = ParticipantOutputs(Path(job.out), job.subject).changes_table
        refuse_to_replace([table, sidecar_of(table)], [tuple(CHANGE_COLUMNS)])
    describe_changes(Path(job.out), job.subject, sessions, stems)
    return job.subject


class _Together(NamedTuple):
    """Sessions decided together, by their numbers."""

    lesions: dict[int, JointLesions]
    from_first: dict[int, NDArray[np.float64]]


def _together(job: LesionJob) -> _Together:
    """The lesions of all sessions in which the network found the lesions, where the first is one of several."""
    numbers = found_by_network(job)
    if len(numbers) < 2 or numbers[0] != 0:
        return _Together({}, {})
    try:
        images = {number: load(job.all_outputs[number].scan.path) for number in numbers}
        anatomies = {number: anatomy_of(job.all_outputs[number], image) for number, image in images.items()}
        first = images[0], anatomies[0]
        matrices = {n: _from_first(first, image, job.threads) if n else np.eye(4) for n, image in images.items()}
        found = [_session(job.all_outputs[number], anatomies[number], matrices[number]) for number in numbers]
    except UserError:  # told where the session itself is read
        return _Together({}, {})
    return _Together(dict(zip(numbers, joint_lesions(found), strict=True)), matrices)


def _session(outputs: ScanOutputs, anatomy: Anatomy, from_first: NDArray[np.float64]) -> SessionLesions:
    return SessionLesions(
        load(outputs.lesion_mask, uniform_ok=True).data > 0,
        load(outputs.lesion_probabilities, uniform_ok=True).data,
        anatomy,
        float(read_json(sidecar_of(outputs.lesion_mask)).get("Threshold", 0.5)),
        from_first,
    )


def found_by_network(job: LesionJob) -> list[int]:
    """The numbers of the scans whose lesions the network found."""
    return [n for n, outputs in enumerate(job.all_outputs) if Path(job.masks[n]) == outputs.lesion_mask]


def _from_first(first: tuple[Image, Anatomy], image: Image, threads: int) -> Any:
    from bidsseg.imaging.registration import rigid_transform

    fixed, anatomy = first
    return rigid_transform(fixed, image, anatomy.brain_mask, threads)


def describe(
    outputs: ScanOutputs, image: Image, number: int, job: LesionJob, decided: JointLesions | None = None
) -> LesionReport:
    """Measure the lesions of one scan, those decided with other sessions where given; write all about them."""
    anatomy = anatomy_of(outputs, image)
    mask = load(job.masks[number], uniform_ok=True)
    if decided is not None:
        mask = replace(mask, data=decided.mask.astype(np.float32))
    report = lesion_features(image, mask, anatomy, job.made_with, is_probability(job.masks[number]))
    uris = [job.mask_uris[number], outputs.source_uri]
    sidecar = {"SpatialReference": "orig", "Sources": uris, "SoftwareVersion": job.version}
    written = outputs.lesions.files
    with all_whole(written) as new:
        write_lesions(report, image, new, sidecar)
    warnings = [*(f"lesion mask: {line}" for line in mask.warnings), *report.warnings]
    written += _write_figure(outputs, image, report, warnings)
    if outputs.transforms[0].exists():
        written += _write_in_template(outputs, report, sidecar)
    if job.fill:
        named = is_probability(job.masks[number])
        masked = Masked(outputs, image, anatomy, mask, job.made_with.threshold, named)
        filled, told = fill_session(masked, job.filled_beside(outputs), sidecar, job.threads)
        written += filled
        warnings += [line for line in told if line not in warnings]
    content = {
        **summary(report),
        "Warnings": warnings,
        "Mask": job.mask_uris[number],
        **_about_finding(outputs, job.masks[number], image, decided),
        "Scan": outputs.scan.stem,
        "Origin": origin(outputs, job.masks[number], job),
        "Outputs": [path.relative_to(outputs.out).as_posix() for path in written],
    }
    write_json(outputs.lesions.summary, content)
    return report


def _about_finding(outputs: ScanOutputs, mask: str, image: Image, decided: JointLesions | None) -> dict[str, Any]:
    """Where the lesions come from; of those that the network found also how sure their load is."""
    if Path(mask) != outputs.lesion_mask:
        return {"LesionsFrom": GIVEN}
    about = read_json(sidecar_of(outputs.lesion_mask))
    if decided is not None:
        about |= _load_of(decided, about, image)
    kept = ("LesionWeightsSHA256", "LesionLoadMl", "LesionLoadRangeMl", "LesionLoadExpectedErrorMl")
    found = {"LesionsFrom": FOUND, "LesionThreshold": about.get("Threshold")}
    return {**found, **{key: about[key] for key in kept if key in about}}


def _load_of(decided: JointLesions, about: dict[str, Any], image: Image) -> dict[str, Any]:
    """The load of a mask decided with other sessions, in place of that of the session's own mask.

    Its error is told where that of the own mask was, by the card of the same weights.
    """
    load_ml, error = decided.load_ml, None
    card = read_lesion_card(folder_of(LESION_MODEL))
    if "LesionLoadExpectedErrorMl" in about and card.sha256 == about.get("LesionWeightsSHA256"):
        error = card.decided_by(image.spacing_mm, None)[1]
    return load_fields(load_ml, decided.load_range_ml, None if error is None else error.of(load_ml))


def _write_in_template(outputs: ScanOutputs, report: LesionReport, sidecar: dict[str, Any]) -> list[Path]:
    """All lesions where the scan lies in the template's space: voxels of which at least half is lesion."""
    from bidsseg.workflow.template_space import lesions_in_template

    path = outputs.lesions_in_template
    lesions_in_template(path, outputs.transforms[0], report.components)
    about = {"Type": "Lesion", "Description": IN_TEMPLATE, **sidecar, "SpatialReference": TEMPLATE}
    write_json(sidecar_of(path), about)
    return [path, sidecar_of(path)]


def _write_figure(outputs: ScanOutputs, image: Image, report: LesionReport, warnings: list[str]) -> list[Path]:
    """The picture of zones; tables without it are worth having."""
    try:
        from bidsseg.report.lesion_mosaic import zone_mosaic

        zone_mosaic(outputs.lesion_figure, image, report)
    except Exception as error:
        warnings.append(f"no picture of the lesions ({type(error).__name__}: {error})")
        return []
    return [outputs.lesion_figure]


def describe_changes(out: Path, subject: str, sessions: Sequence[Session], stems: Sequence[str]) -> None:
    """Follow the lesions over sessions and write the participant's table; with one session, remove an old table."""
    remove_changes(out, subject)
    if len(sessions) < 2:
        return
    found = ParticipantOutputs(out, subject)
    changes = follow(sessions)
    written = write_changes(changes, found.changes_table)
    content = {
        "Scans": list(stems),
        "Sessions": [session.name for session in sessions],
        "Intervals": [
            {
                "Before": before.name,
                "After": after.name,
                **change_counts([c for c in changes if c.session_after == after.name]),
            }
            for before, after in pairwise(sessions)
        ],
        "FromFirstSession": {session.name: np.round(session.from_first, 6).tolist() for session in sessions},
        "Outputs": [path.relative_to(out).as_posix() for path in written],
    }
    write_json(found.changes, content)
