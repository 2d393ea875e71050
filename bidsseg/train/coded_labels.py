"""Label maps in the codes of others, as tissue, side and parcel: BrainCOLOR (MICCAI 2012) and FreeSurfer's aseg."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.labels import (
    CEREBELLAR_HEMISPHERE,
    LEFT,
    N_GYRI,
    RIGHT,
    TISSUE,
    UNKNOWN_PARCEL,
    VERMIS_CODES,
    gyri,
)
from bidsseg.segmentation.anatomy import Anatomy

ASEG_SIDED = {
    "white-matter": (2, 41),
    "cortex": (3, 42),
    "lateral-ventricle": (4, 43),
    "inferior-lateral-ventricle": (5, 44),
    "cerebellum-white-matter": (7, 46),
    "cerebellum-cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "accumbens": (26, 58),
    "ventral-dc": (28, 60),
}
ASEG_MIDLINE = {"third-ventricle": (14,), "fourth-ventricle": (15,), "brainstem": (16,), "csf": (24, 72)}
BRAINCOLOR_SIDED = {
    "white-matter": (45, 44),
    "lateral-ventricle": (52, 51),
    "inferior-lateral-ventricle": (50, 49),
    "cerebellum-white-matter": (41, 40),
    "cerebellum-cortex": (39, 38),
    "thalamus": (60, 59),
    "caudate": (37, 36),
    "putamen": (58, 57),
    "pallidum": (56, 55),
    "hippocampus": (48, 47),
    "amygdala": (32, 31),
    "accumbens": (30, 23),
    "ventral-dc": (62, 61),
}
BRAINCOLOR_MIDLINE = {"third-ventricle": (4,), "fourth-ventricle": (11,), "brainstem": (35,), "csf": (46,)}
BRAINCOLOR_FIFTH_VENTRICLE = 15


def anatomy_from_braincolor(codes: NDArray[np.int16]) -> Anatomy:
    """BrainCOLOR codes of the MICCAI 2012 challenge -> factors; white matter takes the parcel of the nearest cortex."""
    tissue, side = _tissue_and_side(codes, BRAINCOLOR_SIDED, BRAINCOLOR_MIDLINE)
    parcel = np.full(codes.shape, UNKNOWN_PARCEL, np.uint8)
    for index, gyrus in enumerate(gyri()):
        for hemisphere, code in ((LEFT, gyrus.index_left), (RIGHT, gyrus.index_right)):
            here = codes == code
            tissue[here], side[here], parcel[here] = TISSUE["cortex"], hemisphere, index
    tissue[codes == BRAINCOLOR_FIFTH_VENTRICLE] = TISSUE["lateral-ventricle"]
    parcel[tissue == TISSUE["cerebellum-cortex"]] = CEREBELLAR_HEMISPHERE
    for lobule, code in enumerate(VERMIS_CODES):
        here = codes == code
        tissue[here], parcel[here] = TISSUE["cerebellum-cortex"], N_GYRI + lobule
    sided = np.isin(tissue, [TISSUE[name] for name in BRAINCOLOR_SIDED]) & (codes != BRAINCOLOR_FIFTH_VENTRICLE)
    sided &= ~np.isin(codes, VERMIS_CODES)
    unsided = np.isin(codes, (*VERMIS_CODES, BRAINCOLOR_FIFTH_VENTRICLE))
    side[unsided] = _nearest(side, sided)[unsided]
    return Anatomy(tissue, side, parcel_of_white_matter(tissue, side, parcel))


def anatomy_from_aseg(codes: NDArray[np.int16]) -> Anatomy:
    """FreeSurfer aseg codes -> factors, with no parcels but the cerebellum's (its vermis is unknown too)."""
    tissue, side = _tissue_and_side(codes, ASEG_SIDED, ASEG_MIDLINE)
    return Anatomy(tissue, side, np.full(codes.shape, UNKNOWN_PARCEL, np.uint8))


def parcel_of_white_matter(
    tissue: NDArray[np.uint8], side: NDArray[np.uint8], parcel: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Give white matter the parcel of the nearest cortex of its own hemisphere."""
    parcel = parcel.copy()
    for hemisphere in (LEFT, RIGHT):
        cortex = (tissue == TISSUE["cortex"]) & (side == hemisphere)
        white = (tissue == TISSUE["white-matter"]) & (side == hemisphere)
        if cortex.any():
            parcel[white] = _nearest(parcel, cortex)[white]
    return parcel


def _nearest(values: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    indices = ndimage.distance_transform_edt(~where, return_distances=False, return_indices=True)
    nearest: NDArray[np.uint8] = values[tuple(indices)]
    return nearest


def _tissue_and_side(
    codes: NDArray[np.int16], sided: Mapping[str, tuple[int, int]], midline: Mapping[str, tuple[int, ...]]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    size = int(codes.max()) + 1
    tissue_of, side_of = np.zeros(max(size, 1024), np.uint8), np.zeros(max(size, 1024), np.uint8)
    for name, (left, right) in sided.items():
        tissue_of[[left, right]], side_of[right] = TISSUE[name], RIGHT
    for name, members in midline.items():
        tissue_of[list(members)] = TISSUE[name]
    return tissue_of[codes], side_of[codes]
