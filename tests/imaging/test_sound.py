"""Grey values that no scanner measured."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grey import normalise
from bidsseg.imaging.sound import sound_values

Bools = NDArray[np.bool_]


def head(seed: int = 0) -> Floats:
    """Air of noise, and in it a cube of tissue."""
    rng = np.random.default_rng(seed)
    scan = np.abs(rng.normal(0, 5, (40, 40, 20)))
    scan[8:32, 8:32, 3:17] = rng.uniform(100, 900, (24, 24, 14))
    return np.rint(scan).astype(np.float32)


def turned(degrees: float, axis: tuple[int, int, int] = (0, 0, 1)) -> Bools:
    """What of the head's field of view is empty after it was turned about its middle."""
    shape = np.array(head().shape)
    places = np.indices(head().shape).reshape(3, -1) - (shape[:, None] - 1) / 2
    direction = np.array(axis) / np.linalg.norm(axis)
    before = Rotation.from_rotvec(np.radians(degrees) * direction).apply(places.T)
    return np.asarray((np.abs(before) > shape / 2).any(1).reshape(shape))


def saturated_brain() -> Floats:
    """A ball that touches all faces and fills most of two; two of three voxels of all have one value."""
    distance = np.linalg.norm(np.indices((24, 24, 12)) - np.array([11.5, 11.5, 5.5])[:, None, None, None], axis=0)
    return np.where(distance < 13.5, np.minimum(head()[8:32, 8:32, 4:16], 300), 0).astype(np.float32)


def touching_fat() -> Bools:
    """Two thirds of a face of the head's field of view, and what lies below."""
    fat = np.zeros(head().shape, bool)
    fat[35:, 5:35, 1:19] = True
    return fat


@pytest.mark.parametrize(
    "scan",
    [
        head(),
        np.where(head() > 90, head(), 0).astype(np.float32),  # stripped
        np.where(head() > 90, head() - 500, -500).astype(np.float32),  # its mean at 0
        head() * np.float32(1e-12),
        np.minimum(head(), 255),  # saturated
        np.pad(head()[8:32, 8:32], ((100, 100), (100, 100), (0, 0))),  # a little brain in much darkness
        np.full((9, 9, 9), 7, np.float32),
        np.pad(np.full((20, 20, 10), 7, np.float32), 10),  # without what is around it a single value is left
        np.where(head() > 190, head(), 100).astype(np.float32),  # stripped, and fluid is a tenth brighter than nothing
        saturated_brain(),
        np.where(touching_fat(), 900, head()).astype(np.float32),
        np.random.default_rng(2).choice(np.array([0, 1, 2], np.float32), (20, 20, 20), p=[0.2, 0.6, 0.2]),
        np.where(turned(15), 0, head() + 20).astype(np.float32),  # a scanner's own correction leaves its corners empty
    ],
)
def test_what_a_scanner_measures_stays(scan: Floats) -> None:
    found, warnings = sound_values(scan)
    np.testing.assert_array_equal(found, scan)
    assert not warnings


@pytest.mark.parametrize("share", [0.001, 0.01, 0.03, 0.05])
@pytest.mark.parametrize("limits", [(65535,), (-32768,), (-32768, 32767), (1e20,)])
def test_scattered_absurd_values_become_their_neighbours(share: float, limits: tuple[float, ...]) -> None:
    scan, rng = head(), np.random.default_rng(1)
    hit = rng.random(scan.shape) < share
    spoilt = np.where(hit, rng.choice(np.array(limits, np.float32), scan.shape), scan)
    found, warnings = sound_values(spoilt)
    np.testing.assert_array_equal(found[~hit], scan[~hit])
    assert found.min() >= 0
    assert found.max() <= scan.max()
    air = np.zeros_like(hit)
    air[:5] = hit[:5]
    assert found[air].max(initial=0) < 20
    assert "far beyond" in warnings[0]


def test_wrapped_negatives_become_dark() -> None:
    """-1 to -4 as unsigned 16 bits are 65535 to 65532."""
    scan = head()
    values = np.random.default_rng(0).integers(65532, 65536, scan.shape)
    found, _ = sound_values(np.where(scan == 0, values, scan).astype(np.float32))
    assert found[:7].max() < 20
    assert found.max() <= scan.max()


def test_a_marker_becomes_background() -> None:
    scan = head()
    scan[:7, :7] = 4095
    found, _ = sound_values(scan)
    assert found[:7, :7].max() < 30
    np.testing.assert_array_equal(found[7:], scan[7:])


def test_absurd_values_amid_an_even_background_are_no_reason_to_take_it_for_a_frame() -> None:
    scan = np.where(head() > 90, head(), 0).astype(np.float32)
    scan.reshape(-1)[::25] = -32768
    found, warnings = sound_values(scan)
    assert found.min() == 0
    assert len(warnings) == 1


@pytest.mark.parametrize("value", [-32768, -1000, -100, -3, 3, 450, 450.37, 900, 65535])
@pytest.mark.parametrize(
    "pads",
    [
        ((0, 0), (0, 2), (0, 0)),  # 5 % of the field of view
        ((0, 0), (60, 0), (0, 0)),  # 60 %
        ((0, 0), (3, 9), (0, 0)),
        ((3, 9), (0, 4), (0, 0)),
        ((6, 6), (6, 6), (2, 2)),
    ],
)
def test_frames_of_any_value_are_background(value: float, pads: tuple[tuple[int, int], ...]) -> None:
    """Air that touches a frame of its own value may go with it."""
    scan = head()
    framed = np.pad(scan, pads, constant_values=value)
    found, warnings = sound_values(framed)
    inside = tuple(slice(before, before + n) for (before, _), n in zip(pads, scan.shape, strict=True))
    np.testing.assert_array_equal(found[inside][scan > 90], scan[scan > 90])
    assert found[inside][scan <= 90].max() < 30
    outside = np.ones(framed.shape, bool)
    outside[inside] = False
    assert found.min() == min(0, value if value == -3 else 0)  # 3 of 900 less than air: background as it is
    assert (normalise(found)[outside] < 0.02).all()
    assert bool(warnings) == (value != -3)


@pytest.mark.parametrize("value", [-1000, 450, 900])
@pytest.mark.parametrize(
    ("degrees", "axis", "shift"),
    [(5, (0, 0, 1), 0), (20, (0, 0, 1), 0), (20, (0, 0, 1), 4), (10, (1, 1, 1), 0), (30, (1, 2, 3), 0)],
)
def test_slanted_frames_are_background(value: float, degrees: float, axis: tuple[int, int, int], shift: int) -> None:
    """As after a scan was turned, and shifted, onto another grid."""
    scan, empty = head(), turned(degrees, axis)
    empty = np.pad(empty, ((shift, 0), (0, 0), (0, 0)), constant_values=True)[: len(empty)]
    found, warnings = sound_values(np.where(empty, value, scan).astype(np.float32))
    assert found[empty].max() == 0
    np.testing.assert_array_equal(found[~empty], scan[~empty])
    assert len(warnings) == 1


def test_a_white_background_becomes_dark() -> None:
    scan = head()
    white = np.where(scan > 90, scan, scan.max())
    found, _ = sound_values(white)
    darker = (scan > 90) & (scan < scan.max())
    np.testing.assert_array_equal(found[darker], scan[darker])
    assert found[scan <= 90].max() == scan[scan > 90].min()


def test_a_white_background_that_was_turned_becomes_dark() -> None:
    """Its corners are empty."""
    scan, empty = head(), turned(15)
    tissue = scan > 90
    white = np.where(empty, 0, np.where(tissue, scan, 1000)).astype(np.float32)
    found, warnings = sound_values(white)
    assert found[~tissue].max() == 0
    np.testing.assert_array_equal(found[tissue & ~empty], scan[tissue & ~empty])
    assert len(warnings) == 1
