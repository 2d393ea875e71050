"""Finds lesion masks in BIDS derivatives and the scan each belongs to, by names and, where needed, by grids.

A session gets one pair of scan and mask, so that its lesions are counted once. What decides, in this order:

1. a mask whose name holds another value of an entity than the scan's (``run-1`` and ``run-2``) is not the scan's;
2. the mask's name names the scan's kind (``space-FLAIR``), or ``space-orig``;
3. mask and scan have the same grid;
4. more entities in common;
5. FLAIR before T2w, PDw, T1w, and the rest.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bidsseg.bids.names import Scan, entities_in
from bidsseg.errors import UserError
from bidsseg.imaging.image import is_same_grid, read_geometry

MASK_PATTERNS = (
    "*_label-lesion_mask.nii*",
    "*_label-lesion_roi.nii*",
    "*_desc-lesion_mask.nii*",
    "*_label-lesion_dseg.nii*",
    "*_label-lesion_probseg.nii*",
    "*space-*seg-lst.nii*",
)
"File names of lesion masks in BIDS derivatives, best first; the last one is what LST-AI writes."
NOT_MASKS = ("desc-annotated", "space-mni")
"Parts of names (lower case) of files that match but hold zones, or lie in a template's space."
PREFERRED = ("FLAIR", "T2w", "PDw", "T1w")
NAMED, OWN_SPACE, OTHERS = 2, 1, 0
"How well a mask's name fits a scan's kind."


@dataclass(frozen=True)
class MaskSearch:
    """Where masks are looked for."""

    derivatives: tuple[Path, ...]
    "Derivatives folders, or folders that hold several; the first with a mask for the session counts."
    pattern: str | None = None
    "File name pattern (fnmatch) in place of ``MASK_PATTERNS``."
    ignored: Path | None = None
    "A folder whose files are no masks: that of our own results."


def find_masks(search: MaskSearch, subject: str, session: str | None) -> list[Path]:
    """The lesion masks of a subject's session, none if there are none.

    Looked for in ``sub-<subject>[/ses-<session>]`` of each folder itself and of the pipelines below it. ``subject`` and
    ``session`` are given without ``sub-`` and ``ses-``. All masks match one pattern, the best that any file matches.
    """
    for derivatives in search.derivatives:
        folders = [derivatives / f"sub-{subject}", *sorted(derivatives.glob(f"*/sub-{subject}"))]
        if search.ignored is not None:
            folders = [folder for folder in folders if not folder.is_relative_to(search.ignored)]
        for name in (search.pattern,) if search.pattern else MASK_PATTERNS:
            files = [path for folder in folders for path in sorted(_below(folder, name))]
            masks = [path for path in files if _is_of_session(path, derivatives, session)]
            if not search.pattern:
                masks = [path for path in masks if not any(part in path.name.lower() for part in NOT_MASKS)]
            if masks:
                return masks
    return []


def _below(folder: Path, name: str) -> Iterator[Path]:
    """Files of a name pattern, also behind links to folders, without hidden ones."""
    entered = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(here)
        if place in entered:  # a link that leads back
            folders.clear()
            continue
        entered.add(place)
        yield from (Path(here, file) for file in fnmatch.filter(files, name) if not file.startswith("."))


def _is_of_session(path: Path, derivatives: Path, session: str | None) -> bool:
    named = set(re.findall(r"(?:^|[/_])ses-([a-zA-Z0-9]+)", path.relative_to(derivatives).as_posix()))
    return named == ({session} if session else set())


def choose(scans: Sequence[Scan], masks: Sequence[Path]) -> tuple[Scan, Path] | None:
    """The scan of a session, and the mask, that belong together; None where no mask is of any of the scans.

    Raises ``UserError``, which names them, where several masks fit a scan equally well.
    """
    fits = {(scan.path, mask): _fit(scan, mask) for scan in scans for mask in masks if not _differ(scan, mask)}
    if not fits:
        return None
    if len({fit[0] for fit in fits.values()}) < len(fits):  # names don't tell
        same = {pair: _have_same_grid(*pair) for pair in fits}
    else:
        same = dict.fromkeys(fits, False)
    best = max((fit[0], same[pair], *fit[1:]) for pair, fit in fits.items())
    pairs = [pair for pair, fit in fits.items() if (fit[0], same[pair], *fit[1:]) == best]
    chosen = next(scan for scan in scans if scan.path == pairs[0][0])
    rivals = [mask for path, mask in pairs if path == chosen.path]
    if len(rivals) > 1:
        names = ", ".join(mask.name for mask in rivals[:4])
        raise UserError(f"{rivals[0].parent}: {len(rivals)} lesion masks ({names}); choose one with --lesion-pattern")
    return chosen, rivals[0]


def _differ(scan: Scan, mask: Path) -> bool:
    """Whether the mask's name has another value of one of the scan's entities."""
    named, own = entities_in(mask.name), dict(scan.entities)
    return any(own.get(key, value) != value for key, value in named.items())


def _fit(scan: Scan, mask: Path) -> tuple[int, int, int]:
    """How well a mask's name fits a scan, more is better."""
    name = mask.name.lower()
    kind = NAMED if scan.suffix.lower() in name else OWN_SPACE if "space-orig" in name else OTHERS
    common = len(set(entities_in(mask.name).items()) & set(scan.entities))
    rank = PREFERRED.index(scan.suffix) if scan.suffix in PREFERRED else len(PREFERRED)
    return kind, common, -rank


def _have_same_grid(scan: Path, mask: Path) -> bool:
    one, other = read_geometry(scan), read_geometry(mask)
    return one is not None and other is not None and is_same_grid(one, other)
