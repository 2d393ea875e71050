"""Which sites of the McDonald criteria a lesion touches, and its one zone.

Zones follow the 2017 McDonald criteria (Thompson et al. 2018, doi 10.1016/S1474-4422(17)30470-2):

- periventricular: cerebral lesions that abut the lateral ventricles (with their temporal horns, without third and
  fourth ventricle); the part of a lesion in deep grey matter does not count as touching;
- juxtacortical: cerebral lesions that abut or lie in the cerebral cortex;
- infratentorial: lesions of brainstem and cerebellum.

Every zone a lesion touches is one of its *contacts*. Its one *zone* comes from these rules, in this order:

1. Where most of its volume lies (plurality): brainstem and cerebellum: infratentorial; thalamus, basal ganglia and
   ventral diencephalon: deep-grey; cerebrum: rule 2; nothing of these: outside.
2. In the cerebrum: the structure it abuts, ventricles or cortex; where it abuts both, the one that most of its volume
   is nearer to; where it abuts neither, deep-white-matter.

So a confluent lesion that reaches the cortex, the thalamus or the midbrain with a small part stays what it mostly is.

What holds, by ``benchmarks/lesion_zones.py``: of 1,865 pairs of real lesions, one at the ventricles and one at the
cortex, taken as merged, rule 2 names the site of the larger in 87 % where that is the ventricles and in 98 % where it
is the cortex; so it leans to the cortex. The share of the wall abutted does so in 96 % and 6 %, ventricles first in
100 % and 0. On 28 masks on a template the periventricular zone has the largest volume (51 %, juxtacortical 42 %), as in
Pongratz et al. 2023 (doi 10.1016/j.nicl.2022.103311). Not so their other finding, that most lesions are subcortical:
with a tolerance of 1.5 mm, on a brain that is not the patients' own, 58 % are juxtacortical, 17 % in deep white matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bidsseg.labels import LOBE_GROUP_OF_TISSUE, TISSUE, TISSUES
from bidsseg.lesions.masks import Reals
from bidsseg.lesions.options import LesionOptions

PERIVENTRICULAR, JUXTACORTICAL, INFRATENTORIAL = "periventricular", "juxtacortical", "infratentorial"
DEEP_GREY, DEEP_WHITE, OUTSIDE = "deep-grey", "deep-white-matter", "outside"
MCDONALD_SITES = (PERIVENTRICULAR, JUXTACORTICAL, INFRATENTORIAL)
ZONES = (*MCDONALD_SITES, DEEP_GREY, DEEP_WHITE, OUTSIDE)


def tissues(*names: str) -> NDArray[np.intp]:
    """Indices of tissues by their names, shape (N,)."""
    return np.array([TISSUE[name] for name in names])


VENTRICLES = tissues("lateral-ventricle", "inferior-lateral-ventricle")
CORTEX = tissues("cortex")
WHITE_MATTER = TISSUE["white-matter"]
FLUID = tissues(
    "background", "csf", "lateral-ventricle", "inferior-lateral-ventricle", "third-ventricle", "fourth-ventricle"
)


def _compartment_of_tissue() -> NDArray[np.intp]:
    """0 none, 1 infratentorial, 2 deep grey, 3 cerebrum, by tissue; shape (tissues,)."""
    group = {"brainstem": 1, "cerebellum": 1, "deep-grey": 2, "temporal": 3}
    values = [group.get(LOBE_GROUP_OF_TISSUE.get(name, ""), 0) for name in TISSUES]
    for name in ("cortex", "white-matter", "lateral-ventricle", "inferior-lateral-ventricle"):
        values[TISSUE[name]] = 3
    values[TISSUE["fourth-ventricle"]] = 1
    return np.array(values)


COMPARTMENT = _compartment_of_tissue()


def is_any(tissue: NDArray[np.uint8], kinds: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which voxels have one of some tissues, (I, J, K)."""
    return np.asarray(np.isin(np.arange(len(TISSUES)), kinds)[tissue])


@dataclass(frozen=True, eq=False)
class Cubes:
    """The isotropic voxels of one lesion, shape (N,)."""

    points_mm: Reals
    ventricle_mm: Reals
    "Gap to the ventricles."
    cortex_mm: Reals
    "Gap to the cortex."
    cerebral: NDArray[np.bool_]
    "Neither deep grey matter nor brainstem nor cerebellum."


def zone_of(cubes: Cubes, compartments: Reals, options: LesionOptions) -> tuple[tuple[str, ...], str]:
    """Contacts and zone of a lesion; ``compartments`` is its volume in nothing, hindbrain, deep grey, cerebrum; (4,).

    A lesion is in contact with hindbrain or deep grey matter where a tenth of it, or as much as a lesion has at least,
    lies there.
    """
    gaps = [gap[cubes.cerebral] for gap in (cubes.ventricle_mm, cubes.cortex_mm)]
    abuts = [bool((gap <= options.tolerance_mm).any()) for gap in gaps]
    enough = min(0.1 * float(compartments.sum()), options.min_volume_mm3)
    has = [compartments[part] > 0 and enough <= compartments[part] for part in (1, 2)]
    named = zip((PERIVENTRICULAR, JUXTACORTICAL, INFRATENTORIAL, DEEP_GREY), (*abuts, *has), strict=True)
    contacts = tuple(name for name, touched in named if touched)
    if not compartments[1:].any():
        return contacts, OUTSIDE
    part = 1 + int(compartments[1:].argmax())
    if part < 3:
        return contacts, (INFRATENTORIAL, DEEP_GREY)[part - 1]
    if not any(abuts):
        return (*contacts, DEEP_WHITE), DEEP_WHITE
    if all(abuts):
        return contacts, PERIVENTRICULAR if np.sign(gaps[1] - gaps[0]).sum() >= 0 else JUXTACORTICAL
    return contacts, PERIVENTRICULAR if abuts[0] else JUXTACORTICAL
