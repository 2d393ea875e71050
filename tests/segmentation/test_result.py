import numpy as np
import pytest

from bidsseg.labels import LEFT, N_GYRI, RIGHT, TISSUE, TISSUES
from bidsseg.segmentation.anatomy import Anatomy, from_labels
from bidsseg.segmentation.result import Segmentation


def two_putamens_and_csf() -> Segmentation:
    """2x2x2 voxels of 2 mm: one left putamen, two right, one CSF, four background."""
    tissue, side = np.zeros(8, np.uint8), np.zeros(8, np.uint8)
    tissue[:4] = [TISSUE["putamen"]] * 3 + [TISSUE["csf"]]
    side[:4] = [LEFT, RIGHT, RIGHT, LEFT]
    confidence = np.array([0.5, 0.75, 1, 1, 0, 0, 0, 0], np.float16)
    parcel, affine = np.zeros((2, 2, 2), np.uint8), np.diag((2.0, 2.0, 2.0, 1.0))
    cube = (2, 2, 2)
    return Segmentation(
        tissue.reshape(cube), side.reshape(cube), parcel, affine, has_gyri=False, confidence=confidence.reshape(cube)
    )


def test_label_maps_give_the_anatomy_back() -> None:
    """For every anatomy: the maps of regions and lobes made from what was read are those that were read."""
    tissue, side, parcel = (part.astype(np.uint8) for part in np.indices((len(TISSUES), 2, N_GYRI)))
    every = Anatomy(tissue, side, parcel)
    found = from_labels(every.labels("regions"), every.labels("lobes"), np.eye(4))
    for scheme in ("regions", "lobes"):
        assert np.array_equal(found.labels(scheme), every.labels(scheme))
    known = every.labels("regions") > 0
    assert np.array_equal(found.tissue[known], tissue[known])


@pytest.mark.parametrize(
    ("region", "lobe", "shape"), [(1301, 0, (1, 1, 1)), (9999, 9999, (1, 1, 1)), (0, 0, (1, 1, 2))]
)
def test_label_maps_that_do_not_belong_together(region: int, lobe: int, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"don't go together|must have one shape"):
        from_labels(np.full((1, 1, 1), region, np.uint16), np.full(shape, lobe, np.uint16), np.eye(4))


def test_gyri_need_to_have_been_computed() -> None:
    with pytest.raises(ValueError, match="without gyri"):
        two_putamens_and_csf().labels("gyri")


def test_mask_holds_brain_and_csf() -> None:
    assert two_putamens_and_csf().brain_mask.sum() == 4
