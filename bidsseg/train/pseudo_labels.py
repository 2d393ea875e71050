"""Labels that no rater gave: of clinical patients, and the parcels of label maps that tell tissues alone.

Real scans of whole heads, in thick slices and with real lesions, have no complete manual labels. The network's answers
to the contrasts of one patient are averaged, which cancels part of what each got wrong (Lee 2013, pseudo-labels). The
rater's masks then decide where ventricles and lesions are, and the network only which of the tissues allowed there.

Label maps of whole heads are painted as T1w scans. They keep their tissues and sides, and the network tells only which
gyrus or lobule is where.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bidsseg.imaging.arrays import PLANES_AT_ONCE, Box, Floats, as_float32
from bidsseg.imaging.blocks import at_voxels
from bidsseg.imaging.grey import on_scale_of
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import at_1mm
from bidsseg.imaging.preparation import Conformed, conformed, prepare
from bidsseg.labels import TISSUE, UNKNOWN_PARCEL
from bidsseg.network.inference import PredictOptions, infer
from bidsseg.network.looks import HEAD_THRESHOLD
from bidsseg.network.probabilities import Probabilities, background
from bidsseg.network.weights import Model, load_model
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.segmentation.decision import PARCELLATED, decide, likeliest_parcels
from bidsseg.train.chance import Chance
from bidsseg.train.coded_labels import parcel_of_white_matter
from bidsseg.train.contrast import Mixture, render
from bidsseg.train.data import (
    LESION_KIND,
    LabelledPatient,
    Patient,
    Subject,
    is_one_of,
    kind_of,
    load_heads,
    load_patients,
    load_whole_heads,
    pack,
    unpack,
)

Mask = NDArray[np.bool_]

RATED = tuple(TISSUE[name] for name in ("lateral-ventricle", "third-ventricle", "fourth-ventricle"))
TEMPORAL_HORN = TISSUE["inferior-lateral-ventricle"]
"Raters miss it in thick slices; so it may lie outside their ventricles."
NO_LESION = tuple(TISSUE[name] for name in ("background", "csf", "cortex", "cerebellum-cortex"))
"Tissues that lesions do not lie in; neither do they lie in ventricles."
OUTER_KIND = 1
"One kind for all that lies around the brain, which is not told apart here."
LEAST = 1e-6
"Probability of what is taken where the network holds nothing of what is allowed for possible."
PARCELS_FROM = Mixture(p_sequence=1, sequences=(("T1w", 1),))
"The contrast of the scans that the network learned gyri from."
RENDERINGS = 2
"Of one label map; the answers to them are averaged."
CORTICES = ("cortex", "cerebellum-cortex")


def load_labelled(data: Path) -> list[LabelledPatient]:
    """The clinical patients for training and the whole heads of a folder, labelled by the packaged model."""
    patients = [*load_patients(data), *load_whole_heads(data)]
    if not patients:
        return []
    model = load_model()
    return [pseudo_labelled(patient, model) for patient in patients]


def pseudo_labelled(patient: Patient, model: Model) -> LabelledPatient:
    """Correct the bias fields of a patient's scans and label what they show together."""
    prepared = {suffix: prepare(patient.image(suffix), bias_correction=True) for suffix in patient.scans}
    grid = next(iter(prepared.values())).grid.along_scan
    mean, head = _mean_answer((conformed(image, grid) for image in prepared.values()), model)
    at_scan = next(iter(prepared.values()))
    masks = {
        name: conform(replace(at_scan, data=mask.astype(np.float32)), grid)[0] > 0.5
        for name, mask in patient.masks.items()
    }
    corrected = replace(patient, scans={suffix: image.data for suffix, image in prepared.items()})
    return LabelledPatient(corrected, decided(mean, head, masks))


def load_parcelled_heads(data: Path) -> list[Subject]:
    """The label maps of whole heads of a folder, with parcels by the packaged model."""
    model = load_model()
    return [with_parcels(head, model) for head in load_heads(data)]


def with_parcels(head: Subject, model: Model) -> Subject:
    """The same label map with the parcels that the network names in it, seen in some T1w contrasts, always the same."""
    labels = torch.from_numpy(head.packed)
    painted = (render(labels, None, 0, 0, Chance.of(seed), PARCELS_FROM).numpy() for seed in range(RENDERINGS))
    mean, _ = _mean_answer((conformed(at_1mm(volume)) for volume in painted), model)
    return replace(head, packed=parcelled(head.packed, mean))


def parcelled(packed: NDArray[np.int16], mean: Probabilities) -> NDArray[np.int16]:
    """Packed labels (I, J, K) with the likeliest parcels that their tissues allow, whatever tissue was seen there.

    White matter takes the parcel of the nearest cortex, as in manual labels. What the network did not look at is
    unknown.
    """
    known = unpack(packed)
    parcel = np.full(packed.shape, UNKNOWN_PARCEL, np.uint8)
    for there, here in _slabs(mean):
        tissue = known.tissue[there]
        cortex = is_one_of(CORTICES, tissue)
        parcels = at_voxels(mean.parcels, mean.tissue.shape[1:], here, cortex)
        likeliest = likeliest_parcels(parcels, tissue[cortex])
        parcel[there][cortex] = np.where(parcels.any(0), likeliest, UNKNOWN_PARCEL)
    parcel = parcel_of_white_matter(known.tissue, known.side, parcel)
    return pack(replace(known, parcel=parcel), kind_of(packed))


def _mean_answer(scans: Iterable[Conformed], model: Model) -> tuple[Probabilities, Mask]:
    """What a model says on average of scans of one head on one 1 mm grid, and where any of them shows the head."""
    mean, head = None, np.zeros((), bool)
    for number, seen in enumerate(scans):
        found, grey = infer(seen.volume, model, PredictOptions(gyri=True, mirror=True), partial(on_scale_of, seen))
        mean = found if mean is None else averaged(mean, found, number)
        head = head | (grey > HEAD_THRESHOLD)
    assert mean is not None
    return mean, head


def averaged(mean: Probabilities, other: Probabilities, before: int) -> Probabilities:
    """The mean of so many answers before and of one more, over the box that holds both.

    Beyond its own box an answer is background.
    """
    i, j, k = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(mean.box, other.box, strict=True))
    shape = (i.stop - i.start, j.stop - j.start, k.stop - k.start)
    result = background((i.start, j.start, k.start), shape, mean.parcels.shape[-1])
    result.right[:] = 0.5
    for found, share in ((mean, before / (before + 1)), (other, 1 / (before + 1))):
        tissue, right, parcels = result.within(found.box)
        _count_in(tissue[:1], found.tissue[:1], share, beyond=1)
        _count_in(tissue[1:], found.tissue[1:], share, beyond=0)
        _count_in(right, found.right, share, beyond=0.5)
        _count_in(parcels, found.parcels, share, beyond=0)
    return result


def _count_in(mean: NDArray[np.float16], values: NDArray[np.float16], share: float, beyond: float) -> None:
    """In place: count values into a mean that has taken them for ``beyond`` so far."""
    torch.from_numpy(mean).add_(torch.from_numpy(values) - beyond, alpha=share)  # numpy is slow with half floats


def decided(mean: Probabilities, head: Mask, masks: Mapping[str, Mask]) -> NDArray[np.int16]:
    """Packed labels (I, J, K) of the whole grid; ``head`` and the manual masks lie on it.

    Without a mask of ventricles or of lesions, the network alone decides these.
    """
    tissue, side = np.zeros((2, *head.shape), np.uint8)
    parcel = np.full(head.shape, UNKNOWN_PARCEL, np.uint8)
    lesion = masks.get("lesion", np.zeros(head.shape, bool))
    for there, here in _slabs(mean):
        tissues = as_float32(mean.tissue[:, here])
        if "ventricle" in masks:
            _as_rated(tissues, masks["ventricle"][there], lesion[there])
        parcels_at = partial(at_voxels, mean.parcels, mean.tissue.shape[1:], here)
        found = decide(tissues, as_float32(mean.right[0, here]), parcels_at, gyri=True)
        tissue[there], side[there] = found.tissue, found.side
        parcel[there] = np.where(is_one_of(PARCELLATED, found.tissue), found.parcel, UNKNOWN_PARCEL)
    kind = np.where(head & (tissue == 0), OUTER_KIND, 0).astype(np.uint8)
    kind[lesion & (tissue == TISSUE["white-matter"])] = LESION_KIND
    return pack(Anatomy(tissue, side, parcel), kind)


def _as_rated(tissues: Floats, ventricle: Mask, lesion: Mask) -> None:
    """In place: take from probabilities (19, I, J, K) what the rater's masks rule out."""
    rated, fluid = list(RATED), [*RATED, TEMPORAL_HORN]
    mistaken = ~ventricle & np.isin(tissues.argmax(0), rated)
    tissues[[0, *rated]] *= ~mistaken  # what was taken for a ventricle is some tissue, not air
    tissues[rated] *= ventricle
    others = np.setdiff1d(np.arange(len(tissues)), fluid)
    tissues[others] *= ~ventricle
    tissues[TISSUE["lateral-ventricle"]] += LEAST * ventricle
    lesion = lesion & ~ventricle
    tissues[[*NO_LESION, *fluid]] *= ~lesion
    tissues[TISSUE["white-matter"]] += LEAST * lesion


def _slabs(found: Probabilities) -> Iterator[tuple[Box, slice]]:
    """Some planes of the box after the other: where they lie in the grid, and along the box's first axis."""
    i, j, k = found.box
    for first in range(i.start, i.stop, PLANES_AT_ONCE):
        last = min(first + PLANES_AT_ONCE, i.stop)
        yield (slice(first, last), j, k), slice(first - i.start, last - i.start)
