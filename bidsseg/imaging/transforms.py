"""Deformations as files that ITK, ANTs, SimpleITK and 3D Slicer read (HDF5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from torch import Tensor

from bidsseg.authorship import mark_file
from bidsseg.files import whole
from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.deformation import Affine, Deformation, inverse
from bidsseg.imaging.image import GridGeometry

TO_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
"ITK's world has left and posterior where ours has right and anterior."


def write_transforms(to_template: Path, to_scan: Path, deformation: Deformation) -> None:
    """Write what resamples images of the scan onto the template's grid, and the reverse.

    As with all ITK transforms the first takes points of the template's space to the scan's.
    """
    affine, grid = deformation.affine, deformation.grid
    onward = [_affine(affine), _field(deformation.displacement(), grid)]
    back = [_field(deformation.displacement(backwards=True), grid), _affine(inverse(affine))]
    for path, parts in ((to_template, onward), (to_scan, back)):
        with whole(path) as temporary:
            sitk.WriteTransform(sitk.CompositeTransform(parts), str(temporary))
            mark_file(temporary)


def resampled(data: Floats, affine: Affine, path: Path, like: GridGeometry) -> Floats:
    """An image (I, J, K) through a stored transform onto another grid, trilinear; 0 beyond its field of view."""
    shape, grid = like
    empty = _image(np.zeros(shape, np.float32), grid)
    found = sitk.Resample(_image(data, affine), empty, sitk.ReadTransform(str(path)), sitk.sitkLinear, 0.0)
    values: Floats = sitk.GetArrayFromImage(found).T
    return values


def _image(data: Floats, affine: Affine) -> sitk.Image:
    lps, spacing = TO_LPS @ affine, voxel_spacing_mm(affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T))
    u, _, vt = np.linalg.svd(lps[:3, :3] / spacing)  # the nearest rotation: ITK refuses sheared axes
    image.SetDirection((u @ vt).reshape(-1).tolist())
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _affine(matrix: Affine) -> sitk.AffineTransform:
    lps = TO_LPS @ matrix @ TO_LPS
    return sitk.AffineTransform(lps[:3, :3].reshape(-1).tolist(), lps[:3, 3].tolist())


def _field(displacement: Tensor, grid: Affine) -> sitk.DisplacementFieldTransform:
    vectors = displacement.permute(3, 2, 1, 0).double().numpy() * np.diag(TO_LPS)[:3]
    image = sitk.GetImageFromArray(np.ascontiguousarray(vectors), isVector=True)
    image.SetSpacing(np.diag(grid)[:3].tolist())
    image.SetOrigin((TO_LPS @ grid)[:3, 3].tolist())
    image.SetDirection(TO_LPS[:3, :3].reshape(-1).tolist())
    return sitk.DisplacementFieldTransform(image)
