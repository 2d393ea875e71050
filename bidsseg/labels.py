"""The anatomy: which tissues, sides and parcels exist, and the label schemes built from them.

A voxel's anatomy is three small numbers, the *factors* the network predicts:

- tissue: index into ``TISSUES`` (0 is background);
- side: 0 left, 1 right (meaningless for midline tissues);
- parcel: index into ``PARCELS``: the gyrus of cortex and white matter, the lobule of cerebellar cortex.

Every label scheme (regions, lobes, gyri) is a look-up from factors to codes, so the schemes cannot contradict each
other. Codes and names of regions are those of FreeSurferColorLUT, gyri those of BrainCOLOR (Klein & Tourville 2012).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scheme = Literal["regions", "lobes", "gyri"]
SCHEMES: tuple[Scheme, ...] = ("regions", "lobes", "gyri")

TISSUES = (
    "background",
    "cortex",
    "white-matter",
    "lateral-ventricle",
    "inferior-lateral-ventricle",
    "third-ventricle",
    "fourth-ventricle",
    "csf",
    "cerebellum-white-matter",
    "cerebellum-cortex",
    "thalamus",
    "caudate",
    "putamen",
    "pallidum",
    "hippocampus",
    "amygdala",
    "accumbens",
    "ventral-dc",
    "brainstem",
)
TISSUE = {name: index for index, name in enumerate(TISSUES)}
MIDLINE_TISSUES = ("background", "third-ventricle", "fourth-ventricle", "csf", "brainstem")
LOBAR_TISSUES = ("cortex", "white-matter")
FLUID = ("csf", "lateral-ventricle", "inferior-lateral-ventricle", "third-ventricle", "fourth-ventricle")
LEFT, RIGHT = 0, 1

LOBE_GROUP_OF_TISSUE = {
    "lateral-ventricle": "ventricles",
    "inferior-lateral-ventricle": "ventricles",
    "third-ventricle": "ventricles",
    "fourth-ventricle": "ventricles",
    "csf": "csf",
    "cerebellum-white-matter": "cerebellum",
    "cerebellum-cortex": "cerebellum",
    "thalamus": "deep-grey",
    "caudate": "deep-grey",
    "putamen": "deep-grey",
    "pallidum": "deep-grey",
    "accumbens": "deep-grey",
    "ventral-dc": "deep-grey",
    "hippocampus": "temporal",
    "amygdala": "temporal",
    "brainstem": "brainstem",
}


@dataclass(frozen=True)
class Gyrus:
    """One BrainCOLOR cortical label, both sides."""

    abbreviation: str
    name: str
    index_left: int
    index_right: int
    region_lobe: str
    lobe: str
    color: str


@dataclass(frozen=True)
class Label:
    """One row of a label table."""

    index: int
    name: str
    abbreviation: str
    color: str
    hemisphere: str
    mapping: str = ""


def _rows(table: str) -> list[dict[str, str]]:
    text = (files("bidsseg") / "tables" / table).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


@cache
def gyri() -> tuple[Gyrus, ...]:
    """The 49 cortical gyri, in the order of the network's parcel head."""
    return tuple(
        Gyrus(
            abbreviation=row["abbreviation"],
            name=row["name"],
            index_left=int(row["index_left"]),
            index_right=int(row["index_right"]),
            region_lobe=row["region_lobe"],
            lobe=row["lobe"],
            color=row["color"],
        )
        for row in _rows("gyri.tsv")
    )


Codes = NDArray[np.uint16]
"Labels of a scheme, 0 is background."
N_GYRI = 49
DEEP_TISSUES = (*("thalamus", "caudate", "putamen", "pallidum", "accumbens", "ventral-dc"), "hippocampus", "amygdala")
CSF = 24
"Code of cerebrospinal fluid outside the ventricles, in all schemes."
WHITE_MATTER_CODES = (2, 41)
"Codes of left and right cerebral white matter in the scheme of gyri."
FIRST_LOBAR_CODE = 1000
"Codes of regions that divide cortex and white matter by lobe begin here."
VERMIS_CODES = (71, 72, 73)  # BrainCOLOR: vermal lobules I-V, VI-VII, VIII-X
CEREBELLAR_HEMISPHERE = N_GYRI + len(VERMIS_CODES)
N_PARCELS = CEREBELLAR_HEMISPHERE + 1
UNKNOWN_PARCEL = 255


@cache
def lobe_parts() -> tuple[tuple[str, str], ...]:
    """The distinct (region lobe, lobe) pairs that gyri belong to: the finest division both schemes are unions of."""
    return tuple(dict.fromkeys((gyrus.region_lobe, gyrus.lobe) for gyrus in gyri()))


@cache
def part_of_gyrus() -> NDArray[np.uint8]:
    """Index into ``lobe_parts`` of each gyrus, shape (49,)."""
    parts = lobe_parts()
    return np.array([parts.index((gyrus.region_lobe, gyrus.lobe)) for gyrus in gyri()], np.uint8)


@cache
def first_gyri() -> NDArray[np.intp]:
    """The first gyrus of each of ``lobe_parts``, which stands for all of them where gyri do not matter."""
    return np.unique(part_of_gyrus(), return_index=True)[1]


@cache
def gyri_to_parts() -> NDArray[np.float32]:
    """Which gyri belong to which of ``lobe_parts``, (parts, 49) of 0 and 1: sums the gyri's probabilities."""
    return np.eye(len(lobe_parts()), dtype=np.float32)[:, part_of_gyrus()]


@cache
def label_table(scheme: Scheme) -> tuple[Label, ...]:
    """The labels of a scheme, sorted by index.

    Parameters
    ----------
    scheme : {"regions", "lobes", "gyri"}
        Which division of the brain.

    Returns
    -------
    tuple of Label
        Each with ``index``, the number in label images; ``name``; ``abbreviation``; ``color`` as #rrggbb;
        ``hemisphere``, L or R, empty on the midline; and ``mapping``, the lobe of a region or gyrus.

    Examples
    --------
    >>> import bidsseg
    >>> [label.index for label in bidsseg.label_table("regions") if label.name == "Left-Hippocampus"]
    [17]
    """
    if scheme == "gyri":
        return tuple(sorted((*_gyrus_labels(), *_structure_labels()), key=lambda label: label.index))
    return tuple(
        Label(
            int(row["index"]), row["name"], row["abbreviation"], row["color"], row["hemisphere"], row.get("lobe") or ""
        )
        for row in _rows(f"{scheme}.tsv")
    )


@cache
def structures_of(scheme: Scheme) -> dict[int, str]:
    """What each label of a scheme is a part of: a tissue or, for lobes, a lobe or another group."""
    if scheme == "lobes":
        return {int(row["index"]): row["group"] for row in _rows("lobes.tsv")}
    tissues = {int(row["index"]): row["tissue"] for row in _rows("regions.tsv")}
    if scheme == "gyri":
        tissues |= dict.fromkeys(VERMIS_CODES, "cerebellum-cortex") | dict.fromkeys(WHITE_MATTER_CODES, "white-matter")
        tissues |= {index: "cortex" for gyrus in gyri() for index in (gyrus.index_left, gyrus.index_right)}
    return tissues


@cache
def codes_in_lobe(tissue: str, lobe: str) -> tuple[int, ...]:
    """The codes of regions, left and right, that are this tissue in this lobe."""
    rows = (row for row in _rows("regions.tsv") if row["tissue"] == tissue and row["lobe"] == lobe)
    return tuple(int(row["index"]) for row in rows)


@cache
def grey_of_lobe() -> Codes:
    """By code of regions, the code of the cortex of the same lobe and side; 0 outside the lobes, shape (codes,)."""
    rows = [row for row in _rows("regions.tsv") if row["tissue"] in LOBAR_TISSUES]
    cortex = {(row["lobe"], row["hemisphere"]): int(row["index"]) for row in rows if row["tissue"] == "cortex"}
    found = np.zeros(max(int(row["index"]) for row in _rows("regions.tsv")) + 1, np.uint16)
    for row in rows:
        found[int(row["index"])] = cortex[row["lobe"], row["hemisphere"]]
    return found


def is_fluid(scheme: Scheme, index: int) -> bool:
    """Whether a label is a ventricle or other cerebrospinal fluid; raises ``KeyError`` for an unknown label."""
    return structures_of(scheme)[index] in (*FLUID, "ventricles")


def _gyrus_labels() -> list[Label]:
    labels = []
    for gyrus in gyri():
        for hemisphere, index in (("L", gyrus.index_left), ("R", gyrus.index_right)):
            side = "Left" if hemisphere == "L" else "Right"
            name = f"{side} {gyrus.abbreviation} {gyrus.name}"
            labels.append(
                Label(index, name, f"{hemisphere}.{gyrus.abbreviation}", gyrus.color, hemisphere, gyrus.region_lobe)
            )
    return labels


def _structure_labels() -> list[Label]:
    vermis = [
        Label(code, f"Cerebellar Vermal Lobules {lobules}", f"Ver{lobules}", color, "")
        for code, lobules, color in zip(
            VERMIS_CODES, ("I-V", "VI-VII", "VIII-X"), ("#b4641e", "#dc8c46", "#8c4614"), strict=True
        )
    ]
    white_matter = [
        Label(WHITE_MATTER_CODES[LEFT], "Left-Cerebral-White-Matter", "L.WM", "#f5f5f5", "L"),
        Label(WHITE_MATTER_CODES[RIGHT], "Right-Cerebral-White-Matter", "R.WM", "#f5f5f5", "R"),
    ]
    structures = [label for label in label_table("regions") if label.index < FIRST_LOBAR_CODE]
    return vermis + white_matter + structures


@cache
def code_lookup(scheme: Scheme) -> NDArray[np.uint16]:
    """Codes of a scheme by factors, shape (tissues, 2 sides, N_PARCELS); 0 is background."""
    lookup = np.zeros((len(TISSUES), 2, N_PARCELS), np.uint16)
    if scheme == "lobes":
        _fill_lobes(lookup)
        return lookup
    for row in _rows("regions.tsv"):
        sides = [LEFT, RIGHT] if row["hemisphere"] == "" else [LEFT if row["hemisphere"] == "L" else RIGHT]
        parcels = [p for p, gyrus in enumerate(gyri()) if row["lobe"] in ("", gyrus.region_lobe)]
        if row["lobe"] == "":
            parcels = list(range(N_PARCELS))
        lookup[np.ix_([TISSUE[row["tissue"]]], sides, parcels)] = int(row["index"])
    if scheme == "gyri":
        for side, code in enumerate(WHITE_MATTER_CODES):
            lookup[TISSUE["white-matter"], side] = code
        for parcel, gyrus in enumerate(gyri()):
            lookup[TISSUE["cortex"], :, parcel] = (gyrus.index_left, gyrus.index_right)
        for lobule, code in enumerate(VERMIS_CODES):
            lookup[TISSUE["cerebellum-cortex"], :, N_GYRI + lobule] = code
    return lookup


def _fill_lobes(lookup: NDArray[np.uint16]) -> None:
    code = {(row["group"], row["hemisphere"]): int(row["index"]) for row in _rows("lobes.tsv")}
    for side, hemisphere in ((LEFT, "L"), (RIGHT, "R")):
        for tissue, group in LOBE_GROUP_OF_TISSUE.items():
            lookup[TISSUE[tissue], side] = code[group, "" if tissue in MIDLINE_TISSUES else hemisphere]
        for tissue in LOBAR_TISSUES:
            for parcel, gyrus in enumerate(gyri()):
                lookup[TISSUE[tissue], side, parcel] = code[gyrus.lobe, hemisphere]


def encode(
    tissue: NDArray[np.uint8], side: NDArray[np.uint8], parcel: NDArray[np.uint8], scheme: Scheme
) -> NDArray[np.uint16]:
    """Codes of a scheme from factor volumes of one shape.

    Where the parcel is not known cortex becomes 0, and so does white matter but in the scheme of gyri, which has one
    label for all of it.
    """
    codes = np.zeros(tissue.shape, np.uint16)
    brain = tissue > 0  # a small part of most scans
    known = parcel[brain]
    known[known == UNKNOWN_PARCEL] = CEREBELLAR_HEMISPHERE
    codes[brain] = code_lookup(scheme)[tissue[brain], side[brain], known]
    return codes


@cache
def other_sides(scheme: Scheme) -> dict[int, int]:
    """The code of the same structure on the other side, for every code that has a side."""
    lookup = code_lookup(scheme)
    pairs = {(int(a), int(b)) for a, b in zip(lookup[:, LEFT].flat, lookup[:, RIGHT].flat, strict=True) if a != b}
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


@cache
def part_codes(scheme: Scheme) -> NDArray[np.uint16]:
    """Codes by (tissue, side, lobe part)."""
    return code_lookup(scheme)[:, :, first_gyri()]
