from pathlib import Path

import numpy as np
import pytest

from bidsseg.labels import Scheme
from bidsseg.segmentation.volumes import VOLUME_COLUMNS, write_volumes
from tests.segmentation.test_result import two_putamens_and_csf

SCHEMES: tuple[Scheme, ...] = ("regions", "lobes")


def test_volumes_are_voxels_times_the_voxel() -> None:
    rows = {row.label.index: row for row in two_putamens_and_csf().volumes("regions")}
    assert (rows[12].voxels, rows[12].fraction_of_intracranial) == (1, 0.25)
    assert rows[12].volume_mm3 == pytest.approx(8)
    assert (rows[51].voxels, rows[51].confidence) == (2, 0.875)
    assert rows[51].volume_mm3 == pytest.approx(16)
    assert rows[10].voxels == 0
    assert np.isnan(rows[10].confidence)
    assert len(rows) == 52


def test_a_table_of_pandas_says_the_same() -> None:
    segmentation = two_putamens_and_csf()
    frame = segmentation.volumes_frame("regions")
    assert list(frame.columns) == [name for name in VOLUME_COLUMNS if name in frame.columns]
    assert (frame.index.name, len(frame)) == ("index", 52)
    assert frame.loc[51].to_dict() == {
        "name": "Right-Putamen",
        "hemisphere": "R",
        "voxels": 2,
        "volume_mm3": pytest.approx(16),
        "fraction_of_intracranial": 0.5,
        "confidence": 0.875,
    }
    assert frame["hemisphere"].isna().sum() == sum(not row.label.hemisphere for row in segmentation.volumes("regions"))


def test_lobes_add_up_to_the_regions() -> None:
    segmentation = two_putamens_and_csf()
    total = [sum(row.volume_mm3 for row in segmentation.volumes(scheme)) for scheme in SCHEMES]
    assert total == pytest.approx([32, 32])


def test_table_has_one_line_per_label_and_says_what_is_missing(tmp_path: Path) -> None:
    segmentation = two_putamens_and_csf()
    write_volumes(tmp_path / "volumes.tsv", {scheme: segmentation.volumes(scheme) for scheme in SCHEMES})
    head, *lines = (tmp_path / "volumes.tsv").read_text().splitlines()
    assert head.split("\t") == list(VOLUME_COLUMNS)
    assert len(lines) == 52 + 19
    assert "regions\t12\tLeft-Putamen\tL\t1\t8.00\t0.250000\t0.5000\tn/a" in lines
    assert "regions\t16\tBrain-Stem\tn/a\t0\t0.00\t0.000000\tn/a\tn/a" in lines
