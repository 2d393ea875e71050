"""Rigid registration of two scans of one head, whatever their contrasts and slice thickness.

Scans come in and go out in RAS.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image

SEED = 20
SAMPLES = (0.5, 0.25)
"Share of the fixed scan's voxels the metric is computed from, at 4 and 2 mm."
LEAST_MM = 8
"Along each axis; ITK smooths no fewer than four voxels, of 2 mm here. Thinner scans go on as they end."


def rigid_transform(
    fixed: Image, moving: Image, fixed_mask: NDArray[np.bool_] | None = None, threads: int = 1
) -> NDArray[np.float64]:
    """Rotation and shift that take RAS mm of ``fixed`` to RAS mm of ``moving``, 4x4.

    Both scans are brought to 2 mm by way of 1 mm, so that thick slices weigh what they cover. Mattes mutual information
    (Mattes et al. 2003, doi 10.1109/TMI.2003.809072) at 4 and 2 mm, begun from the headers and from the centres of
    mass, whichever fits better. ``fixed_mask`` (I, J, K on the fixed scan's grid, for instance the brain) limits where
    they must agree; neck and jaw move on their own. The same input gives the same answer.
    """
    target, source = _to_sitk(fixed), _to_sitk(moving)
    mask = None
    if fixed_mask is not None and fixed_mask.any():
        mask = _to_sitk(replace(fixed, data=fixed_mask.astype(np.float32))) >= 0.5
        mask = sitk.BinaryDilate(mask, [2, 2, 2])
    best = min(_beginnings(target, source), key=lambda start: _misfit(_method(mask, threads, start), target, source))
    method = _method(mask, threads, best)
    method.SetOptimizerAsRegularStepGradientDescent(
        2.0, 1e-3, 200, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0])
    method.SetMetricSamplingPercentagePerLevel(SAMPLES, SEED)
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.Execute(target, source)
    return _matrix(best)


def register_both(
    fixed: Image, moving: Image, fixed_mask: NDArray[np.bool_] | None = None, threads: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``rigid_transform``, and the way back, from RAS mm of ``moving`` to RAS mm of ``fixed``."""
    onward = rigid_transform(fixed, moving, fixed_mask, threads)
    return onward, np.asarray(np.linalg.inv(onward), np.float64)


def _to_sitk(image: Image) -> sitk.Image:
    """The scan at 2 mm; RAS coordinates stand in for ITK's LPS, which changes nothing for two scans alike."""
    volume, grid = conform(image, image.grid.along_scan)
    pads = [(missing // 2, missing - missing // 2) for missing in (max(0, LEAST_MM - n) for n in volume.shape)]
    scan = sitk.GetImageFromArray(np.ascontiguousarray(np.pad(volume, pads, mode="edge").T))
    u, _, vt = np.linalg.svd(grid.affine[:3, :3])  # the nearest rotation: ITK refuses sheared axes
    scan.SetDirection((u @ vt).reshape(-1).tolist())
    scan.SetOrigin((grid.affine @ [*(-before for before, _ in pads), 1])[:3].tolist())
    return sitk.BinShrink(scan, [min(2, size) for size in scan.GetSize()])


def _beginnings(target: sitk.Image, source: sitk.Image) -> list[sitk.Euler3DTransform]:
    """The headers' own positions, and one centre of mass over the other; both turn about the target's centre."""
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    centred = sitk.Euler3DTransform(sitk.CenteredTransformInitializer(target, source, sitk.Euler3DTransform(), moments))
    headers = sitk.Euler3DTransform()
    headers.SetCenter(centred.GetCenter())
    return [headers, centred]


def _misfit(method: sitk.ImageRegistrationMethod, target: sitk.Image, source: sitk.Image) -> float:
    """The metric where a method begins, the smaller the better; infinite where the scans lie apart."""
    try:
        return float(method.MetricEvaluate(target, source))
    except RuntimeError:
        return math.inf


def _method(mask: sitk.Image | None, threads: int, start: sitk.Euler3DTransform) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(threads)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR if mask is None else method.RANDOM)
    method.SetMetricSamplingPercentage(SAMPLES[1], SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(start, inPlace=True)
    if mask is not None:
        method.SetMetricFixedMask(mask)
    return method


def _matrix(transform: sitk.Euler3DTransform) -> NDArray[np.float64]:
    rotation = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = shift + centre - rotation @ centre
    return matrix
