"""Bias field correction, before a scan is segmented."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from bidsseg.imaging.arrays import Floats, along, resampling_matrix
from bidsseg.imaging.image import Image

LEAST_OF_FIELD = 1e-3
"The least value of the field, as a share of its median: below it, only noise would be amplified."


def correct_bias(image: Image, threads: int = 1) -> Image:
    """N4 bias field correction (Tustison et al. 2010, doi 10.1109/TMI.2010.2046908), fitted at about 4 mm.

    A field multiplies what is brighter than the darkest voxel, which is 0 in scans as they come but not in those
    rescaled to mean 0. SimpleITK sees spacings but no directions, so that no header can be refused.
    """
    darkest = image.data.min()
    signal = image.data - darkest
    scan = sitk.GetImageFromArray(np.ascontiguousarray(signal.T))
    scan.SetSpacing([float(mm) for mm in image.spacing_mm])
    factors = [max(1, min(int(4 // mm), n // 4 or 1)) for mm, n in zip(image.spacing_mm, image.data.shape, strict=True)]
    small = sitk.Shrink(scan, factors)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(threads)
    n4.SetMaximumNumberOfIterations([30, 20, 10])
    if min(small.GetSize()) < 4:  # fewer samples than the spline has control points
        return image
    n4.Execute(small, sitk.OtsuThreshold(small, 0, 1))
    field = np.exp(_enlarged(n4.GetLogBiasFieldAsImage(small), scan))
    flat = (signal / np.maximum(field, LEAST_OF_FIELD * np.median(field)) + darkest).astype(np.float32)
    return Image(flat, image.affine, image.header, image.warnings)


def _enlarged(small: sitk.Image, scan: sitk.Image) -> Floats:
    """A smooth image, shrunk from a scan, on the scan's grid (I, J, K); linear, which is as good as the spline here."""
    field: Floats = sitk.GetArrayFromImage(small).T.astype(np.float32)
    for axis, (n, mm) in enumerate(zip(scan.GetSize(), scan.GetSpacing(), strict=True)):
        centres = (np.arange(n) * mm + scan.GetOrigin()[axis] - small.GetOrigin()[axis]) / small.GetSpacing()[axis]
        field = along(resampling_matrix(centres, field.shape[axis], mm / small.GetSpacing()[axis]), field, axis)
    return field
