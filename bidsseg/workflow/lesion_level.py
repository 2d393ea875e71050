"""The lesions of a run: which masks there are, what is to do about them, and what came of it, as rows for the user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bidsseg.bids.lesion_masks import MaskSearch, find_masks
from bidsseg.bids.outputs import OutputSettings, ScanOutputs
from bidsseg.bids.root_files import links_in
from bidsseg.lesions.options import LesionOptions
from bidsseg.workflow.console import Row, progress
from bidsseg.workflow.options import RunOptions
from bidsseg.workflow.workers import WorkerPool

if TYPE_CHECKING:  # scipy, which a run starts without
    from bidsseg.workflow.lesion_plan import LesionPlanInputs, LesionStatus


def describe_lesions(
    subjects: Sequence[str], recipe: OutputSettings, options: RunOptions, pool: WorkerPool
) -> list[Row]:
    """Describe the lesions of all segmented scans of the participants that have a mask."""
    if not options.describes_lesions:
        return []
    from bidsseg.workflow.lesion_plan import finished, outcomes, plan, status_rows, write_lesion_root

    request = _request(recipe, options)
    planned = plan({name: finished(request, name) for name in subjects}, request, options.overwrite, dry_run=False)
    found = [*planned.rows, *(line for job in planned.complete for line in status_rows(job, "complete"))]
    if planned.jobs:
        write_lesion_root(options.out_dir.resolve())
        from bidsseg.workflow.nipype_workflow import run_lesion_jobs

        with progress(len(planned.jobs)) as on_scan:
            for job, failure in run_lesion_jobs(planned.jobs, pool, on_scan):
                found += outcomes(job, failure)
    return _rows(found)


def lesions_foreseen(
    all_outputs: Sequence[ScanOutputs], to_do: Iterable[ScanOutputs], recipe: OutputSettings, options: RunOptions
) -> list[Row]:
    """What a run would do about lesions; those of a participant of whom a scan is to do are to do, too."""
    if not options.describes_lesions:
        return []
    from bidsseg.workflow.lesion_plan import by_session, plan, status_rows

    of_subject: dict[str, list[ScanOutputs]] = {}
    for outputs in all_outputs:
        of_subject.setdefault(outputs.scan.subject, []).append(outputs)
    found = {name: by_session(scans) for name, scans in sorted(of_subject.items())}
    to_do = list(to_do)
    request = replace(_request(recipe, options), to_do=frozenset(outputs.quality for outputs in to_do))
    planned = plan(found, request, options.overwrite, dry_run=True)
    changing = {str(outputs.scan.path) for outputs in to_do}
    complete = [job for job in planned.complete if changing.isdisjoint(job.scans)]
    jobs = [job for job in (*planned.jobs, *planned.complete) if job not in complete]
    rows = [*planned.rows, *(line for job in complete for line in status_rows(job, "complete"))]
    return _rows([*rows, *(line for job in jobs for line in status_rows(job, "to do"))])


def _rows(found: Iterable[LesionStatus]) -> list[Row]:
    return [Row(line.name, line.result, line.why, about="lesions") for line in found]


def dataset_links(options: RunOptions) -> dict[str, str]:
    """URIs of the datasets with masks, by the names they have in BIDS URIs."""
    if not options.derivatives:
        return {}
    from bidsseg.workflow.lesion_plan import link_names

    names = link_names([path.resolve() for path in options.derivatives], links_in(options.out_dir.resolve()))
    return {name: path.as_uri() for path, name in names.items()}


def masks_missing(all_outputs: Sequence[ScanOutputs], options: RunOptions) -> list[str]:
    """A warning where ``--derivatives`` hold a mask of none of the sessions, as where another folder was meant."""
    search = _mask_search(options)
    sessions = {(outputs.scan.subject, outputs.scan.session) for outputs in all_outputs}
    if not search.derivatives or any(find_masks(search, *session) for session in sessions):
        return []
    folders = ", ".join(map(str, options.derivatives))
    return [f"{folders}: no lesion mask of these participants; check the folder and the names, see --lesion-pattern"]


def _mask_search(options: RunOptions) -> MaskSearch:
    folders = tuple(path.resolve() for path in options.derivatives)
    return MaskSearch(folders, options.lesion_pattern, options.out_dir.resolve())


def _request(recipe: OutputSettings, options: RunOptions) -> LesionPlanInputs:
    from bidsseg.workflow.lesion_plan import LesionPlanInputs

    chosen = LesionOptions(
        threshold=LesionOptions.threshold if options.lesion_threshold is None else options.lesion_threshold,
        min_volume_mm3=options.lesion_min_volume,
        tolerance_mm=options.lesion_tolerance,
        bands_mm=tuple(sorted(options.lesion_bands)),
    )
    folders = (options.bids_dir.resolve(), options.out_dir.resolve())
    return LesionPlanInputs(
        _mask_search(options), chosen, recipe, *folders, options.omp_nthreads, options.lesions, options.fill
    )
