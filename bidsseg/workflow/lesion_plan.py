"""The lesions of many participants: which masks there are, what has to be done, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, count, groupby
from pathlib import Path

from bidsseg.bids.completeness import is_complete
from bidsseg.bids.lesion_masks import MaskSearch, choose, find_masks
from bidsseg.bids.names import parse_scan
from bidsseg.bids.outputs import (
    TOGETHER,
    OutputSettings,
    ParticipantOutputs,
    ScanOutputs,
    finished_scans,
    label_table_file,
)
from bidsseg.bids.root_files import links_in
from bidsseg.bids.session_order import in_time
from bidsseg.errors import Failure, UserError
from bidsseg.files import json_content, table, write_text
from bidsseg.labels import label_table
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.tables import LESION_CODES
from bidsseg.workflow.failures import failure_in
from bidsseg.workflow.jobs import LesionJob
from bidsseg.workflow.lesion_stages import is_done, remove_changes, remove_lesions
from bidsseg.workflow.options import LesionSource


@dataclass(frozen=True)
class LesionPlanInputs:
    """What the user asked for."""

    search: MaskSearch
    "Folders are absolute."
    options: LesionOptions
    recipe: OutputSettings
    "Settings of the segmentations that lesions are located in."
    dataset: Path
    out: Path
    threads: int
    prefer: LesionSource = "given"
    "Which lesions count where there are both."
    fill: bool = False
    "Also write the scans with their lesions filled."
    to_do: frozenset[Path] = frozenset()
    "Quality files of the scans that a dry run foresees to be segmented, and so searched for lesions."


@dataclass(frozen=True)
class ScanMask:
    """A scan and the mask of its lesions."""

    outputs: ScanOutputs
    path: Path
    uri: str
    "BIDS URI of the mask."
    beside: tuple[ScanOutputs, ...] = ()
    "The other scans of the session."


@dataclass(frozen=True)
class LesionStatus:
    """What has become of the lesions of one session: a row of the table that a run ends with."""

    name: str
    result: str
    "done, complete, to do, no mask, lesions failed."
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """What there is to do."""

    jobs: tuple[LesionJob, ...]
    complete: tuple[LesionJob, ...]
    rows: tuple[LesionStatus, ...]
    "Sessions without a mask, and those where it is not clear which."


def link_names(derivatives: Sequence[Path], known: Mapping[str, str]) -> dict[Path, str]:
    """Names that stand for the folders in BIDS URIs: masks, masks2, ...; a folder that has one already (``known`` holds
    URIs by name) keeps it, since sidecars of earlier runs use it."""
    by_uri = {uri: name for name, uri in known.items() if name.startswith("masks")}
    names = chain(["masks"], (f"masks{number}" for number in count(2)))
    free = (name for name in names if name not in known)
    return {path: by_uri.get(path.as_uri()) or next(free) for path in derivatives}


def finished(request: LesionPlanInputs, subject: str) -> list[ScanOutputs]:
    """The participant's scans that have been segmented with this recipe, also in earlier runs, by session."""
    all_outputs = []
    for found in finished_scans(request.out, subject):
        try:
            marker = json_content(found.quality)
            uris = [marker["Sources"][0], *marker.get(TOGETHER, ())]
            source, *others = (request.dataset / uri.removeprefix("bids:raw:") for uri in uris)
            if any(not path.is_relative_to(request.dataset) or ".." in path.parts for path in (source, *others)):
                continue
            outputs = ScanOutputs(parse_scan(source), request.dataset, request.out, others=tuple(others))
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
            continue
        if outputs.quality == found.quality and is_complete(outputs, request.recipe):
            all_outputs.append(outputs)
    return by_session(all_outputs)


def by_session(all_outputs: Sequence[ScanOutputs]) -> list[ScanOutputs]:
    """A participant's scans, those of the earliest session first."""
    if not all_outputs:
        return []
    order = in_time(
        all_outputs[0].dataset, all_outputs[0].scan.subject, (outputs.scan.session or "" for outputs in all_outputs)
    )
    return sorted(all_outputs, key=lambda outputs: (order.index(outputs.scan.session or ""), outputs.scan.stem))


def plan(found: Mapping[str, Sequence[ScanOutputs]], request: LesionPlanInputs, overwrite: bool, dry_run: bool) -> Plan:
    """Pair scans with masks and find out what is up to date; ``found`` holds the scans of each subject, by session.

    Deletes results whose mask no longer exists, unless it is a dry run.
    """
    jobs: list[LesionJob] = []
    complete: list[LesionJob] = []
    rows: list[LesionStatus] = []
    for subject, scans in found.items():
        masks: list[ScanMask] = []
        removed = False
        for session, group in groupby(scans, key=lambda outputs: outputs.scan.session):
            all_outputs = list(group)
            try:
                mask = mask_of(all_outputs, request)
            except UserError as error:
                rows.append(LesionStatus(_name(subject, session), "lesions failed", str(error)))
                continue
            if mask is None and request.search.derivatives:
                rows.append(LesionStatus(_name(subject, session), "no mask"))
            if mask:
                masks.append(replace(mask, beside=tuple(scan for scan in all_outputs if scan != mask.outputs)))
            if not dry_run:
                removed |= _remove_others(all_outputs, mask)
        if len(masks) < 2 and not dry_run:
            removed |= remove_changes(request.out, subject)
        if removed:
            ParticipantOutputs(request.out, subject).report.unlink(
                missing_ok=True
            )  # it shows them; the run writes it anew
        if masks:
            job = _job(masks, request, overwrite)
            (complete if not overwrite and is_done(job) else jobs).append(job)
    return Plan(tuple(jobs), tuple(complete), tuple(rows))


def _name(subject: str, session: str | None) -> str:
    return f"sub-{subject}" + (f"_ses-{session}" if session else "") + " lesions"


def mask_of(all_outputs: Sequence[ScanOutputs], request: LesionPlanInputs) -> ScanMask | None:
    """The mask of a session, and which of its scans it belongs to; None where there is none.

    Raises ``UserError`` where several masks fit equally well.
    """
    sources = {"given": (_given, _found), "found": (_found, _given), "none": (_given,)}[request.prefer]
    return next(filter(None, (source(all_outputs, request) for source in sources)), None)


def _given(all_outputs: Sequence[ScanOutputs], request: LesionPlanInputs) -> ScanMask | None:
    """A mask in derivatives of another program."""
    scan = all_outputs[0].scan
    found = choose([outputs.scan for outputs in all_outputs], find_masks(request.search, scan.subject, scan.session))
    if found is None:
        return None
    links = link_names(request.search.derivatives, links_in(request.out))
    return ScanMask(
        next(outputs for outputs in all_outputs if outputs.scan == found[0]), found[1], _uri(found[1], links)
    )


def _found(all_outputs: Sequence[ScanOutputs], request: LesionPlanInputs) -> ScanMask | None:
    """The mask of the session's first scan in which the network looked for lesions, or will."""
    for outputs in all_outputs:
        there = outputs.lesion_mask.exists() or outputs.quality in request.to_do
        if there and request.recipe.finds_lesions_in(outputs.scan):
            return ScanMask(
                outputs, outputs.lesion_mask, f"bids::{outputs.lesion_mask.relative_to(outputs.out).as_posix()}"
            )
    return None


def _remove_others(all_outputs: Sequence[ScanOutputs], mask: ScanMask | None) -> bool:
    kept = mask.outputs.lesions if mask else None
    removed = [remove_lesions(outputs) for outputs in all_outputs if outputs.lesions != kept]
    return any(removed)


def _job(masks: Sequence[ScanMask], request: LesionPlanInputs, overwrite: bool) -> LesionJob:
    return LesionJob(
        dataset=str(request.dataset),
        out=str(request.out),
        version=request.recipe.version,
        scans=tuple(str(mask.outputs.scan.path) for mask in masks),
        masks=tuple(str(mask.path) for mask in masks),
        mask_uris=tuple(mask.uri for mask in masks),
        options=asdict(request.options),
        fill=request.fill,
        beside=tuple(tuple(str(scan.scan.path) for scan in mask.beside) for mask in masks),
        threads=request.threads,
        overwrite=overwrite,
    )


def _uri(mask: Path, links: Mapping[Path, str]) -> str:
    folder = next(folder for folder in links if mask.is_relative_to(folder))
    return f"bids:{links[folder]}:{mask.relative_to(folder).as_posix()}"


def status_rows(job: LesionJob, result: str) -> list[LesionStatus]:
    """One line for each scan of a participant that is not run."""
    names = zip(job.all_outputs, job.masks, strict=True)
    return [LesionStatus(f"{outputs.scan.stem} lesions", result, f"mask {Path(mask).name}") for outputs, mask in names]


def outcomes(job: LesionJob, failure: Failure | None) -> list[LesionStatus]:
    """How each scan of a participant went; ``failure`` is what ended all of it, if something did."""
    rows = []
    for outputs, mask in zip(job.all_outputs, job.masks, strict=True):
        name = f"{outputs.scan.stem} lesions"
        if outputs.lesion_log.exists():
            rows.append(LesionStatus(name, "lesions failed", failure_in(outputs.lesion_log).error))
        elif failure is not None or not outputs.lesions.summary.exists():
            rows.append(LesionStatus(name, "lesions failed", f"{mask}: {failure.error if failure else 'not finished'}"))
        else:
            found = json_content(outputs.lesions.summary)
            rows.append(LesionStatus(name, "done", "; ".join([found["Findings"], *found["Warnings"]])))
    return rows


def write_lesion_root(out: Path) -> None:
    """Names of the labels of the region map with lesions."""
    rows = [(label.index, label.name, label.abbreviation, label.color) for label in label_table("regions")]
    names = zip(LESION_CODES, ("Left", "Right"), strict=True)
    rows += [(code, f"{side}-Lesion", f"{side[0]}.Lesion", "#ff2828") for code, side in names]
    text = table(("index", "name", "abbreviation", "color"), sorted(rows))
    write_text(label_table_file(out, "regions", "lesions"), text)
