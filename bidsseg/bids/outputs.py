"""Where a scan's results lie, what they were made with, and whether they are complete."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidsseg.authorship import is_ours
from bidsseg.bids.names import Scan, derivative_path, participant_folder
from bidsseg.files import read_json
from bidsseg.labels import SCHEMES, Scheme

FUSED = "fused"
"Ends desc- of what was made from several contrasts."
START_BYTES = 64 * 1024
"Of a scan: its header, and its first slices."

NEEDED_SCHEMES, NEEDED_SPACE = ("regions", "lobes"), "orig"
"Label images that lesions are placed in."


@dataclass(frozen=True)
class OutputSettings:
    """What the outputs of a scan depend on besides the scan: a scan made with another recipe is done again."""

    version: str
    "Of bidsseg."
    model: str
    weights_sha256: str
    bias_correction: bool = True
    schemes: tuple[Scheme, ...] = SCHEMES
    spaces: tuple[str, ...] = ("orig",)
    "Grids of the label images: orig (the scan's own) and 1mm."
    probseg: bool = False
    "Also the probability of every label."
    mirror: bool = False
    "Averaged with the answers to the mirror images."

    def metadata(self) -> dict[str, Any]:
        """For sidecars."""
        return {
            "SoftwareVersion": self.version,
            "Model": self.model,
            "WeightsSHA256": self.weights_sha256,
            "BiasFieldCorrection": self.bias_correction,
            "LabelSchemes": list(self.schemes),
            "OutputSpaces": list(self.spaces),
            "Probabilities": self.probseg,
            "MirrorAveraging": self.mirror,
        }


@dataclass(frozen=True)
class ScanOutputs:
    """A scan, where it comes from and where its derivatives go."""

    scan: Scan
    dataset: Path
    out: Path
    partners: tuple[Path, ...] = ()
    "Other contrasts whose probabilities are averaged with the scan's; its suffix then ends in ``FUSED``."

    @property
    def sources(self) -> tuple[Path, ...]:
        return (self.scan.path, *self.partners)

    @property
    def source_uri(self) -> str:
        """BIDS URI of the scan."""
        return self.source_uris[0]

    @property
    def source_uris(self) -> list[str]:
        """BIDS URIs of the scan, and of its partners."""
        return [f"bids:raw:{path.relative_to(self.dataset).as_posix()}" for path in self.sources]

    def source_state(self) -> dict[str, Any]:
        """What tells a scan, and its partners, from changed ones at the cost of a glance; raises ``OSError``.

        A mended header alone leaves the size as it is.
        """
        return {
            "SourceBytes": sum(path.stat().st_size for path in self.sources),
            "SourceStartSHA256": [_checksum_of_start(path) for path in self.sources],
        }

    def file(self, ending: str, **extra: str) -> Path:
        return derivative_path(self.out, self.scan, ending, **extra)

    @property
    def marker(self) -> Path:
        """The file that tells that the scan is complete."""
        return self.file("qc.json", desc=self.scan.suffix)

    def figure(self, scheme: str) -> Path:
        """The picture of a label scheme: OUT/sub-<label>/figures/<entities>_seg-<scheme>_desc-<suffix>_dseg.png."""
        name = self.file("dseg.png", seg=scheme, desc=self.scan.suffix).name
        return participant_folder(self.out, self.scan) / "figures" / name


def report_of(out: Path, subject: str) -> Path:
    """The page about a participant."""
    return out / f"sub-{subject}.html"


def _checksum_of_start(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(START_BYTES)).hexdigest()


def is_complete(place: ScanOutputs, recipe: OutputSettings) -> bool:
    """Whether all outputs of the scan are there, made with this recipe from the scan as it is now."""
    marker = read_json(place.marker)
    try:
        expected = {**recipe.metadata(), **place.source_state()}
        return all(marker[key] == value for key, value in expected.items()) and all_there(place.out, place.marker)
    except (OSError, KeyError, TypeError):
        return False


def all_there(out: Path, marker: Path) -> bool:
    """Whether all files that a marker lists are there."""
    names = read_json(marker).get("Outputs")
    files = listed(out, marker)
    return isinstance(names, list) and len(files) == len(names) and all(path.exists() for path in files)


def listed(out: Path, marker: Path) -> list[Path]:
    """The files that a marker lists, by their paths below OUT.

    Paths that lead out of the participant's folder, by dots or links, are left out, as anyone may have written them.
    """
    found = read_json(marker).get("Outputs")
    names = found if isinstance(found, list) else []
    own = out.resolve() / marker.relative_to(out).parts[0]
    paths = [out / name for name in names if isinstance(name, str) and "\0" not in name]
    return [path for path in paths if path.parent.resolve().is_relative_to(own)]


def remove_outputs(out: Path, marker: Path) -> bool:
    """Remove the files that a marker lists, and at last the marker; whether there was one.

    Images that somebody has changed since stay. A kill amid this leaves a marker of what is not complete, and the next
    run goes on.
    """
    for path in listed(out, marker):
        if path.is_file() and (not path.name.endswith(".nii.gz") or is_ours(path)):
            path.unlink()
    there = marker.exists()
    marker.unlink(missing_ok=True)
    return there


def label_image(place: ScanOutputs, scheme: str) -> Path:
    return place.file("dseg.nii.gz", space=NEEDED_SPACE, seg=scheme, desc=place.scan.suffix)


def lesion_marker(place: ScanOutputs) -> Path:
    """The file that tells what was found, and from what; written last."""
    return place.file("lesions.json", desc="lesionsummary")


def lesion_log(place: ScanOutputs) -> Path:
    return place.out / "logs" / f"{place.scan.stem}_desc-lesions_error.txt"


def lesion_figure(place: ScanOutputs) -> Path:
    """The picture of lesions coloured by zone."""
    return place.figure("regions").with_name(place.file("dseg.png", desc="lesions").name)


def changes_base(out: Path, subject: str) -> Path:
    """Folder and name, up to before ``_desc``, of what concerns all sessions."""
    return out / f"sub-{subject}" / f"sub-{subject}"


def changes_marker(out: Path, subject: str) -> Path:
    base = changes_base(out, subject)
    return base.with_name(f"{base.name}_desc-lesionchangesummary_lesions.json")
