"""Where lesions lie how often: the share of participants with a lesion in each voxel of the template.

Each participant counts once, with the earliest session that has a mask. So a map is a share of people, whether they
came once or ten times, and those who were followed for longer do not show more lesions for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidsseg import __version__
from bidsseg.authorship import is_ours, refuse_to_replace
from bidsseg.bids.outputs import (
    finished_scans,
    lesion_frequency_files,
    lesion_frequency_map,
    participants,
    sidecar_of,
)
from bidsseg.bids.participant_groups import ALL, Groups
from bidsseg.bids.session_order import in_time
from bidsseg.errors import FileError, UserError, some_of
from bidsseg.files import write_json
from bidsseg.imaging.image import in_mni, is_same_grid, load, save
from bidsseg.segmentation.template_labels import template
from bidsseg.spaces import TEMPLATE

DESCRIPTION = "Share of participants with a lesion in each voxel of the template."
HOW = "One mask for each participant: that of the earliest session that has one."


@dataclass(frozen=True, eq=False)
class FrequencyMap:
    """In how many participants each voxel is lesion, among all or in a group."""

    path: Path
    group: Mapping[str, str]
    "The value of the column that makes the group; empty for all."
    counts: NDArray[np.uint32]
    "(I, J, K) on the template's grid."
    masks: list[Path] = field(default_factory=list)

    @property
    def title(self) -> str:
        return "; ".join(f"{column}: {value}" for column, value in self.group.items()) or "All participants"

    @property
    def participants(self) -> int:
        return len(self.masks)

    def add(self, lesion: NDArray[np.bool_], mask: Path) -> None:
        np.add(self.counts, lesion, out=self.counts)
        self.masks.append(mask)

    def write(self) -> None:
        """The image, and the JSON about it."""
        share = (self.counts / np.float32(self.participants)).astype(np.float32)
        affine = template().affine
        save(self.path, share, affine, in_mni(share, affine))
        out = self.path.parent
        about = {
            "Description": f"{DESCRIPTION} {HOW}",
            "Participants": self.participants,
            **({"Group": dict(self.group)} if self.group else {}),
            "Sources": [f"bids::{mask.relative_to(out).as_posix()}" for mask in self.masks],
            "SpatialReference": TEMPLATE,
            "SoftwareVersion": __version__,
        }
        write_json(sidecar_of(self.path), about)


def first_masks(out: Path) -> Iterator[tuple[str, Path]]:
    """Each participant with a mask of lesions in the template's space, and that of the earliest session with one."""
    for participant in participants(out):
        masks: dict[str, Path] = {}
        for scan in finished_scans(out, participant.subject):
            if scan.lesions.summary.exists() and scan.lesions_in_template.exists():
                masks.setdefault(scan.scan.session or "", scan.lesions_in_template)
        if masks:
            yield participant.folder.name, masks[in_time(out, participant.subject, masks)[0]]


def refuse_changed_maps(out: Path, groups: Groups) -> None:
    """Raise ``UserError`` where a map would replace what bidsseg did not write."""
    maps = [lesion_frequency_map(out, name) for name in (ALL, *groups.names.values())]
    refuse_to_replace(path for image in maps for path in (image, sidecar_of(image)))


def write_frequency_maps(out: Path, groups: Groups, problems: list[str]) -> list[FrequencyMap]:
    """Write the maps of all participants and of each group, and remove those of earlier runs; none without masks.

    Masks that cannot be read are added to the problems. Masks are read one by one: memory holds a volume for each map.
    """
    maps: dict[str, FrequencyMap] = {}
    ungrouped = []
    for participant, mask in first_masks(out):
        try:
            lesion = _lesion(mask)
        except UserError as error:
            problems.append(f"{participant}: not in the maps of lesions ({error})")
            continue
        _map_of(maps, "", groups, out).add(lesion, mask)
        if participant in groups.group_of:
            _map_of(maps, groups.group_of[participant], groups, out).add(lesion, mask)
        else:
            ungrouped.append(participant)
    if groups.column and ungrouped:
        problems.append(f"in no map by {groups.column}, as participants.tsv has no value: {some_of(ungrouped)}")
    found = [maps[value] for value in ("", *groups.values) if value in maps]
    for one in found:
        one.write()
    _remove_stale(out, {one.path for one in found})
    return found


def _lesion(mask: Path) -> NDArray[np.bool_]:
    image = load(mask, uniform_ok=True)
    if not is_same_grid(image.geometry, (template().tissue.shape, template().affine)):
        raise FileError(
            mask, f"does not lie on the grid of {TEMPLATE}", "remove it and run the participant level again"
        )
    lesion: NDArray[np.bool_] = image.data >= 0.5
    return lesion


def _map_of(maps: dict[str, FrequencyMap], value: str, groups: Groups, out: Path) -> FrequencyMap:
    """The map of a group, or of all for the empty value; a new one where it is the first of the group."""
    if value not in maps:
        name, group = (groups.names[value], {groups.column: value}) if value else (ALL, {})
        counts = np.zeros(template().tissue.shape, np.uint32)
        maps[value] = FrequencyMap(lesion_frequency_map(out, name), group, counts)
    return maps[value]


def _remove_stale(out: Path, kept: set[Path]) -> None:
    """Remove maps that this run did not write, where they are as bidsseg wrote them, and their sidecars."""
    for path in lesion_frequency_files(out):  # sidecars come last
        image = path.with_suffix(".nii.gz") if path.suffix == ".json" else path
        if image not in kept and (path == image or not image.exists()) and is_ours(path):
            path.unlink()
