"""The training set in one file small enough for any upload: safetensors of compressed arrays, nothing that could run.

An array is stored as its bytes, those of one significance after the other, compressed by bz2; its type and shape are in
the file's metadata. Names are paths, ``section/subject/array``; readers skip sections that they do not know. Labels and
masks are exact; the parcels of heads are stored apart from their other labels, which takes half the space. Scans are
stored in steps of half the standard deviation of their noise, which adds 1 % to it.
"""

from __future__ import annotations

import bz2
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bidsseg.errors import FileError
from bidsseg.files import whole
from bidsseg.labels import UNKNOWN_PARCEL
from bidsseg.segmentation.decision import PARCELLATED
from bidsseg.train.data import (
    LabelledPatient,
    Patient,
    Subject,
    TrainingSet,
    brain_box,
    is_one_of,
    kind_of,
    load_lesions,
    pack,
    unpack,
)
from bidsseg.train.training_set import load_subjects, subjects_of

Arrays = dict[str, NDArray[Any]]

STEP_OF_NOISE = 0.5
"Step of rounding, in standard deviations of the noise: the error of rounding is then 0.14 of it."
BRIGHT = 0.15
"Share of the 99th percentile above which a clinical scan's voxel counts as head where its noise is measured."


@dataclass(frozen=True)
class Rounding:
    """What a scan lost."""

    name: str
    noise: float
    "Standard deviation, in the scan's own grey values."
    error: float
    "Root mean square of what rounding changed, over the noise."


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays of any types and shapes; the same arrays give the same bytes."""
    tensors, about = {}, {}
    for name, array in sorted(arrays.items()):
        planes = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, array.itemsize).T
        tensors[name] = np.frombuffer(bz2.compress(planes.tobytes()), np.uint8)
        about[name] = (array.dtype.str, array.shape)
    with whole(path) as temporary:  # one entry of metadata, because safetensors keeps no order among several
        save_file(tensors, temporary, {"arrays": json.dumps(about)})
        temporary.chmod(0o644)


def read_arrays(path: Path) -> Arrays:
    """Read what ``write_arrays`` wrote; raises ``FileError`` for any other file."""
    try:
        with safe_open(path, "np") as stored, ThreadPoolExecutor() as pool:
            about = json.loads(stored.metadata()["arrays"])
            contents = pool.map(bz2.decompress, [stored.get_tensor(name).tobytes() for name in about])
            found = {name: _array(content, *about[name]) for name, content in zip(about, contents, strict=True)}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(path, "not a packed training set", "write it with brainseg-cli pack DATA FILE") from error
    return found


def _array(content: bytes, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    planes = np.frombuffer(content, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.array(planes.T, order="C").reshape(-1).view(dtype).reshape(shape)


def noise_of(scan: NDArray[np.floating[Any]], inside: NDArray[np.bool_]) -> float:
    """Standard deviation of a scan's noise, from the finest diagonal wavelet coefficients along its first two axes.

    Median absolute coefficient over 0.6745 (Donoho and Johnstone 1994) of the Haar wavelet, whose 2 x 2 voxels all lie
    inside. Anatomy adds little to it, and interpolation takes from it; so a step derived from it is rather too fine.
    """
    i, j = (n // 2 * 2 for n in scan.shape[:2])
    corners = [(slice(a, i, 2), slice(b, j, 2)) for a in (0, 1) for b in (0, 1)]
    one, two, three, four = (scan[corner].astype(np.float32) for corner in corners)
    all_inside = np.logical_and.reduce([inside[corner] for corner in corners])
    return float(np.median(np.abs(one - two - three + four)[all_inside]) / 2 / 0.6745)


def rounded(name: str, scan: NDArray[Any], inside: NDArray[np.bool_], lost: list[Rounding]) -> Arrays:
    """A scan as numbers of steps (int16) and the step; what is above 0 stays above 0. Appends what it lost."""
    noise = noise_of(scan, inside)
    step = noise * STEP_OF_NOISE
    steps = np.maximum(np.rint(scan.astype(np.float32) / step), scan > 0).astype(np.int16)
    error = (steps * step - scan)[inside].std() / noise
    lost.append(Rounding(name, noise, float(error)))
    return {name: steps, f"{name}/step": np.array(step)}


def pack_training_set(known: TrainingSet, path: Path) -> list[Rounding]:
    """Write a training set; what its scans lost."""
    arrays: Arrays = {}
    lost: list[Rounding] = []
    for section, subjects in (("heads", known.heads), ("brains", known.brains)):
        for subject in subjects:
            name = f"{section}/{subject.name}"
            labels = parcels_apart(subject.packed) if section == "heads" else {"labels": subject.packed}
            arrays |= {f"{name}/{what}": array for what, array in labels.items()}
            if subject.image is not None:
                arrays |= rounded(f"{name}/scan", subject.image, subject.image > 0, lost)
    for number, mask in enumerate(known.lesions):
        arrays[f"lesions/{number:02d}/mask"] = mask
    for labelled in known.pseudo:
        patient, name = labelled.patient, f"pseudo/{labelled.patient.name}"
        arrays |= {f"{name}/affine": patient.affine, f"{name}/labels": labelled.packed}
        for contrast, scan in patient.scans.items():
            arrays |= rounded(f"{name}/scan-{contrast}", scan, scan > BRIGHT * np.percentile(scan, 99), lost)
    write_arrays(path, arrays)
    return lost


def parcels_apart(packed: NDArray[np.int16]) -> Arrays:
    """Labels without the parcels of the tissues that have some, and these parcels, (N,) in the order of the voxels."""
    known = unpack(packed)
    divided = is_one_of(PARCELLATED, known.tissue)
    parcel = np.where(divided, UNKNOWN_PARCEL, known.parcel)
    return {"labels": pack(replace(known, parcel=parcel), kind_of(packed)), "parcels": known.parcel[divided]}


def joined(parts: Arrays) -> NDArray[np.int16]:
    """Labels of what ``parcels_apart`` gave; where there is no list of parcels, as they are."""
    packed: NDArray[np.int16] = parts["labels"]
    if "parcels" not in parts:
        return packed
    known = unpack(packed)
    known.parcel[is_one_of(PARCELLATED, known.tissue)] = parts["parcels"]
    return pack(known, kind_of(packed))


def unpack_training_set(path: Path) -> TrainingSet:
    """Read what ``pack_training_set`` wrote; raises ``FileError`` for any other file."""
    arrays = read_arrays(path)
    heads, brains = (
        [_subject(name, parts) for name, parts in _members(arrays, section)] for section in ("heads", "brains")
    )
    lesions = [parts["mask"] for _, parts in _members(arrays, "lesions")]
    pseudo = [_labelled(name, parts) for name, parts in _members(arrays, "pseudo")]
    return TrainingSet(heads, brains, lesions, pseudo)


def _members(arrays: Arrays, section: str) -> Iterator[tuple[str, Arrays]]:
    """The names of a section's members, and their arrays by what is left of the path."""
    members: dict[str, Arrays] = {}
    for name, array in arrays.items():
        first, member, what = name.split("/", 2)
        if first == section:
            members.setdefault(member, {})[what] = array
    yield from members.items()


def _subject(name: str, parts: Arrays) -> Subject:
    packed = joined(parts)
    image = (parts["scan"] * parts["scan/step"]).astype(np.float16) if "scan" in parts else None
    return Subject(name, packed, image, brain_box(unpack(packed).tissue))


def _labelled(name: str, parts: Arrays) -> LabelledPatient:
    scans = {
        what.removeprefix("scan-"): (steps * parts[f"{what}/step"]).astype(np.float32)
        for what, steps in parts.items()
        if what.startswith("scan-") and not what.endswith("/step")
    }
    return LabelledPatient(Patient(name, scans, {}, parts["affine"]), parts["labels"])


def subjects_and_lesions(data: Path, cache: Path) -> tuple[list[Subject], list[NDArray[np.uint8]]]:
    """What samples are made from, of a folder as the README describes it or of a packed file."""
    if data.is_dir():
        return load_subjects(data, cache), load_lesions(data)
    known = unpack_training_set(data)
    return subjects_of(known), known.lesions
