"""Whether results are complete: a file, written last, lists all that belong to it and what they were made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bidsseg.authorship import is_ours
from bidsseg.bids.outputs import TOGETHER, OutputSettings, ScanOutputs
from bidsseg.files import read_json


def is_complete(outputs: ScanOutputs, recipe: OutputSettings) -> bool:
    """Whether all outputs of the scan are there, made with this recipe from the scan as it is now."""
    marker = read_json(outputs.quality)
    try:
        expected = {**recipe.metadata_of(outputs.scan), **outputs.source_state()}
        return all(marker[key] == value for key, value in expected.items()) and all_there(outputs.out, outputs.quality)
    except (OSError, KeyError, TypeError):
        return False


def as_made(outputs: ScanOutputs) -> ScanOutputs:
    """The scan with those other sessions alone that, by its marker, had a part in its answer."""
    found = read_json(outputs.quality).get(TOGETHER)
    names = found if isinstance(found, list) else []
    return replace(outputs, others=tuple(path for path in outputs.others if outputs.uri_of(path) in names))


def all_there(out: Path, marker: Path) -> bool:
    """Whether all files that a marker lists are there."""
    names = read_json(marker).get("Outputs")
    files = listed(out, marker)
    return isinstance(names, list) and len(files) == len(names) and all(path.exists() for path in files)


def listed(out: Path, marker: Path) -> list[Path]:
    """The files that a marker lists, by their paths below OUT.

    Paths that lead out of the participant's folder, by dots or links, are left out, as anyone may have written them.
    """
    found = read_json(marker).get("Outputs")
    names = found if isinstance(found, list) else []
    own = out.resolve() / marker.relative_to(out).parts[0]
    paths = [out / name for name in names if isinstance(name, str) and "\0" not in name]
    return [path for path in paths if path.parent.resolve().is_relative_to(own)]


def remove_outputs(out: Path, marker: Path) -> bool:
    """Remove the files that a marker lists, and at last the marker; whether there was one.

    Images that somebody has changed since stay. A kill meanwhile leaves a marker of what is not complete, and the next
    run goes on.
    """
    for path in listed(out, marker):
        if path.is_file() and (not path.name.endswith(".nii.gz") or is_ours(path)):
            path.unlink()
    there = marker.exists()
    marker.unlink(missing_ok=True)
    return there
