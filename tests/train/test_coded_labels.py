"""Label maps in the codes of others."""

import numpy as np
import pytest

from bidsseg.labels import LEFT, RIGHT, TISSUE, TISSUES, UNKNOWN_PARCEL, gyri
from bidsseg.train.coded_labels import anatomy_from_aseg, anatomy_from_braincolor

GYRUS = {gyrus.abbreviation: index for index, gyrus in enumerate(gyri())}


@pytest.mark.parametrize(
    ("code", "tissue", "side"),
    [
        (44, "white-matter", RIGHT),
        (45, "white-matter", LEFT),
        (4, "third-ventricle", 0),
        (35, "brainstem", 0),
        (23, "accumbens", RIGHT),
        (30, "accumbens", LEFT),
        (100, "cortex", RIGHT),
        (101, "cortex", LEFT),
        (69, "background", 0),
    ],
)
def test_braincolor_codes(code: int, tissue: str, side: int) -> None:
    codes = np.zeros((3, 3, 3), np.int16)
    codes[0, 0, 0], codes[2] = code, 44  # some sided tissue for others to be near
    found = anatomy_from_braincolor(codes)
    assert TISSUES[found.tissue[0, 0, 0]] == tissue
    assert found.side[0, 0, 0] == side


@pytest.mark.parametrize(("code", "tissue", "side"), [(2, "white-matter", LEFT), (43, "lateral-ventricle", RIGHT)])
def test_aseg_codes(code: int, tissue: str, side: int) -> None:
    found = anatomy_from_aseg(np.full((2, 2, 2), code, np.int16))
    assert (found.tissue == TISSUE[tissue]).all()
    assert (found.side == side).all()
    assert (found.parcel == UNKNOWN_PARCEL).all()


def test_white_matter_belongs_to_the_nearest_cortex_of_its_own_side() -> None:
    # along a row: left PrG, left white matter x3, right white matter, right STG
    codes = np.array([183, 45, 45, 45, 44, 200], np.int16).reshape(6, 1, 1)
    parcel = anatomy_from_braincolor(codes).parcel[:, 0, 0]
    assert parcel.tolist() == [GYRUS["PrG"]] * 4 + [GYRUS["STG"]] * 2


def test_vermis_takes_the_nearer_side() -> None:
    codes = np.array([39, 71, 71, 38], np.int16).reshape(4, 1, 1)
    found = anatomy_from_braincolor(codes)
    assert found.side[:, 0, 0].tolist() == [LEFT, LEFT, RIGHT, RIGHT]
    assert (found.tissue == TISSUE["cerebellum-cortex"]).all()
