"""Which sites of the McDonald criteria a part of a lesion touches, and its one zone.

Zones follow the 2017 McDonald criteria (Thompson et al. 2018, doi 10.1016/S1474-4422(17)30470-2):

- periventricular: cerebral lesions that abut the lateral ventricles (with their temporal horns, without third and
  fourth ventricle); what lies in deep grey matter does not count as touching;
- juxtacortical: cerebral lesions that abut or lie in the cerebral cortex;
- infratentorial: lesions of brainstem and cerebellum.

Confluent lesions are split into parts first (see ``parts``). A part abuts a wall with a share of its surface, not with
one voxel. Every zone a part touches is one of its *contacts*. Its one *zone* comes from these rules, in this order:

1. Where most of its volume lies (plurality): brainstem and cerebellum: infratentorial; thalamus, basal ganglia and
   ventral diencephalon: deep-grey; cerebrum: rule 2; nothing of these: outside.
2. In the cerebrum: the structure it abuts, ventricles or cortex; where it abuts both, the one that most of its volume
   is nearer to; where it abuts neither, deep-white-matter.

A whole lesion has the zone that most of its volume has by its parts, and the contacts of all of them. Ventricles and
cortex are not judged alike: around ventricles raters leave out a bright rim that is normal, so that lesions there end
1-2 mm before the wall, while folds of the cortex are near wherever white matter is thin.

``benchmarks/lesion_zones.py --study`` chose the numbers on half of 37 patients with masks and tests them on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.labels import LOBE_GROUP_OF_TISSUE, TISSUE, TISSUES
from bidsseg.lesions.components import Reals
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
    """The isotropic voxels of one part of a lesion, shape (N,)."""

    points_mm: Reals
    ventricle_mm: Reals
    "Gap to the ventricles."
    cortex_mm: Reals
    "Gap to the cortex."
    cerebral: NDArray[np.bool_]
    "Neither deep grey matter nor brainstem nor cerebellum."
    surface: NDArray[np.bool_]
    "With a face that something else than this part lies beyond."
    compartments_mm3: Reals
    "Volume of the part in nothing, hindbrain, deep grey matter and cerebrum, (4,)."

    def shares_at_walls(self, options: LesionOptions) -> tuple[float, float]:
        """Shares of the surface, in the cerebrum, that are at the ventricles and at the cortex."""
        walls = ((self.ventricle_mm, options.tolerance_mm), (self.cortex_mm, options.cortex_tolerance_mm))
        at_wall = [float((self.surface & self.cerebral & (gap <= tolerance)).sum()) for gap, tolerance in walls]
        return at_wall[0] / float(self.surface.sum()), at_wall[1] / float(self.surface.sum())


def zone_of(cubes: Cubes, options: LesionOptions) -> tuple[tuple[str, ...], str]:
    """Contacts and zone of a part.

    A part is in contact with hindbrain or deep grey matter where a tenth of it, or as much as a lesion has at least,
    lies there.
    """
    compartments = cubes.compartments_mm3
    ventricle, cortex = cubes.shares_at_walls(options)
    abuts = (ventricle >= options.ventricle_share, cortex >= options.cortex_share)
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
        nearer = np.sign(cubes.cortex_mm - cubes.ventricle_mm)[cubes.cerebral].sum()
        return contacts, PERIVENTRICULAR if nearer >= 0 else JUXTACORTICAL
    return contacts, PERIVENTRICULAR if abuts[0] else JUXTACORTICAL


def zone_by_voxel(
    tissue: NDArray[np.integer[Any]], ventricle_mm: Reals, cortex_mm: Reals, near_mm: float
) -> NDArray[np.intp]:
    """Places in ``ZONES`` of single voxels by their tissue and their gaps to the walls, all (M,).

    Hindbrain and deep grey matter are zones of their own; all else is at the nearer wall within ``near_mm``, and beyond
    that deep white matter, or outside where it is no brain.
    """
    compartment = COMPARTMENT[tissue]
    ventricle, cortex = (np.nan_to_num(gap, nan=np.inf) for gap in (ventricle_mm, cortex_mm))
    near = np.minimum(ventricle, cortex) <= near_mm
    conditions = (compartment == 1, compartment == 2, near & (ventricle <= cortex), near, compartment == 3)
    zones = (INFRATENTORIAL, DEEP_GREY, PERIVENTRICULAR, JUXTACORTICAL, DEEP_WHITE)
    return np.select(conditions, [ZONES.index(zone) for zone in zones], ZONES.index(OUTSIDE))
