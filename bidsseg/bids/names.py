"""Names of BIDS files: the entities of a scan, and what its derivatives are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ENTITY_ORDER = (
    *("sub", "ses", "sample", "task", "acq", "ce", "trc", "stain", "rec", "dir", "run", "mod", "echo", "flip", "inv"),
    *("mt", "part", "proc", "hemi", "space", "split", "chunk", "seg", "res", "den", "label", "desc"),
)
"As the BIDS schema orders them in file names."
DERIVATIVE_ENTITIES = frozenset({"space", "seg", "res", "den", "label", "desc"})
IMAGE_EXTENSIONS = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Scan:
    """One image of a BIDS dataset and the entities in its name."""

    path: Path
    entities: tuple[tuple[str, str], ...]
    "(short name, value) in the order of the file name, for instance (('sub', '01'), ('run', '2'))."
    suffix: str

    @property
    def subject(self) -> str:
        return dict(self.entities)["sub"]

    @property
    def session(self) -> str | None:
        return dict(self.entities).get("ses")

    @property
    def stem(self) -> str:
        """The file name without its extension."""
        return "_".join([*(f"{key}-{value}" for key, value in self.entities), self.suffix])


def parse_scan(path: Path) -> Scan:
    """Entities and suffix from a file name; raises ``ValueError`` saying what is wrong with it."""
    stem = path.name
    for extension in reversed(IMAGE_EXTENSIONS):
        stem = stem.removesuffix(extension)
    *pairs, suffix = stem.split("_")
    entities = []
    for pair in pairs:
        key, dash, value = pair.partition("-")
        if not dash or not value or key not in ENTITY_ORDER:
            raise ValueError(f"{pair!r} in its name is not a BIDS entity")
        if key in DERIVATIVE_ENTITIES:
            raise ValueError(f"{pair!r} in its name is for derivatives, not for raw scans")
        entities.append((key, value))
    keys = [key for key, _ in entities]
    if "sub" not in keys or len(set(keys)) < len(keys):
        raise ValueError("its name must contain sub-, and no entity twice")
    return Scan(path, tuple(entities), suffix)


def entities_in(name: str) -> dict[str, str]:
    """Entities in a file name of whatever kind, and whatever else it holds."""
    return dict(re.findall(r"(?:^|_)([a-z]+)-([a-zA-Z0-9]+)", name))


def derivative_name(scan: Scan, ending: str, **extra: str) -> str:
    """A derivative's file name: all entities of the scan, those of ``extra`` in BIDS order, and the ending.

    Raises ``ValueError`` for an entity that BIDS does not know or that the scan has already.
    """
    entities = dict(scan.entities)
    for key, value in extra.items():
        if key not in DERIVATIVE_ENTITIES or key in entities or not value.isalnum():
            raise ValueError(f"cannot add {key}-{value} to {scan.stem}")
        entities[key] = value
    ordered = sorted(entities.items(), key=lambda pair: ENTITY_ORDER.index(pair[0]))
    return "_".join([*(f"{key}-{value}" for key, value in ordered), ending])


def participant_folder(out: Path, scan: Scan) -> Path:
    return out / f"sub-{scan.subject}"


def derivative_path(out: Path, scan: Scan, ending: str, **extra: str) -> Path:
    """Where a derivative of a scan lies: OUT/sub-<label>[/ses-<label>]/anat/<name>."""
    folder = participant_folder(out, scan)
    if scan.session is not None:
        folder /= f"ses-{scan.session}"
    return folder / "anat" / derivative_name(scan, ending, **extra)
