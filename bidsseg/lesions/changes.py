"""How lesions change from session to session: new, enlarged, shrunken, vanished, stable.

Sessions are registered to the first. Lesions are matched by overlap of their voxels on the 1 mm isotropic grid; lesions
without overlap are matched where the gap between them is small, so that a slice placed differently makes no new lesion.
Lesions that flow together or fall apart are judged together. Components below the minimum volume take part in the
matching, so that one that grows past the minimum is not new, but are not listed by themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from bidsseg.imaging.grid import Grid
from bidsseg.lesions.components import LesionComponents, Reals, apply, is_inside, look_up
from bidsseg.lesions.options import ROUNDED_DOWN
from bidsseg.lesions.records import Lesion
from bidsseg.lesions.tables import region_names, write_table

STATUSES = ("new", "enlarged", "stable", "shrunken", "vanished", "not-covered")
CHANGE_COLUMNS: dict[str, dict[str, Any]] = {
    "session_before": {"Description": "The earlier session"},
    "session_after": {"Description": "The later session"},
    "status": {
        "Description": "What became of the lesion",
        "Levels": {
            "new": "no lesion there before, not even one below the minimum volume",
            "enlarged": "larger by the least change",
            "stable": "changed by less than the least change",
            "shrunken": "smaller by the least change",
            "vanished": "no lesion there any more, not even one below the minimum volume",
            "not-covered": "most of it lies outside the other session's field of view",
        },
    },
    "lesions_before": {"Description": "Numbers of the lesions in the earlier session's table, separated by commas"},
    "lesions_after": {"Description": "Numbers of the lesions in the later session's table; several have fallen apart"},
    "volume_before_mm3": {
        "Description": "Their volume before, with that of components below the minimum volume in the same place",
        "Units": "mm^3",
    },
    "volume_after_mm3": {"Description": "The same, after", "Units": "mm^3"},
    "change_mm3": {"Description": "Volume after less volume before", "Units": "mm^3"},
    "change_fraction": {"Description": "The change over the volume before"},
    "centroid_x_mm": {"Description": "Centre, to the right, in the first session's coordinates", "Units": "mm"},
    "centroid_y_mm": {"Description": "Centre, anterior", "Units": "mm"},
    "centroid_z_mm": {"Description": "Centre, superior", "Units": "mm"},
    "zone": {"Description": "Zone of the largest of the lesions, in the later session where it is there"},
    "main_region": {"Description": "Main region of that lesion"},
}


@dataclass(frozen=True)
class ChangeOptions:
    """The smallest changes that count, and how far lesions may move."""

    min_change_fraction: float = 0.25
    "Smallest change, as a share of the volume before."
    min_change_mm3: float = 3.0
    "Smallest change in mm3: three voxels of the isotropic grid."
    tolerance_mm: float = 1.5
    "Lesions that don't overlap are the same where the gap between them is at most this."


@dataclass(frozen=True, eq=False)
class Session:
    """What following the lesions of one session needs of them."""

    name: str
    lesions: tuple[Lesion, ...]
    components: LesionComponents
    "Also those below the minimum volume; the first are the lesions."
    from_first: Reals
    "4x4, RAS mm of the first session to RAS mm of this one."


@dataclass(frozen=True)
class Change:
    """What became of one lesion, or of several that flowed together or fell apart; columns as in ``CHANGE_COLUMNS``."""

    session_before: str
    session_after: str
    status: str
    lesions_before: tuple[int, ...]
    lesions_after: tuple[int, ...]
    volume_before_mm3: float
    volume_after_mm3: float
    centroid_mm: tuple[float, float, float]
    zone: str
    main_region: int

    @property
    def change_mm3(self) -> float:
        return self.volume_after_mm3 - self.volume_before_mm3

    @property
    def change_fraction(self) -> float:
        return self.change_mm3 / self.volume_before_mm3 if self.volume_before_mm3 > 0 else float("nan")


def follow(sessions: Sequence[Session]) -> list[Change]:
    """What became of every lesion from each session to the next."""
    options = ChangeOptions()
    return [change for before, after in pairwise(sessions) for change in compare(before, after, options)]


def change_counts(changes: Sequence[Change]) -> dict[str, int]:
    """How many changes there are of each status, also of those that don't occur."""
    counts = Counter(change.status for change in changes)
    return {status: counts[status] for status in STATUSES}


@dataclass(frozen=True, eq=False)
class _Cloud:
    """The isotropic lesion voxels of one session, in the other's coordinates too."""

    component: NDArray[np.int32]
    own_mm: Reals
    other_mm: Reals
    "Where they are in the other session."
    covered: NDArray[np.bool_]
    "Whether at least half of each component lies in the other session's field of view."


def _cloud(components: LesionComponents, to_other: Reals, other_grid: Grid) -> _Cloud:
    indices = np.argwhere(components.isotropic > 0)
    component = components.isotropic[tuple(indices.T)]
    own = apply(components.grid.affine, indices)
    moved = apply(to_other, own)
    seen = is_inside(np.rint(apply(np.linalg.inv(other_grid.affine), moved)).astype(np.intp), other_grid.shape)
    n = len(components.volumes_mm3) + 1
    share = np.bincount(component, seen, n) / np.maximum(np.bincount(component, minlength=n), 1)
    return _Cloud(component, own, moved, share[1:] >= 0.5)


def compare(before: Session, after: Session, options: ChangeOptions) -> list[Change]:
    """What became of every lesion of ``before`` in ``after``, and which are new; by volume, largest first."""
    onward = after.from_first @ np.linalg.inv(before.from_first)
    earlier = _cloud(before.components, onward, after.components.grid)
    later = _cloud(after.components, np.linalg.inv(onward), before.components.grid)
    n, m = len(earlier.covered), len(later.covered)
    links = _links(before.components, earlier, later, options)
    graph = coo_array((np.ones(len(links)), (links[:, 0] - 1, links[:, 1] - 1 + n)), shape=(n + m, n + m))
    count, group = connected_components(graph, directed=False)
    members = [np.flatnonzero(group == number) for number in range(count)]
    changes = []
    for nodes in members:
        a, b = nodes[nodes < n] + 1, nodes[nodes >= n] - n + 1
        if not (_listed(a, before) or _listed(b, after)):
            continue
        covered = bool(np.concatenate((earlier.covered[a - 1], later.covered[b - 1])).any())
        changes.append(_change(before, after, a, b, covered, options))
    return sorted(changes, key=lambda change: -max(change.volume_before_mm3, change.volume_after_mm3))


def _links(before: LesionComponents, earlier: _Cloud, later: _Cloud, options: ChangeOptions) -> NDArray[np.int64]:
    """Pairs (earlier, later) of components that are the same lesion, (L, 2)."""
    indices = np.rint(apply(np.linalg.inv(before.grid.affine), later.other_mm)).astype(np.intp)
    met = look_up(before.isotropic, indices)
    links = np.unique(np.stack((met[met > 0], later.component[met > 0]), 1), axis=0).astype(np.int64)
    alone = [~np.isin(cloud.component, links[:, side]) for side, cloud in enumerate((earlier, later))]
    if not (alone[0].any() and alone[1].any()):
        return links
    distance, nearest = cKDTree(earlier.own_mm[alone[0]]).query(later.other_mm[alone[1]])
    close = distance - 1 <= options.tolerance_mm
    pairs = np.stack((earlier.component[alone[0]][nearest[close]], later.component[alone[1]][close]), 1)
    return np.concatenate((links, np.unique(pairs, axis=0).astype(np.int64)))


def _listed(numbers: NDArray[np.intp], session: Session) -> tuple[int, ...]:
    """Those components that are large enough to be lesions of the session's table."""
    return tuple(int(number) for number in numbers if number <= len(session.lesions))


def _change(
    before: Session, after: Session, a: NDArray[np.intp], b: NDArray[np.intp], covered: bool, options: ChangeOptions
) -> Change:
    volume_before = float(before.components.volumes_mm3[a - 1].sum())
    volume_after = float(after.components.volumes_mm3[b - 1].sum())
    listed_before, listed_after = _listed(a, before), _listed(b, after)
    session, number = (after, listed_after[0]) if listed_after else (before, listed_before[0])
    lesion = session.lesions[number - 1]
    x, y, z = apply(np.linalg.inv(session.from_first), np.array(lesion.centroid_mm))
    return Change(
        before.name,
        after.name,
        status_of(volume_before, volume_after, options) if covered else "not-covered",
        listed_before,
        listed_after,
        volume_before,
        volume_after,
        (float(x), float(y), float(z)),
        lesion.zone,
        lesion.main_region,
    )


def status_of(volume_before_mm3: float, volume_after_mm3: float, options: ChangeOptions) -> str:
    """new, vanished, or by how the volume changed: enlarged, shrunken or stable."""
    if volume_before_mm3 == 0:
        return "new"
    if volume_after_mm3 == 0:
        return "vanished"
    least = max(options.min_change_fraction * volume_before_mm3, options.min_change_mm3) * ROUNDED_DOWN
    change = volume_after_mm3 - volume_before_mm3
    return "enlarged" if change >= least else "shrunken" if -change >= least else "stable"


def write_changes(changes: Sequence[Change], path: Path) -> list[Path]:
    """Write a table of changes and its data dictionary; returns their paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_table(path, [_row(change) for change in changes], CHANGE_COLUMNS)


def _row(change: Change) -> dict[str, Any]:
    row = {field.name: getattr(change, field.name) for field in fields(change)}
    row |= dict(zip(("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"), change.centroid_mm, strict=True))
    row |= {name: ",".join(map(str, row[name])) for name in ("lesions_before", "lesions_after")}
    row["main_region"] = region_names()[change.main_region]
    return row | {"change_mm3": change.change_mm3, "change_fraction": change.change_fraction}
