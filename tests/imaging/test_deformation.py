from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from bidsseg.authorship import is_ours
from bidsseg.imaging.deformation import Deformation, exponential, least_determinant, points_of, sampled
from bidsseg.imaging.transforms import resampled, write_transforms

GRID = np.diag((4.0, 4.0, 4.0, 1.0))
GRID[:3, 3] = (-40, -44, -30)
SHAPE = (20, 22, 18)
TURNED = np.array([[0.9, -0.2, 0.0, 5], [0.2, 1.1, 0.1, -8], [0.0, 0.0, 1.0, 12], [0, 0, 0, 1]])


def swirl(strength_mm: float) -> torch.Tensor:
    """A velocity around the middle that dies away towards the edges."""
    x, y, z = points_of(SHAPE, GRID).unbind(-1)
    falls = torch.exp(-(x**2 + y**2 + z**2) / (2 * 15**2)) * strength_mm / 15
    return torch.stack((-y * falls, x * falls, 0.5 * x * falls))


@pytest.fixture
def deformation() -> Deformation:
    return Deformation(TURNED, swirl(12), GRID)


def test_a_constant_velocity_shifts_by_itself() -> None:
    shift = torch.tensor((3.0, -2.0, 1.0))[:, None, None, None].expand(3, *SHAPE)
    assert torch.allclose(exponential(shift, GRID), shift, atol=1e-4)


def test_a_growing_velocity_grows_exponentially() -> None:
    """v = x / 10 along x: after one unit of time a point lies at x times the tenth root of e."""
    x = points_of(SHAPE, GRID)[..., 0]
    velocity = torch.stack((x / 10, torch.zeros_like(x), torch.zeros_like(x)))
    found = exponential(velocity, GRID)[0]
    inner = (slice(4, -4), slice(4, -4), slice(4, -4))
    assert torch.allclose((x + found)[inner], (x * np.exp(0.1))[inner], atol=0.05)


def test_there_and_back_is_where_it_began(deformation: Deformation) -> None:
    points = points_of((5, 5, 5), np.array([[8.0, 0, 0, -16], [0, 8, 0, -16], [0, 0, 8, -16], [0, 0, 0, 1]]))
    there = deformation.to_scan(points)
    assert float(torch.linalg.norm(there - points, dim=-1).max()) > 8
    assert torch.allclose(deformation.to_template(there), points, atol=0.6)


def test_nothing_folds(deformation: Deformation) -> None:
    assert 0 < deformation.least_jacobian() < 1


def test_a_scaling_has_its_volume_as_jacobian() -> None:
    halved = Deformation(np.diag((0.5, 1.0, 1.0, 1.0)), torch.zeros(3, *SHAPE), GRID)
    assert halved.least_jacobian() == pytest.approx(0.5)


def test_a_fold_shows() -> None:
    """A displacement that goes back faster than the place goes on; no velocity leads to it, so it is measured alone."""

    displacement = torch.zeros(3, *SHAPE)
    displacement[0, 10:] = -6
    assert least_determinant(displacement, np.array((4.0, 4.0, 4.0))) == pytest.approx(-0.5)


def test_sampling_is_exact_at_voxels_and_linear_between() -> None:
    values = torch.arange(24.0).reshape(1, 2, 3, 4)
    affine = np.diag((2.0, 1.0, 1.0, 1.0))
    between = torch.tensor((1.0, 1.0, 2.0)).reshape(1, 1, 1, 3)
    assert torch.allclose(sampled(values, affine, points_of((2, 3, 4), affine)), values, atol=1e-5)
    assert float(sampled(values, affine, between)) == pytest.approx((values[0, 0, 1, 2] + values[0, 1, 1, 2]) / 2)


def test_itk_reads_both_ways_as_they_are(deformation: Deformation, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("there_xfm.h5", "back_xfm.h5")]
    write_transforms(paths[0], paths[1], deformation)
    lps = np.array((-1.0, -1.0, 1.0))
    points = points_of((3, 3, 3), np.array([[9.0, 0, 0, -9], [0, 9, 0, -9], [0, 0, 9, -9], [0, 0, 0, 1]]))
    expected = [way(points).reshape(-1, 3).numpy() for way in (deformation.to_scan, deformation.to_template)]
    for path, there in zip(paths, expected, strict=True):
        transform = sitk.ReadTransform(str(path))
        rows = points.reshape(-1, 3).double().numpy()
        found = [lps * transform.TransformPoint((lps * point).tolist()) for point in rows]
        assert np.allclose(found, there, atol=1e-3)
        assert is_ours(path)
        if (
            path == paths[0]
        ):  # an image that holds its own x, on a turned grid with thick slices, at the template's points
            grid = np.array([[0, -2, 0, 60], [1.5, 0, 0, -60], [0, 0, 5, -60], [0, 0, 0, 1.0]])
            x = points_of((80, 60, 30), grid)[..., 0].numpy()
            like = ((3, 3, 3), np.array([[9.0, 0, 0, -9], [0, 9, 0, -9], [0, 0, 9, -9], [0, 0, 0, 1]]))
            assert np.allclose(resampled(x, grid, path, like).reshape(-1), there[:, 0], atol=0.01)
        path.write_bytes(path.read_bytes()[:-20])
        assert not is_ours(path)
