"""Bias field correction, before a scan is segmented."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from bidsseg.imaging.arrays import PLANES_AT_ONCE, Floats, along, resampling_matrix
from bidsseg.imaging.image import Image

LEAST_OF_FIELD = 1e-3
"The least value of the field, as a share of its median: below it, only noise would be amplified."


def correct_bias(image: Image, threads: int = 1) -> Image:
    """N4 bias field correction (Tustison et al. 2010, doi 10.1109/TMI.2010.2046908), fitted at about 4 mm.

    A field multiplies what is brighter than the darkest voxel, which is 0 in scans as they come but not in those
    rescaled to mean 0. SimpleITK sees spacings but no directions, so that no header can be refused, and never the whole
    scan, which would be copies of a large one.
    """
    darkest = image.data.min()
    spacing_mm = [float(mm) for mm in image.spacing_mm]
    factors = [max(1, min(int(4 // mm), n // 4 or 1)) for mm, n in zip(spacing_mm, image.data.shape, strict=True)]
    small = _shrunk(image.data, darkest, spacing_mm, factors)
    if min(small.GetSize()) < 4:  # fewer samples than the spline has control points
        return image
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(threads)
    n4.SetMaximumNumberOfIterations([30, 20, 10])
    n4.Execute(small, sitk.OtsuThreshold(small, 0, 1))
    flat = _divided(image.data, darkest, n4.GetLogBiasFieldAsImage(small), spacing_mm)
    return replace(image, data=flat)


def _shrunk(data: Floats, darkest: np.float32, spacing_mm: Sequence[float], factors: Sequence[int]) -> sitk.Image:
    """What ``sitk.Shrink`` makes of the scan less its darkest value: every so many voxels, about the same centre."""
    shape = [n // factor for n, factor in zip(data.shape, factors, strict=True)]
    origin_mm = [
        (n - 1) / 2 * mm - (m - 1) / 2 * (factor * mm)
        for n, m, mm, factor in zip(data.shape, shape, spacing_mm, factors, strict=True)
    ]
    one_voxel = sitk.Image(1, 1, 1, sitk.sitkUInt8)
    one_voxel.SetSpacing(spacing_mm)
    first = one_voxel.TransformPhysicalPointToIndex(origin_mm)  # which of two middle voxels, rounding decides
    i, j, k = (slice(max(0, n), None, factor) for n, factor in zip(first, factors, strict=True))
    small = sitk.GetImageFromArray(np.ascontiguousarray((data[i, j, k][tuple(map(slice, shape))] - darkest).T))
    small.SetSpacing([factor * mm for factor, mm in zip(factors, spacing_mm, strict=True)])
    small.SetOrigin(origin_mm)
    return small


def _divided(data: Floats, darkest: np.float32, log_field: sitk.Image, spacing_mm: Sequence[float]) -> Floats:
    """The scan (I, J, K) by a field on a coarser grid, which is made a few planes at a time.

    It is enlarged linearly, which is as good as the spline here.
    """
    small: Floats = sitk.GetArrayFromImage(log_field).T.astype(np.float32)
    least = LEAST_OF_FIELD * math.exp(np.median(small))
    to_i, to_j, to_k = (
        resampling_matrix((np.arange(n) * mm - start) / step, m, mm / step)
        for n, m, mm, start, step in zip(
            data.shape, small.shape, spacing_mm, log_field.GetOrigin(), log_field.GetSpacing(), strict=True
        )
    )
    columns = along(to_j, along(to_i, small, 0), 1)
    flat = np.empty_like(data)
    for first in range(0, len(data), PLANES_AT_ONCE):
        planes = slice(first, first + PLANES_AT_ONCE)
        field = np.maximum(np.exp(along(to_k, columns[planes], 2)), np.float32(least))
        flat[planes] = (data[planes] - darkest) / field + darkest
    return flat
