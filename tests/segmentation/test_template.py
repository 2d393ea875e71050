from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from bidsseg.cli.demo import template as template_scan
from bidsseg.errors import UserError
from bidsseg.imaging.deformation import Deformation, points_of
from bidsseg.labels import TISSUE
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.segmentation.template import InTemplate, robust_affine, to_template
from bidsseg.segmentation.template_labels import template

BEND_MM = 4.0
SIDE = ((0.96, 0.05, -0.03), (-0.06, 1.05, 0.1), (0.02, -0.12, 0.92))


@cache
def other_head() -> tuple[Anatomy, np.ndarray]:
    """The template's labels sheared and bent into another head, and which of its voxels they are, (3, I, J, K)."""
    source = template()
    middle = (np.array(source.tissue.shape) - 1) / 2
    i, j, k = np.indices(source.tissue.shape, np.float32) - middle[:, None, None, None].astype(np.float32)
    bent = np.stack((i + BEND_MM * np.sin(j / 25), j, k + BEND_MM * np.cos(i / 30)))
    there = np.einsum("ab,bijk->aijk", np.array(SIDE, np.float32), bent) + middle[:, None, None, None]
    nearest = [np.clip(np.rint(axis), 0, n - 1).astype(int) for axis, n in zip(there, source.tissue.shape, strict=True)]
    parts = {name: getattr(source, name)[tuple(nearest)] for name in ("tissue", "side", "parcel")}
    return replace(source, **parts), there


def cut_below(head: Anatomy, slices: int) -> Anatomy:
    """The same where the field of view begins higher."""
    affine = head.affine.copy()
    affine[2, 3] += slices
    parts = {name: getattr(head, name)[..., slices:] for name in ("tissue", "side", "parcel")}
    return replace(head, affine=affine, **parts)


def lobes_dice(head: Anatomy, deformation: Deformation, slices: int) -> float:
    """Mean over all lobes above the lowest slices, from every third voxel along each axis."""
    some = (slice(None, None, 3), slice(None, None, 3), slice(slices, None, 3))
    points = points_of(template().tissue.shape, template().affine)[some]
    one = InTemplate(deformation.to_scan(points)).labels(head, "lobes")
    other = template().labels("lobes")[some]
    codes = np.unique(other[other > 0])
    return float(
        np.mean([2 * ((one == c) & (other == c)).sum() / sum((x == c).sum() for x in (one, other)) for c in codes])
    )


def test_the_template_is_symmetric_as_its_name_says() -> None:
    """Which its own documentation leaves open: the file's name says 09a symmetric, the text asymmetric."""
    scan = template_scan()
    assert np.array_equal(scan.data, scan.data[::-1])
    assert scan.data.shape == template().tissue.shape
    assert np.array_equal(scan.affine, template().affine)


def test_the_labels_lie_on_the_template() -> None:
    brain = template_scan().data > 0.2
    found = template().tissue > 0
    assert 2 * (brain & found).sum() / (brain.sum() + found.sum()) > 0.96
    assert set(np.unique(template().tissue)) == set(TISSUE.values())


def test_one_wrong_centre_does_not_move_the_affine() -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (40, 3))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = SIDE, (3, -5, 8)
    targets = points @ matrix[:3, :3].T + matrix[:3, 3]
    targets[7] += 40
    assert np.allclose(robust_affine(points, targets, np.ones(40)), matrix, atol=0.05)


@pytest.mark.parametrize("cut", [0, 50], ids=["whole", "cut below"])
def test_another_head_is_brought_to_the_template(cut: int) -> None:
    head = cut_below(other_head()[0], cut)
    deformation = to_template(head)
    straight = replace(deformation, velocity=torch.zeros_like(deformation.velocity))
    before, after = (lobes_dice(head, one, cut + 10) for one in (straight, deformation))
    assert deformation.least_jacobian() > 0
    assert after > max(0.9, before)


def test_points_go_where_the_head_was_bent_to() -> None:
    head, there = other_head()
    deformation = to_template(head)
    brain = np.argwhere(head.tissue > 0)[::5001]
    came_from = there[(slice(None), *brain.T)].T + template().affine[:3, 3]
    points = torch.from_numpy((brain + head.affine[:3, 3]).astype(np.float32))[None, None]
    found = deformation.to_template(points)[0, 0].numpy()
    assert np.median(np.linalg.norm(found - came_from, axis=1)) < 2


def test_an_image_of_the_template_itself_stays() -> None:
    scan = template_scan()
    deformation = to_template(template())
    every = (slice(None, None, 3),) * 3
    points = points_of(scan.data.shape, scan.affine)[every]
    found = InTemplate(deformation.to_scan(points)).scan(scan.data, scan.affine)
    assert np.abs(found - scan.data[every]).mean() < 0.01
    assert torch.allclose(deformation.to_scan(points), points, atol=0.5)


def test_a_scan_without_a_brain_is_refused() -> None:
    nothing = replace(template(), tissue=np.zeros_like(template().tissue))
    with pytest.raises(UserError, match="too little of the brain"):
        to_template(nothing)
