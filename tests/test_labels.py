import re

import numpy as np
import pytest

from bidsseg.labels import (
    LEFT,
    MIDLINE_TISSUES,
    N_GYRI,
    N_PARCELS,
    RIGHT,
    SCHEMES,
    TISSUE,
    TISSUES,
    UNKNOWN_PARCEL,
    Scheme,
    code_lookup,
    encode,
    gyri,
    label_table,
    part_of_gyrus,
)

GYRUS = {gyrus.abbreviation: index for index, gyrus in enumerate(gyri())}


def code(tissue: str, side: int, parcel: int, scheme: Scheme) -> int:
    one = [np.array([value], np.uint8) for value in (TISSUE[tissue], side, parcel)]
    return int(encode(one[0], one[1], one[2], scheme)[0])


@pytest.mark.parametrize(
    ("tissue", "side", "gyrus", "regions", "lobes", "gyri_code"),
    [
        ("cortex", LEFT, "PrG", 1301, 1301, 183),
        ("cortex", RIGHT, "PrG", 2301, 2301, 182),
        ("white-matter", LEFT, "STG", 3205, 1305, 2),
        ("white-matter", RIGHT, "STG", 4205, 2305, 41),
        ("cortex", LEFT, "ACgG", 1303, 1301, 101),
        ("cortex", RIGHT, "MCgG", 2303, 2301, 138),
        ("cortex", LEFT, "PCgG", 1303, 1306, 167),
        ("cortex", RIGHT, "AIns", 2307, 2307, 102),
        ("hippocampus", LEFT, "PrG", 17, 1305, 17),
        ("thalamus", RIGHT, "PrG", 49, 49, 49),
        ("inferior-lateral-ventricle", RIGHT, "PrG", 44, 43, 44),
        ("third-ventricle", RIGHT, "PrG", 14, 14, 14),
        ("brainstem", LEFT, "PrG", 16, 16, 16),
        ("background", LEFT, "PrG", 0, 0, 0),
    ],
)
def test_codes_of_one_voxel(tissue: str, side: int, gyrus: str, regions: int, lobes: int, gyri_code: int) -> None:
    found = tuple(code(tissue, side, GYRUS[gyrus], scheme) for scheme in ("regions", "lobes", "gyri"))
    assert found == (regions, lobes, gyri_code)


def test_vermis_is_cerebellar_cortex_with_lobules_of_its_own() -> None:
    assert code("cerebellum-cortex", LEFT, N_GYRI, "regions") == 8
    assert code("cerebellum-cortex", LEFT, N_GYRI, "gyri") == 71
    assert code("cerebellum-cortex", RIGHT, N_PARCELS - 1, "gyri") == 47


def test_cerebrum_without_a_known_parcel_has_no_lobe() -> None:
    assert code("cortex", LEFT, UNKNOWN_PARCEL, "regions") == 0
    assert code("putamen", LEFT, UNKNOWN_PARCEL, "regions") == 12


@pytest.mark.parametrize("scheme", SCHEMES)
def test_table_lists_just_the_codes_that_can_occur(scheme: Scheme) -> None:
    codes = set(np.unique(code_lookup(scheme)).tolist()) - {0}
    table = label_table(scheme)
    assert {label.index for label in table} == codes
    assert len({label.name for label in table}) == len({label.abbreviation for label in table}) == len(table)
    assert all(len(label.color) == 7 and label.color.startswith("#") for label in table)


@pytest.mark.parametrize("scheme", ["regions", "lobes"])
def test_a_colour_means_one_structure_on_both_sides(scheme: Scheme) -> None:
    """Gyri are too many for that."""
    both = re.compile("^(Left|Right)-|(?<=-)[lr]h-")
    structures = {(both.sub("", label.name), label.color) for label in label_table(scheme)}
    names, colors = zip(*structures, strict=True)
    assert len(structures) == len(set(names)) == len(set(colors))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_midline_tissues_are_the_same_on_both_sides(scheme: Scheme) -> None:
    lookup = code_lookup(scheme)
    for tissue in TISSUES:
        left, right = lookup[TISSUE[tissue], :, :N_GYRI]
        assert (left == right).all() == (tissue in MIDLINE_TISSUES), tissue


def test_49_gyri_fall_into_seven_parts() -> None:
    assert len(gyri()) == N_GYRI == 49
    assert len(set(part_of_gyrus().tolist())) == 7
