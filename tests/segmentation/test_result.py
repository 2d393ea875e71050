from pathlib import Path

import numpy as np
import pytest

from bidsseg.labels import LEFT, N_GYRI, RIGHT, TISSUE, TISSUES, gyri
from bidsseg.quality.assessment import quality
from bidsseg.segmentation.result import Segmentation, brain_mask, from_labels, labels
from bidsseg.segmentation.volumes import VOLUME_COLUMNS, volumes, write_volumes


def two_putamens_and_csf() -> Segmentation:
    """2x2x2 voxels of 2 mm: one left putamen, two right, one CSF, four background."""
    tissue, side = np.zeros(8, np.uint8), np.zeros(8, np.uint8)
    tissue[:4] = [TISSUE["putamen"]] * 3 + [TISSUE["csf"]]
    side[:4] = [LEFT, RIGHT, RIGHT, LEFT]
    confidence = np.array([0.5, 0.75, 1, 1, 0, 0, 0, 0], np.float16)
    parcel, affine = np.zeros((2, 2, 2), np.uint8), np.diag((2.0, 2.0, 2.0, 1.0))
    cube = (2, 2, 2)
    return Segmentation(
        tissue.reshape(cube), side.reshape(cube), parcel, confidence.reshape(cube), affine, has_gyri=False
    )


def test_volumes_are_voxels_times_the_voxel() -> None:
    rows = {row.label.index: row for row in volumes(two_putamens_and_csf(), "regions")}
    assert (rows[12].voxels, rows[12].fraction_of_intracranial) == (1, 0.25)
    assert rows[12].volume_mm3 == pytest.approx(8)
    assert (rows[51].voxels, rows[51].confidence) == (2, 0.875)
    assert rows[51].volume_mm3 == pytest.approx(16)
    assert rows[10].voxels == 0
    assert np.isnan(rows[10].confidence)
    assert len(rows) == 52


def test_lobes_add_up_to_the_regions() -> None:
    segmentation = two_putamens_and_csf()
    total = [sum(row.volume_mm3 for row in volumes(segmentation, scheme)) for scheme in ("regions", "lobes")]
    assert total == pytest.approx([32, 32])


def test_label_maps_give_the_segmentation_back() -> None:
    """For every anatomy: the maps of regions and lobes made from what was read are those that were read."""
    tissue, side, parcel = (part.astype(np.uint8) for part in np.indices((len(TISSUES), 2, N_GYRI)))
    every = Segmentation(tissue, side, parcel, np.zeros(tissue.shape, np.float16), np.eye(4), has_gyri=False)
    found = from_labels(labels(every, "regions"), labels(every, "lobes"), np.eye(4))
    for scheme in ("regions", "lobes"):
        assert np.array_equal(labels(found, scheme), labels(every, scheme))
    known = labels(every, "regions") > 0
    assert np.array_equal(found.tissue[known], tissue[known])


@pytest.mark.parametrize(
    ("region", "lobe", "shape"), [(1301, 0, (1, 1, 1)), (9999, 9999, (1, 1, 1)), (0, 0, (1, 1, 2))]
)
def test_label_maps_that_do_not_belong_together(region: int, lobe: int, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"don't go together|must have one shape"):
        from_labels(np.full((1, 1, 1), region, np.uint16), np.full(shape, lobe, np.uint16), np.eye(4))


def test_gyri_need_to_have_been_computed() -> None:
    with pytest.raises(ValueError, match="without gyri"):
        labels(two_putamens_and_csf(), "gyri")


def test_mask_holds_brain_and_csf() -> None:
    assert brain_mask(two_putamens_and_csf()).sum() == 4


def test_table_has_one_line_per_label_and_says_what_is_missing(tmp_path: Path) -> None:
    write_volumes(tmp_path / "volumes.tsv", two_putamens_and_csf(), ("regions", "lobes"))
    head, *lines = (tmp_path / "volumes.tsv").read_text().splitlines()
    assert head.split("\t") == list(VOLUME_COLUMNS)
    assert len(lines) == 52 + 19
    assert "regions\t12\tLeft-Putamen\tL\t1\t8.00\t0.250000\t0.5000\tn/a" in lines
    assert "regions\t16\tBrain-Stem\tn/a\t0\t0.00\t0.000000\tn/a\tn/a" in lines


def test_quality_of_lopsided_white_matter() -> None:
    tissue = np.full((4, 1, 1), TISSUE["white-matter"], np.uint8)
    side = np.array([LEFT, LEFT, LEFT, RIGHT], np.uint8).reshape(4, 1, 1)
    parcel = np.full((4, 1, 1), len(gyri()) - 1, np.uint8)
    confidence = np.full((4, 1, 1), 0.5, np.float16)
    found = quality(Segmentation(tissue, side, parcel, confidence, np.eye(4), has_gyri=True))
    assert found["CerebralAsymmetry"] == 0.5
    assert found["MeanConfidence"] == 0.5
    assert found["IntracranialVolumeMm3"] == pytest.approx(4)
