"""Where a header puts its voxels: sform, qform, voxel sizes and their unit, and what holds where they contradict.

The qform takes its voxel sizes from ``pixdim``, so a sform of other sizes stands against both. Of two statements that
nothing else decides between, the one with which a head fits into the field of view is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

Affine = NDArray[np.float64]
"4x4, from voxel indices to RAS mm."
Sizes = NDArray[np.float64]
"The size of a voxel along its three axes, (3,), mm."

MM_OF_UNIT = {1: ("metre", 1e3), 2: ("mm", 1.0), 3: ("micron", 1e-3)}
"Units by their code in ``xyzt_units``."
MAX_ASPECT = 1e3
"The largest ratio of a voxel's longest to its shortest side."
OVERFLOWS = 1e30
"A larger number in a header is no length in any unit."
SAME_SHARE = 0.01
"Voxel sizes that differ by less agree."
SAME_PLACE_MM = 1.0
"Affines that put every corner of the volume this close agree."
FORMS_APART_MM = 0.01
"A sform whose corners lie further from those of a rotation has shear, which no qform can say."
SHORTEST_HEAD_MM, LONGEST_HEAD_MM = 40.0, 1000.0
"Bounds of the longest side of a field of view that holds a brain."
ROUNDING = 1.01
"Squared length of a unit quaternion's vector part at most; a little more than 1 is rounding."
FORM_FIELDS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")


@dataclass(frozen=True)
class Placement:
    """The affine of a volume, and a header that says so."""

    affine: Affine
    header: nib.Nifti1Header
    "Nothing but shape, unit, form codes and forms."
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Forms:
    """The statements of a header about space; None for one that is missing or describes no grid."""

    shape: tuple[int, int, int]
    sform: Affine | None
    qform: Affine | None
    sizes: Sizes | None
    "``pixdim``, if all three are above 0 and plausible."

    def scaled(self, factor: float) -> Forms:
        matrix = np.diag((factor, factor, factor, 1.0))
        sform, qform = (None if form is None else matrix @ form for form in (self.sform, self.qform))
        return replace(self, sform=sform, qform=qform, sizes=None if self.sizes is None else self.sizes * factor)


@dataclass(frozen=True)
class Choice:
    """The affine that was taken, and why where that is not plain."""

    affine: Affine
    warnings: tuple[str, ...] = ()


def voxel_spacing_mm(affine: Affine) -> Sizes:
    """Column norms of the affine, (3,)."""
    spacing: Sizes = np.sqrt((affine[:3, :3] ** 2).sum(0))
    return spacing


def is_usable(affine: Affine) -> bool:
    """Whether a 4x4 affine is finite, of full rank, and has plausible voxels."""
    if affine.shape != (4, 4) or not (np.abs(affine) < OVERFLOWS).all() or voxel_spacing_mm(affine).min() == 0:
        return False
    singular = np.linalg.svd(affine[:3, :3], compute_uv=False)
    return bool(singular[-1] > 0 and singular[0] / singular[-1] < MAX_ASPECT)


def corners_apart_mm(a: Affine, b: Affine, shape: tuple[int, ...]) -> float:
    """How far two affines, 4x4, put a corner of a volume apart at most, along any axis of the world."""
    corners = np.array(np.meshgrid(*((0, n - 1) for n in shape))).reshape(3, -1)
    return float(np.abs((a - b)[:3, :3] @ corners + (a - b)[:3, 3:]).max())


def placement(fields: Any, shape: tuple[int, int, int]) -> Placement:
    """Where the voxels of a NIfTI header of any version lie, in mm; never fails, but may have to guess."""
    with np.errstate(all="ignore"):  # of a NaN that signals; it is found out below
        forms, unusable = _forms(fields, shape)
    found, factor = _in_mm(forms, int(fields["xyzt_units"]) & 7)
    header = _header(fields, forms.scaled(factor), found.affine, plain=factor == 1)
    return Placement(found.affine, header, (*unusable, *found.warnings))


def placed_at(affine: Affine, shape: tuple[int, ...], warnings: tuple[str, ...] = ()) -> Placement:
    """The placement of a volume whose affine, 4x4 in mm, is known from a file of another format than NIfTI.

    The header has it as sform and, where it has no shear, as qform.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    if is_usable(affine):
        header.set_sform(affine, 1)
        header.set_qform(affine, 1, strip_shears=True)
        if corners_apart_mm(affine, header.get_qform(), shape) > FORMS_APART_MM:
            header.set_qform(None, 0)
    return Placement(affine, header, warnings)


def axes_affine(axes: str, sizes: Sizes, shape: tuple[int, ...]) -> Affine:
    """The affine, 4x4, of a volume whose axes lead to ``axes``, as in ``LAS``, and whose middle lies at 0."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(axes):
        row = next(n for n, pair in enumerate(("RL", "AP", "SI")) if letter in pair)
        affine[row, axis] = sizes[axis] if letter in "RAS" else -sizes[axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def to_ras(lps: Affine) -> Affine:
    """A 4x4 affine to right, anterior, superior, from one to left, posterior, superior, as DICOM and ITK have it."""
    return np.diag((-1.0, -1.0, 1.0, 1.0)) @ lps


def in_mm(sizes: Any) -> str:
    """Three lengths as people write them."""
    return f"{' x '.join(f'{size:.3g}' if size < 1000 else f'{size:.0f}' for size in sizes)} mm"


def _forms(fields: Any, shape: tuple[int, int, int]) -> tuple[Forms, list[str]]:
    """The forms as stored, in the header's own unit, and warnings about those that describe no grid."""
    pixdim = np.abs(np.asarray(fields["pixdim"], np.float64))
    sizes = pixdim[1:4] if is_usable(np.diag((*pixdim[1:4], 1.0))) else None
    warnings = []
    sform = qform = None
    if int(fields["sform_code"]) > 0:
        sform = np.eye(4)
        sform[:3] = [fields[f"srow_{axis}"] for axis in "xyz"]
        if not is_usable(sform):
            sform = None
            warnings.append("the sform is not an invertible affine; it was not used")
    if int(fields["qform_code"]) > 0:
        qform = _qform(fields)
        if qform is None:
            warnings.append("the qform is not a rotation, or its voxel sizes are not positive; it was not used")
    return Forms(shape, sform, qform, sizes), warnings


def _qform(fields: Any) -> Affine | None:
    """The quaternion's affine as nifti1_io of the NIfTI authors computes it, with tolerance for rounding."""
    b, c, d, *offset = (float(fields[name]) for name in FORM_FIELDS)
    length = b * b + c * c + d * d
    pixdim = np.asarray(fields["pixdim"], np.float64)
    if not np.isfinite([length, *offset, *pixdim[1:4]]).all() or length > ROUNDING:
        return None
    if length > 1:
        b, c, d = np.array((b, c, d)) / np.sqrt(length)
    a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
    rotation = quat2mat((a, b, c, d))
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.abs(pixdim[1:4]) * (1, 1, -1 if pixdim[0] < 0 else 1)
    affine[:3, 3] = offset
    return affine if is_usable(affine) else None


def _in_mm(forms: Forms, code: int) -> tuple[Choice, float]:
    """The choice among the forms, and by what their numbers were multiplied to be in mm.

    A unit with which no head fits, where it fits in mm, was written by mistake.
    """
    unit, factor = MM_OF_UNIT.get(code, ("mm", 1.0))
    found = _choose(forms.scaled(factor))
    if factor == 1 or _holds_a_head(found.affine, forms.shape):
        return found, factor
    plain = _choose(forms)
    if not _holds_a_head(plain.affine, forms.shape):
        return found, factor
    warning = (
        f"its unit is {unit}, which gives a field of view of {in_mm(_extent(found.affine, forms.shape))}; mm were used"
    )
    return Choice(plain.affine, (*plain.warnings, warning)), 1.0


def _choose(forms: Forms) -> Choice:
    sform, qform, sizes = forms.sform, forms.qform, forms.sizes
    if sform is None and qform is None:
        return _guess(forms)
    if sform is not None and qform is not None and np.array_equal(sform, np.eye(4)) and not _is_bare(qform):
        return Choice(qform, ("the sform is an identity matrix, probably lost in a conversion; the qform was used",))
    if sform is None or sizes is None or _agree(voxel_spacing_mm(sform), sizes):
        found = Choice(sform if sform is not None else _given(qform))
        if sform is not None and qform is not None and corners_apart_mm(sform, qform, forms.shape) > SAME_PLACE_MM:
            found = Choice(sform, ("sform and qform disagree; the sform was used",))
    else:
        found = _where_sizes_differ(forms, sform, sizes)
    if np.array_equal(_given(sform if sform is not None else qform), np.eye(4)):
        lost = "the header has no position or direction (an identity matrix), probably lost in a conversion"
        found = Choice(found.affine, (*found.warnings, f"{lost}; voxel size, left and right are a guess"))
    return found


def _is_bare(affine: Affine) -> bool:
    """Whether an affine has voxel sizes alone, but no position or direction."""
    return np.array_equal(affine, np.diag((*voxel_spacing_mm(affine), 1.0)))


def _given(affine: Affine | None) -> Affine:
    assert affine is not None
    return affine


def _where_sizes_differ(forms: Forms, sform: Affine, sizes: Sizes) -> Choice:
    """Where the sform has other voxel sizes than ``pixdim``, and so than the qform.

    A sform of unit columns, or a ``pixdim`` of ones, was left so by a writer that put the sizes elsewhere alone.
    """
    own = voxel_spacing_mm(sform)
    contradiction = f"the sform gives voxels of {in_mm(own)}, pixdim {in_mm(sizes)}"
    resized = sform.copy()
    resized[:3, :3] *= sizes / own
    other = forms.qform if forms.qform is not None else resized
    name = "the qform, which agrees with pixdim, was used" if forms.qform is not None else "the size in pixdim was used"
    fits, other_fits = (_holds_a_head(affine, forms.shape) for affine in (sform, other))
    sform_is_bare, pixdim_is_bare = (_agree(each, np.ones(3)) for each in (own, sizes))
    outvoted = sform_is_bare or (forms.qform is not None and not pixdim_is_bare)
    if is_usable(other) and (other_fits > fits or (other_fits == fits and outvoted)):
        return Choice(other, (f"{contradiction}; {name}",))
    return Choice(sform, (f"{contradiction}; the sform was used; check which one is right",))


def _agree(one: Sizes, other: Sizes) -> bool:
    return bool((np.abs(one - other) <= SAME_SHARE * np.maximum(one, other)).all())


def _extent(affine: Affine, shape: tuple[int, ...]) -> Sizes:
    return voxel_spacing_mm(affine) * shape


def _holds_a_head(affine: Affine, shape: tuple[int, ...]) -> bool:
    return SHORTEST_HEAD_MM <= float(_extent(affine, shape).max()) <= LONGEST_HEAD_MM


def _guess(forms: Forms) -> Choice:
    """Axes as most scanners store them, centred."""
    sizes = forms.sizes if forms.sizes is not None else np.ones(3)
    affine = axes_affine("LAS", sizes, forms.shape)
    warning = "no usable orientation in the header; assumed radiological axes (LAS), so left and right are a guess"
    return Choice(affine, (warning,))


def _header(fields: Any, forms: Forms, affine: Affine, plain: bool) -> nib.Nifti1Header:
    """A sound header for results on the same grid: forms and codes as stored where they hold, the unit mm.

    With ``plain`` the numbers stored are in mm already, so the quaternion is kept as it is, to the last bit.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(forms.shape)
    header.set_xyzt_units("mm")
    if forms.qform is not None:
        code = min(int(fields["qform_code"]), 5)
        header.set_qform(forms.qform, code)
        if plain:
            _keep_quaternion(header, fields, forms.qform)
    if int(fields["sform_code"]) > 0 or forms.qform is None or not np.array_equal(affine, forms.qform):
        header.set_sform(affine, min(max(int(fields["sform_code"]), 1), 5))
    return header


def _keep_quaternion(header: nib.Nifti1Header, fields: Any, qform: Affine) -> None:
    exact = header.copy()
    for name in FORM_FIELDS:
        exact[name] = fields[name]
    sizes = np.asarray(fields["pixdim"][:4], np.float64)
    if not (np.abs(sizes) <= np.finfo(np.float32).max).all():  # NIfTI-2 has double precision, results have not
        return
    exact["pixdim"][:4] = sizes
    try:
        same = np.allclose(exact.get_qform(), qform)
    except (HeaderDataError, ValueError):  # off by rounding
        return
    if same:
        for name in ("pixdim", *FORM_FIELDS):
            header[name] = exact[name]
