"""What the lesion network learns from: scans as the U-Net sees them, made once and kept.

The U-Net takes seconds for a scan, and the lesion network a fraction of one for a piece of it. So scans are labelled
once, and turned, shaded and blurred afterwards, which hardly changes the tissues that were found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from bidsseg.errors import UserError
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import at_1mm
from bidsseg.imaging.preparation import prepare
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_net import lesion_inputs
from bidsseg.network.weights import Model
from bidsseg.segmentation.pipeline import Answer, answer
from bidsseg.train.chance import CPU, Chance
from bidsseg.train.data import VALIDATION_MASK, Patient, load_brains, load_heads, load_lesions, load_patients
from bidsseg.train.lesion_painting import painted_flair
from bidsseg.train.options import SynthesisSettings
from bidsseg.train.synthesis import Material

SUFFIX = "FLAIR"
KEPT_AS = "lesion-examples-2"
"With the weights, the name of the folder; its number grows with every change of what is kept."


@dataclass(frozen=True)
class LesionExample:
    """The brain's box of a scan on the 1 mm grid, as ``LesionInputs`` has it, and the truth; tensors of half floats."""

    relative: Tensor
    "(1, I, J, K)"
    white: Tensor
    "(2,), float32"
    groups: Tensor
    "(groups, I/2, J/2, K/2)"
    lesion: Tensor
    "(I, J, K): share of the voxel, 0-1."
    bright: Tensor
    "(I, J, K): 1 where a rater marked brightness that is normal, such as caps and bands."


@dataclass(frozen=True)
class Examples:
    """Real patients and painted scans."""

    patients: list[LesionExample]
    painted: list[LesionExample]


@dataclass(frozen=True)
class ExampleOptions:
    """What is made of DATA."""

    painted: int = 90
    "Scans with painted lesions."
    without: Collection[str] = ()
    "Patients to leave out, for cross-validation."


def examples(data: Path, model: Model, cache: Path, options: ExampleOptions, told: Callable[[str], None]) -> Examples:
    """All examples of DATA; those in the cache, made with the same weights, are read from there.

    Patients of the validation set are not among them, nor are validation brains and masks. Raises ``UserError`` where
    a patient to leave out is not there, since a name that is misspelt would leave out nobody.
    """
    known = load_patients(data)
    if strangers := {*options.without} - {patient.name for patient in known}:
        raise UserError(f"--without {','.join(sorted(strangers))}: no patient for training in {data} has this name")
    cache = cache / f"{KEPT_AS}-{model.card.sha256[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    learned = [patient for patient in known if patient.name not in options.without]
    patients = [_kept(cache / patient.name, partial(from_patient, patient, model)) for patient in learned]
    told(f"{len(patients)} patients")
    scans = [cache / f"painted-{number:03d}" for number in range(options.painted)]
    missing = not all(_file(path).exists() for path in scans)
    subjects = [*load_brains(data), *load_heads(data)] if missing else []
    material = Material.on(CPU, subjects, load_lesions(data, VALIDATION_MASK))
    made = []
    for number, path in enumerate(scans):
        made.append(_kept(path, partial(from_painted, material, model, number)))
        told(f"{number + 1} of {options.painted} painted scans")
    return Examples(patients, made)


def from_patient(patient: Patient, model: Model) -> LesionExample:
    """A clinical FLAIR, prepared as in the BIDS App, with its manual masks."""
    image = patient.image(SUFFIX)
    found = answer(prepare(image, True), model, PredictOptions("cpu"))
    lesion, bright = (
        conform(replace(image, data=patient.masks[name].astype(np.float32)))[0]
        if name in patient.masks
        else np.zeros_like(found.volume)
        for name in ("lesion", "caps")
    )
    return _example(found, lesion, bright)


def from_painted(
    material: Material, model: Model, number: int, settings: SynthesisSettings | None = None
) -> LesionExample:
    """The painted scan of this number."""
    painted = painted_flair(material, Chance.of((1, number)), settings)
    found = answer(at_1mm(painted.image.numpy()), model, PredictOptions("cpu"))
    return _example(found, painted.lesion.numpy(), np.zeros_like(found.volume))


def _example(found: Answer, lesion: Floats, bright: Floats) -> LesionExample:
    box = found.probabilities.box
    inputs, _ = lesion_inputs(found.conformed[box], found.probabilities.tissue)
    grown = [
        pad
        for n, m in zip(reversed(inputs.relative.shape[1:]), reversed(lesion[box].shape), strict=True)
        for pad in (0, n - m)
    ]
    truth = [F.pad(torch.from_numpy(np.ascontiguousarray(part[box])), grown).half() for part in (lesion, bright)]
    return LesionExample(inputs.relative.half(), inputs.white, inputs.groups.half(), *truth)


def _file(path: Path) -> Path:
    return path.with_name(f"{path.name}.safetensors")


def _kept(path: Path, make: Callable[[], LesionExample]) -> LesionExample:
    file = _file(path)
    if not file.exists():
        made = make()
        temporary = file.with_suffix(".tmp")
        save_file({field.name: getattr(made, field.name).contiguous() for field in fields(made)}, temporary)
        temporary.replace(file)
    return LesionExample(**load_file(file))
