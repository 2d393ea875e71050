"""Images with the suffix of a scan whose names say that they show no anatomy; they are left out and listed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bidsseg.bids.names import IMAGE_EXTENSIONS

OTHER_DATATYPES = ("beh", "dwi", "eeg", "fmap", "func", "ieeg", "meg", "micr", "motion", "mrs", "nirs", "perf", "pet")
"Folders of a session that hold no anatomical images."
NO_ANATOMY = {"phase": "phase", "real": "the real part", "imag": "the imaginary part"}
"Values of part-, and what such an image holds."
OTHER_FORMATS = re.compile(r"\.(hdr|mgh|mgz|mha|mhd|mnc|nhdr|nrrd)(\.gz)?", re.IGNORECASE)
"Endings of images that BIDS has as NIfTI; of formats with two files, that of the header."


def no_anatomy(entities: Mapping[str, str]) -> str:
    """What an image holds in place of anatomy, by its name; empty for anatomy."""
    return NO_ANATOMY.get(entities.get("part", ""), "")


def overlooked(folder: Path, modalities: Sequence[str]) -> Iterator[Path]:
    """Files below a participant's folder whose names end like images of the modalities, in any case of letters.

    Those of other formats, too, unless the same image is beside them as NIfTI.
    """
    suffixes = "|".join(map(re.escape, modalities))
    endings = re.compile(rf"(.*_)?({suffixes})(\.nii(\.gz)?|{OTHER_FORMATS.pattern})", re.IGNORECASE)
    return (path for path in _files(folder) if endings.fullmatch(path.name) and not _is_converted(path))


def _is_converted(path: Path) -> bool:
    stem, dot, extension = path.name.partition(".")
    beside = (path.with_name(stem + ending) for ending in IMAGE_EXTENSIONS)
    return OTHER_FORMATS.fullmatch(dot + extension) is not None and any(map(Path.exists, beside))


def fits_folder(path: Path, entities: Mapping[str, str], dataset: Path) -> bool:
    """Whether the folders that a file lies in have the participant and session of its name."""
    folders = path.relative_to(dataset).parts[:-1]
    named = [part for part in folders if part.startswith(("sub-", "ses-"))]
    return named == [f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities]


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in OTHER_DATATYPES and not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def what_is_wrong(path: Path, dataset: Path, modalities: Sequence[str]) -> str:
    """Why an overlooked file is no scan of its dataset, and what to do."""
    stem, dot, extension = path.name.partition(".")
    *pairs, suffix = stem.split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    folders = path.relative_to(dataset).parts[:-1]
    right = next(name for name in modalities if name.lower() == suffix.lower())
    if OTHER_FORMATS.fullmatch(dot + extension):
        return f"not NIfTI, which BIDS requires; convert it to {'_'.join([*pairs, right])}.nii.gz"
    if f"{dot}{extension}" not in IMAGE_EXTENSIONS or suffix not in modalities:
        return f"not a valid BIDS name (BIDS writes {right}.{extension.lower()}); rename it"
    if not fits_folder(path, entities, dataset):
        return f"not a valid BIDS name (it does not fit the folder {'/'.join(folders)}); rename it"
    if folders[-1] != "anat":
        above = [name for name in folders if name.startswith(("sub-", "ses-"))]
        return f"not a valid BIDS name (it is not in a folder anat); move it to {'/'.join([*above, 'anat'])}"
    return "not a valid BIDS name; rename it, or give --skip-bids-validation"
