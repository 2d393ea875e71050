"""Training subjects: label maps and scans on a common 1 mm RAS convention, every voxel packed into 16 bits.

A packed voxel holds tissue (bits 0-4), side (bit 5), parcel (bits 6-11, 63 where unknown) and kind (bits 12-15): 0 is
plain brain or air, 1-12 a tissue outside the brain, 13 choroid plexus, 14 a vessel, 15 a lesion. One gather then moves
the whole anatomy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.errors import UserError
from bidsseg.imaging.grey import brightest_inside
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image, at_1mm
from bidsseg.labels import (
    TISSUE,
    UNKNOWN_PARCEL,
)
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.coded_labels import anatomy_from_aseg, anatomy_from_braincolor

if TYPE_CHECKING:
    from torch import Tensor

Voxels = TypeVar("Voxels", NDArray[Any], "Tensor")
"In numpy or in torch."
VALIDATION_SUBJECTS = ("sub-1015", "sub-1017", "sub-1036")
VALIDATION_PATIENTS = ("sub-02", "sub-05", "sub-07")
VALIDATION_MASK = "patient07"
"Of ms-lesions-mni: the one that comes with scans. The lesion network never sees its lesions."
CHOROID_KIND, VESSEL_KIND, LESION_KIND = 13, 14, 15
OUTER_CODES = (502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530, 85)
HEADS_PER_BRAIN = 2
BRAIN_MARGIN_MM = 40
THIN_MM = 2.0
"Slices farther apart are thick: what lies between them is interpolated."
BRIGHTEST = 20.0
"Of a scan's grey values, in those of the brain: no scalp is brighter, and half floats must hold them."

# Details of the head maps that have an intensity of their own but belong to a larger structure.
HEAD_DETAILS = {
    CHOROID_KIND: {136: 4, 163: 43, 137: 5, 164: 44},
    VESSEL_KIND: {30: 2, 62: 41},
    LESION_KIND: {25: 2, 57: 41},
}


@dataclass(frozen=True)
class Subject:
    """One training anatomy, in RAS at 1 mm."""

    name: str
    packed: NDArray[np.int16]
    "(I, J, K); see the module's docstring."
    image: NDArray[np.float16] | None
    """(I, J, K) the real scan, the 99.5th percentile of its brain 1, and its background 0 unless it is a whole head's;
    None for label maps alone."""
    box: NDArray[np.float64]
    "(2, 3) first and last voxel of the brain without CSF."
    slice_axis: int | None = None
    "The axis across the scan's thick slices; None for scans and label maps of 1 mm."
    whole_head: bool = False
    "Whether the scan shows what lies around the brain, too."
    clipped: NDArray[np.float16] | None = None
    "(I, J, K) the scan in thick slices as it is seen once the brain is known: clipped before it was resampled."


@dataclass(frozen=True)
class Patient:
    """Clinical scans and manual masks of one patient, all on one grid (I, J, K), as they come."""

    name: str
    scans: dict[str, NDArray[np.float32]]
    "Scans by suffix: FLAIR, T1w, T2w."
    masks: dict[str, NDArray[np.bool_]]
    "Masks by label: lesion, ventricle, caps."
    affine: NDArray[np.float64]

    def image(self, suffix: str) -> Image:
        """One of the scans, with its geometry."""
        return replace(at_1mm(self.scans[suffix]), affine=self.affine)


@dataclass(frozen=True)
class LabelledPatient:
    """A patient's scans with their bias fields corrected, and labels of what they show; see ``pseudo_labels``."""

    patient: Patient
    packed: NDArray[np.int16]
    "(I, J, K) on the 1 mm RAS grid along the scans' axes."

    def subjects(self) -> list[Subject]:
        """One for each scan, of the brain and what lies around it; they share the labels."""
        tissue = unpack(self.packed).tissue
        box, brain = brain_box(tissue), without_fluid(tissue)
        found = []
        for suffix in self.patient.scans:
            image = self.patient.image(suffix)
            grid, axis = image.grid.along_scan, slice_axis(image)
            grey, _ = conform(image, grid)
            of_brain = np.percentile(grey[tissue > 0], 99.5)
            clipped = None
            if axis is not None:
                below, _ = conform(image, grid, brightest_inside(grey, brain & grid.in_slices))
                clipped = _relative(below, of_brain)
            name, shown = f"{self.patient.name}_{suffix}", _relative(grey, of_brain)
            found.append(crop_to_brain(Subject(name, self.packed, shown, box, axis, True, clipped)))
        return found


@dataclass(frozen=True)
class TrainingSet:
    """All that a network learns from."""

    heads: list[Subject]
    "Label maps of whole heads, without scans."
    brains: list[Subject]
    "Scans and labels of brains, without anything around them."
    lesions: list[NDArray[np.uint8]]
    "Masks in MNI152 space."
    pseudo: list[LabelledPatient] = field(default_factory=list)
    "Whole heads of clinical scans, labelled by a network and, where there are manual masks, by these."


def pack(anatomy: Anatomy, kind: NDArray[np.uint8] | int = 0) -> NDArray[np.int16]:
    """Factor volumes and kinds into one int16 volume."""
    parcel = np.where(anatomy.parcel == UNKNOWN_PARCEL, 63, anatomy.parcel).astype(np.uint16)
    packed = anatomy.tissue.astype(np.uint16) | (anatomy.side.astype(np.uint16) << 5) | (parcel << 6)
    return (packed | (np.asarray(kind, np.uint16) << 12)).view(np.int16)


def unpack(packed: NDArray[np.int16]) -> Anatomy:
    """The factor volumes of a packed one; the kinds are lost."""
    bits = packed.view(np.uint16)
    tissue, side, parcel = ((bits >> first & mask).astype(np.uint8) for first, mask in ((0, 31), (5, 1), (6, 63)))
    return Anatomy(tissue, side, np.where(parcel == 63, UNKNOWN_PARCEL, parcel).astype(np.uint8))


def kind_of(packed: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The kinds of a packed volume."""
    return (packed.view(np.uint16) >> 12).astype(np.uint8)


def slice_axis(image: Image) -> int | None:
    """The axis of the 1 mm RAS grid that runs across a scan's thick slices; None where there are none."""
    spacing = image.grid.spacing_mm
    return int(spacing.argmax()) if spacing.max() > THIN_MM else None


def load_ras(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A 1 mm NIfTI as a RAS float32 volume, and its affine."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj, np.float32), image.affine


def without_fluid(tissue: Voxels) -> Voxels:
    """Where tissues (I, J, K) are brain, but for CSF."""
    found: Voxels = (tissue != 0) & (tissue != TISSUE["csf"])
    return found


def is_one_of(names: Sequence[str], tissue: NDArray[Any]) -> NDArray[np.bool_]:
    """Where tissues (I, J, K) have one of these names."""
    found: NDArray[np.bool_] = np.isin(tissue, [TISSUE[name] for name in names])
    return found


def _relative(scan: NDArray[np.float32], of_brain: np.floating[Any]) -> NDArray[np.float16]:
    """Grey values in those of the brain, as half floats."""
    return np.clip(scan / of_brain, 0, BRIGHTEST).astype(np.float16)


def brain_box(tissue: NDArray[np.uint8]) -> NDArray[np.float64]:
    """First and last voxel of everything but background and CSF, shape (2, 3)."""
    found = np.argwhere(without_fluid(tissue))
    return np.stack((found.min(0), found.max(0))).astype(np.float64)


def load_head(path: Path) -> Subject:
    """One SynthSeg training label map (Billot et al. 2023), its brain and what lies around it."""
    return crop_to_brain(load_whole_head(path))


def load_whole_head(path: Path) -> Subject:
    """The same with all of the neck that the map has."""
    codes = load_ras(path)[0].astype(np.int16)
    kind = np.zeros(codes.shape, np.uint8)
    for number, code in enumerate(OUTER_CODES, 1):
        kind[codes == code] = number
    for number, merged in HEAD_DETAILS.items():
        for code, into in merged.items():
            kind[codes == code], codes[codes == code] = number, into
    anatomy = anatomy_from_aseg(codes)
    return Subject(path.name.split(".")[0], pack(anatomy, kind), None, brain_box(anatomy.tissue))


def load_brain(folder: Path) -> tuple[Anatomy, NDArray[np.float16]]:
    """One MICCAI 2012 subject: unlabelled voxels inside the brain-extracted scan count as CSF."""
    codes = load_ras(next(folder.glob("*_dseg.nii.gz")))[0].astype(np.int16)
    scan = load_ras(next(folder.glob("*_T1w.nii.gz")))[0]
    anatomy = anatomy_from_braincolor(codes)
    inside = ndimage.binary_fill_holes(scan > 0)
    anatomy.tissue[(anatomy.tissue == 0) & inside & ~np.isin(codes, (42, 43, 69, 75, 76, 63, 64))] = TISSUE["csf"]
    return anatomy, (scan / np.percentile(scan[scan > 0], 99.5)).astype(np.float16)


def into_head(
    anatomy: Anatomy, scan: NDArray[np.float16], head: Subject, name: str, margin_mm: int = BRAIN_MARGIN_MM
) -> Subject:
    """Put a brain without surroundings into those of another head, matched by the brains' boxes.

    The guest's volume grows by the margin on every side. What the host's brain leaves free is filled with CSF, and so
    is a shell of 1 mm around the guest.
    """
    pad = [(margin_mm, margin_mm)] * 3
    tissue, side = np.pad(anatomy.tissue, pad), np.pad(anatomy.side, pad)
    guest = Anatomy(tissue, side, np.pad(anatomy.parcel, pad, constant_values=UNKNOWN_PARCEL))
    image, box = np.pad(scan, pad), brain_box(guest.tissue)
    scale = (head.box[1] - head.box[0]) / (box[1] - box[0])
    axes = [
        np.rint(head.box[0, d] + (np.arange(size) - box[0, d]) * scale[d]).astype(int)
        for d, size in enumerate(guest.tissue.shape)
    ]
    inside = np.ix_(*((axis >= 0) & (axis < size) for axis, size in zip(axes, head.packed.shape, strict=True)))
    host = np.zeros(guest.tissue.shape, np.int16)
    host[inside] = head.packed[np.ix_(*(a[(a >= 0) & (a < n)] for a, n in zip(axes, head.packed.shape, strict=True)))]
    kind = kind_of(host)
    host_inside = (host & 31) != 0
    guest_inside = (guest.tissue != 0) | (image > 0)
    shell = ndimage.binary_dilation(guest_inside) & ~guest_inside
    guest.tissue[(shell | host_inside) & ~guest_inside] = TISSUE["csf"]
    kind[guest_inside | (guest.tissue == TISSUE["csf"])] = 0
    return Subject(name, pack(guest, kind), image, box)


def crop_to_brain(subject: Subject) -> Subject:
    """Keep the brain and ``BRAIN_MARGIN_MM`` around it, ringed by one layer of air."""
    low = np.maximum(subject.box[0] - BRAIN_MARGIN_MM, 0).astype(int)
    high = np.minimum(subject.box[1] + BRAIN_MARGIN_MM + 1, subject.packed.shape).astype(int)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    image, clipped = (None if scan is None else np.pad(scan[window], 1) for scan in (subject.image, subject.clipped))
    packed = np.pad(subject.packed[window], 1)
    return replace(subject, packed=packed, image=image, clipped=clipped, box=subject.box - low + 1)


def brain_folders(data: Path, validation: bool) -> list[Path]:
    """Folders of the MICCAI subjects, either those for training or those for validation; see ``_found`` for errors."""
    folders = sorted((data / "miccai2012-train").glob("sub-*"))
    chosen = [folder for folder in folders if (folder.name in VALIDATION_SUBJECTS) == validation]
    return _found(chosen, data, f"miccai2012-train/sub-* for {'validation' if validation else 'training'}")


def head_maps(data: Path) -> list[Path]:
    """The SynthSeg training label maps; see ``_found`` for errors."""
    return _found(sorted((data / "synthseg-label-maps").glob("*.nii.gz")), data, "synthseg-label-maps/*.nii.gz")


def _found(paths: list[Path], data: Path, what: str) -> list[Path]:
    """The paths; raises ``UserError`` where there are none, since nothing can be learned or measured then."""
    if not paths:
        raise UserError(f"{data}: no {what}; give the folder that docs/training.md describes")
    return paths


def together(heads: Sequence[Subject], brains: Sequence[Subject]) -> Iterator[Subject]:
    """The heads, and every brain within the surroundings of some of them."""
    yield from heads
    pairs = [
        (brain, heads[(number * HEADS_PER_BRAIN + turn) % len(heads)])
        for number, brain in enumerate(brains)
        for turn in range(HEADS_PER_BRAIN)
    ]
    with ThreadPoolExecutor() as pool:
        yield from pool.map(_amid, pairs)


def _amid(pair: tuple[Subject, Subject]) -> Subject:
    brain, head = pair
    assert brain.image is not None
    joined = into_head(unpack(brain.packed), brain.image, head, f"{brain.name}_in_{head.name}")
    return crop_to_brain(joined)


def load_heads(data: Path) -> list[Subject]:
    """The whole-head label maps."""
    return [load_head(path) for path in head_maps(data)]


def load_brains(data: Path) -> list[Subject]:
    """The brains with a scan and manual labels, and nothing around them."""
    found = ((folder.name, *load_brain(folder)) for folder in brain_folders(data, validation=False))
    return [Subject(name, pack(anatomy), scan, brain_box(anatomy.tissue)) for name, anatomy, scan in found]


def load_lesions(data: Path, without: str | None = None) -> list[NDArray[np.uint8]]:
    """The MS lesion masks in MNI152 space (Lesjak et al. 2017), RAS, as uint8; perhaps without one patient's."""
    paths = sorted((data / "ms-lesions-mni").glob("*label-lesion_mask.nii.gz"))
    kept = [path for path in paths if path.name.split("_")[0] != without]
    return [(load_ras(path)[0] > 0).astype(np.uint8) for path in kept]


def load_patients(data: Path) -> list[Patient]:
    """The patients with clinical scans and manual masks that are for training; none where the folder is not there."""
    folders = sorted((data / "ms-clinical-lesions").glob("sub-*"))
    return [_patient(folder) for folder in folders if folder.name not in VALIDATION_PATIENTS]


def load_whole_heads(data: Path) -> list[Patient]:
    """Whole heads without manual masks; none where the folder is not there."""
    return [
        Patient("whole-head", {"T1w": np.asarray(scan.dataobj, np.float32)}, {}, scan.affine)
        for scan in map(nib.load, sorted((data / "whole-head-t1").glob("*_T1w.nii.gz"))[:1])
    ]


def _patient(folder: Path) -> Patient:
    scans = {path.name.split("_")[-1].split(".")[0]: path for path in sorted(folder.glob("anat/*.nii.gz"))}
    manual = folder.parent / "derivatives" / "manual" / folder.name / "anat"
    masks = {path.name.split("label-")[1].split("_")[0]: path for path in sorted(manual.glob("*_mask.nii.gz"))}
    images = {name: nib.load(path) for name, path in (scans | masks).items()}
    reference = next(iter(images.values()))
    for image in images.values():
        if image.shape != reference.shape or not np.allclose(image.affine, reference.affine, atol=1e-3):
            raise UserError(f"{image.get_filename()}: not on the grid of {reference.get_filename()}; resample it")
    values = {name: np.asarray(image.dataobj, np.float32) for name, image in images.items()}
    return Patient(
        folder.name,
        {name: values[name] for name in scans},
        {name: values[name] > 0 for name in masks},
        reference.affine,
    )
