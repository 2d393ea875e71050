"""The participant level: find the scans, skip the complete ones, run the others, and show what came of each."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from bidsseg import __version__
from bidsseg.bids.contrasts import all_fused_outputs, session_groups, with_other_sessions
from bidsseg.bids.dataset import Found, NothingSelected, ScanSelection, find_scans, read_filters
from bidsseg.bids.outputs import (
    FUSED,
    NEEDED_SCHEMES,
    NEEDED_SPACE,
    OutputSettings,
    ScanOutputs,
    logs_of,
    methods_file,
)
from bidsseg.bids.participant_groups import Groups, groups_by
from bidsseg.bids.root_files import copy_session_times, refuse_other_dataset, write_root
from bidsseg.errors import UserError
from bidsseg.files import json_content, read_json, write_text
from bidsseg.labels import SCHEMES
from bidsseg.network.card import DEFAULT_MODEL, check_weights, folder_of, read_card
from bidsseg.network.device import count_gpus
from bidsseg.network.lesion_card import LESION_MODEL, read_lesion_card
from bidsseg.quality.verdicts import judged, reasons_of, verdict_of
from bidsseg.report.methods import Steps, methods_text
from bidsseg.workflow.claims import Claims
from bidsseg.workflow.console import Row, RunStatus, finish, progress
from bidsseg.workflow.environment import defects_logged, environment
from bidsseg.workflow.finishing import compare_sessions, report_is_stale, write_reports
from bidsseg.workflow.jobs import SessionsJob, job_for
from bidsseg.workflow.lesion_level import dataset_links, describe_lesions, lesions_foreseen, masks_missing
from bidsseg.workflow.options import RunOptions
from bidsseg.workflow.sorting import Sorted, sort_out
from bidsseg.workflow.workers import LOW_MEMORY_GB, MEMORY_GB, Resources, WorkerPool


def run_group(options: RunOptions) -> None:
    """Gather all participants' results; raises ``NothingSelected`` where there are none."""
    out = options.out_dir
    if not out.is_dir():
        raise NothingSelected(f"{out}: no such folder; run the participant level first")
    from bidsseg.report.group_tables import run

    with defects_logged(out):
        groups = groups_by(options.bids_dir, options.group_by) if options.group_by else Groups()
        run(out.resolve(), groups, options.overwrite)


def run_participants(options: RunOptions) -> RunStatus:
    """Segment the scans the options select, and describe their lesions; returns how it went.

    Raises ``UserError`` for what the user must change first, ``OSError`` where the output cannot be written.
    """
    with defects_logged(options.out_dir):
        return _run_participants(options)


def _run_participants(options: RunOptions) -> RunStatus:
    _check_folders(options)
    how = _execution(options)
    if options.dry_run:
        return _find_and_run(options, WorkerPool(how), None)
    with Claims(options.out_dir.resolve(), how.work_dir, how.run) as claims:
        if options.work_dir:
            how = replace(how, kept=folder_of_pair(options.bids_dir.resolve(), options.out_dir.resolve()))
        with environment(how, options.omp_nthreads), closing(WorkerPool(how)) as pool:
            if not (options.reports_only or how.plugin):
                pool.start()  # takes as long as finding the scans
            return _find_and_run(options, pool, claims)


def _find_and_run(options: RunOptions, pool: WorkerPool, claims: Claims | None) -> RunStatus:
    """Find the scans, and run those that are not complete; without ``claims``, only say which these are."""
    dataset, out = options.bids_dir.resolve(), options.out_dir.resolve()
    filters = read_filters(options.bids_filter_file) if options.bids_filter_file else {}
    selection = ScanSelection(
        options.participant_label,
        options.session_label,
        options.modality,
        filters,
        not options.skip_bids_validation,
        options.bids_database_dir.resolve() if options.bids_database_dir else None,
        out,
    )
    found = find_scans(dataset, selection)
    if not options.overwrite:
        refuse_other_dataset(out)
    single = [ScanOutputs(scan, dataset, out) for scan in found.scans]
    single = with_other_sessions(single) if options.longitudinal else single
    all_outputs = [*single, *(all_fused_outputs(single) if options.fuse else ())]
    subjects = sorted({outputs.scan.subject for outputs in all_outputs})
    if options.reports_only:
        lines = write_reports(out, subjects, options.workers, options.overwrite)
        return finish([Row("reports", "failed", line, about="reports") for line in lines], [])
    recipe = recipe_of(options)
    rows = _rows_without_run(found, selection)
    problems = [f"{path}: left out: {why}" for path, why in found.left_out]
    problems += masks_missing(single, options)
    if claims is None:
        foreseen = sort_out(all_outputs, recipe, options.overwrite).foreseen()
        rows += [*_skipped(foreseen.complete), *(Row(outputs.scan.stem, "to do") for outputs in foreseen.to_do)]
        return finish(rows + lesions_foreseen(single, foreseen.to_do, recipe, options), problems)
    fused = [f"{name}{FUSED}" for name in options.modality] if options.fuse else []
    write_root(out, dataset, recipe, [*options.modality, *fused], dataset_links(options))
    _write_citation(out, recipe, options)
    for mine in claims.in_turns(subjects, lambda line: _wait(line, pool)):
        copy_session_times(dataset, out, mine)
        done, failed = _run_all_of(
            [outputs for outputs in all_outputs if outputs.scan.subject in mine], recipe, options, pool
        )
        rows, problems = rows + done, problems + failed
    return finish(rows, problems)


def _wait(line: str, pool: WorkerPool) -> None:
    pool.close()  # for hours, perhaps
    print(line, file=sys.stderr, flush=True)


def _run_all_of(
    all_outputs: Sequence[ScanOutputs], recipe: OutputSettings, options: RunOptions, pool: WorkerPool
) -> tuple[list[Row], list[str]]:
    """Everything about some participants: scans, comparisons, lesions, reports; returns rows and warnings."""
    out = options.out_dir.resolve()
    there = sort_out(all_outputs, recipe, options.overwrite)
    rows = _skipped(there.complete) + (_run(there, recipe, options, pool) if there.to_do else [])
    single = [outputs for outputs in all_outputs if not outputs.partners]
    problems = compare_sessions(single, options.omp_nthreads, options.workers)
    rows = _with_verdicts(rows, all_outputs)
    subjects = sorted({outputs.scan.subject for outputs in all_outputs})
    rows += describe_lesions(subjects, recipe, options, pool)
    stale = [subject for subject in subjects if report_is_stale(out, subject)]
    lines = write_reports(out, stale, options.workers, options.overwrite)
    rows += [Row("reports", "failed", line, about="reports") for line in lines]
    return rows, problems


def recipe_of(options: RunOptions) -> OutputSettings:
    """The recipe the options ask for; raises ``UserError`` for a model that is not there."""
    folder = folder_of(options.model or DEFAULT_MODEL)
    card = read_card(folder)
    check_weights(folder, card)
    schemes, spaces = options.seg, options.output_spaces
    if options.describes_lesions:  # they are placed in these
        schemes = tuple(scheme for scheme in SCHEMES if scheme in (*schemes, *NEEDED_SCHEMES))
        spaces = tuple(dict.fromkeys((NEEDED_SPACE, *spaces)))
    how = (options.bias_correction, schemes, spaces, options.probseg, options.mirror)
    settings = OutputSettings(__version__, card.name, card.sha256, *how)
    if not options.finds_lesions:
        return settings
    lesion_card = read_lesion_card(folder_of(LESION_MODEL))
    settings = replace(settings, lesion_weights_sha256=lesion_card.sha256)
    asked = options.lesion_threshold
    if asked is not None:
        return replace(settings, lesion_thresholds=(asked, asked))
    thresholds, errors = lesion_card.thresholds, lesion_card.load_errors or ()
    return replace(
        settings,
        lesion_thresholds=(thresholds.thick, thresholds.thin),
        lesion_load_errors=tuple((error.floor_ml, error.share) for error in errors),
    )


def _check_folders(options: RunOptions) -> None:
    """Keep the input read-only."""
    dataset, out = options.bids_dir.resolve(), options.out_dir.resolve()
    if out == dataset:
        raise UserError(
            f"{options.out_dir}: is the input dataset; give another OUT_DIR, such as its derivatives/bidsseg"
        )
    for name, folder in (("--work-dir", options.work_dir), ("--bids-database-dir", options.bids_database_dir)):
        inside = folder is not None and folder.resolve().is_relative_to(dataset)
        if folder is not None and inside and not folder.resolve().is_relative_to(out):
            raise UserError(f"{name} {folder}: is in the input dataset, which must not change; give another folder")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(20, "is a file, not a folder", str(options.out_dir))


def _rows_without_run(found: Found, selection: ScanSelection) -> list[Row]:
    unusable = [Row(path.name, "failed", f"{path}: {why}") for path, why in found.unusable]
    why = f"none selected{selection.advice_on_index}"
    return unusable + [Row(f"sub-{label}", "no scans", why) for label in found.empty_participants]


def _skipped(complete: Sequence[ScanOutputs]) -> list[Row]:
    return [Row(outputs.scan.stem, "complete", "skipped") for outputs in complete]


def _run(there: Sorted, recipe: OutputSettings, options: RunOptions, pool: WorkerPool) -> list[Row]:
    """Run the workflows of what is to do."""
    from bidsseg.workflow.nipype_workflow import run_jobs, run_session_jobs

    threading.Thread(target=_import_what_follows, daemon=True).start()
    model = str(folder_of(options.model or DEFAULT_MODEL).resolve())
    how = {"device": options.device, "threads": options.omp_nthreads}
    how |= {"low_memory": options.low_mem, "overwrite": options.overwrite}
    groups = [
        SessionsJob(tuple(asdict(job_for(scan, recipe, model, stands=scan in there.standing, **how)) for scan in group))
        for group in session_groups([*there.standing, *there.to_do])
    ]
    jobs = [job_for(outputs, recipe, model, **how) for outputs in there.to_do if not outputs.others]
    with progress(len(jobs) + len(groups)) as on_scan:
        outcomes = list(run_jobs(jobs, pool, on_scan)) if jobs else []
        outcomes += run_session_jobs(groups, pool, on_scan) if groups else []
    rows = []
    for outcome in outcomes:
        outputs = outcome.job.outputs
        if outcome.kept:
            rows += _skipped([outputs])
            continue
        result = "done" if outcome.error is None else "not tried" if outcome.stopped else "failed"
        rows.append(Row(outputs.scan.stem, result, outcome.error or ""))
    return rows


def _import_what_follows() -> None:
    """Lesions and reports come last; what they need is imported while the workers are busy."""
    for name in ("bidsseg.workflow.lesion_plan", "bidsseg.report.participant"):
        import_module(name)


def _execution(options: RunOptions) -> Resources:
    return Resources(
        work_dir=(options.work_dir or options.out_dir / "work").resolve(),
        logs=logs_of(options.out_dir.resolve()),
        nprocs=options.nprocs,
        threads=options.omp_nthreads,
        memory_gb=options.mem_gb,
        gpus=count_gpus(options.device),
        plugin=_read_plugin(options.use_plugin) if options.use_plugin else {},
        stop_on_first_crash=options.stop_on_first_crash,
        verbose=options.verbose,
        scan_gb=LOW_MEMORY_GB if options.low_mem else MEMORY_GB,
        write_graph=options.write_graph,
        resource_monitor=options.resource_monitor,
    )


def folder_of_pair(dataset: Path, out: Path) -> str:
    """Names the folder for intermediate files of runs from a dataset into an OUT.

    Devices and inodes count, too, since containers call all datasets /data.
    """
    locations = [(str(path), path.stat().st_dev, path.stat().st_ino) for path in (dataset, out) if path.exists()]
    return f"bidsseg-{hashlib.sha256(repr(locations).encode()).hexdigest()[:16]}"


def _read_plugin(path: Path) -> dict[str, Any]:
    try:
        plugin = json_content(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); check --use-plugin") from error
    if not isinstance(plugin, dict) or "plugin" not in plugin:
        raise UserError(f'{path}: not of the form {{"plugin": ..., "plugin_args": {{...}}}}; check --use-plugin')
    return plugin


def _with_verdicts(rows: Sequence[Row], all_outputs: Sequence[ScanOutputs]) -> list[Row]:
    """The rows of segmented scans with their verdicts, and the reasons and warnings; contrasts are compared by now."""
    by_name = {outputs.scan.stem: outputs for outputs in all_outputs}
    judged_rows = []
    for row in rows:
        if row.result in ("done", "complete") and row.name in by_name:
            outputs = by_name[row.name]
            quality = judged(read_json(outputs.quality), read_json(outputs.agreement))
            noticed = [*reasons_of(quality), *map(str, quality.get("Warnings", ()))] if row.result == "done" else []
            row = replace(row, verdict=verdict_of(quality), why="; ".join(noticed) or row.why)
        judged_rows.append(row)
    return judged_rows


def _write_citation(out: Path, recipe: OutputSettings, options: RunOptions) -> None:
    network_first = options.lesions == "found"
    steps = Steps(options.describes_lesions, network_first, options.fill, options.fuse, options.longitudinal)
    write_text(methods_file(out), methods_text(recipe, options.modality, steps))
