"""Where results lie, and what they were made with.

The only module that spells the name of a file of results, or looks for one by a pattern.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bidsseg.bids.names import Scan, derivative_path, parse_scan, participant_folder
from bidsseg.bids.session_order import sessions_table
from bidsseg.labels import SCHEMES, Scheme
from bidsseg.spaces import TEMPLATE

FUSED = "fused"
"Ends desc- of what was made from several contrasts."
TOGETHER = "SegmentedWith"
"Key of the scans of other sessions, in sidecars."
START_BYTES = 64 * 1024
"Start of a scan: its header, and its first slices."

NEEDED_SCHEMES, NEEDED_SPACE = ("regions", "lobes"), "orig"
"Label images that lesions are placed in."
QUALITY = "_qc.json"
LESION_SUMMARY, LESION_IMAGE = "_desc-lesionsummary_lesions.json", "_desc-lesions_dseg.nii.gz"
ON_SCAN = "_space-orig"
"In the names of images of lesions, in a dataset."
ERROR = "_error.txt"
FIGURES = "figures"
FREQUENCY_MAP = f"group_space-{TEMPLATE}_label-lesion_desc-"
"Begins the names of maps of all participants."
LESION_CONTRAST = "FLAIR"
"Suffix of the scans that lesions are found in."


@dataclass(frozen=True)
class OutputSettings:
    """What the outputs of a scan depend on besides the scan: a scan made with another recipe is done again."""

    version: str
    "Version of bidsseg."
    model: str
    weights_sha256: str
    bias_correction: bool = True
    schemes: tuple[Scheme, ...] = SCHEMES
    spaces: tuple[str, ...] = ("orig",)
    "Of the label images: orig (the scan's own grid), 1mm, and that of a template."
    probseg: bool = False
    "Also the probability of every label."
    mirror: bool = False
    "Averaged with the answers to the mirror images."
    lesion_weights_sha256: str = ""
    "Of the network that finds lesions; empty where none are to be found."
    lesion_thresholds: tuple[float, float] = (0.5, 0.5)
    "Probability from which it calls a voxel lesion, in thick and in thin slices."
    lesion_load_errors: tuple[tuple[float, float], ...] = ()
    "Expected error of its loads, in thick and in thin slices: mL, and share of the load; empty where not known."

    def finds_lesions_in(self, scan: Scan) -> bool:
        """Lesions are found in FLAIR alone."""
        return bool(self.lesion_weights_sha256) and scan.suffix == LESION_CONTRAST

    def metadata_of(self, scan: Scan) -> dict[str, Any]:
        """All that the outputs of a scan depend on besides the scan."""
        return {**self.metadata(), **(self.lesion_metadata() if self.finds_lesions_in(scan) else {})}

    def lesion_metadata(self) -> dict[str, Any]:
        """For the sidecars of found lesions."""
        return {"LesionWeightsSHA256": self.lesion_weights_sha256, "LesionThresholds": list(self.lesion_thresholds)}

    @property
    def grids(self) -> tuple[str, ...]:
        """The spaces in the scan's own world."""
        return tuple(space for space in self.spaces if space != TEMPLATE)

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
class LesionOutputs:
    """The files about the lesions of one scan: those of a dataset, or those beside a scan."""

    base: Path
    "Folder and beginning of the names: OUT/sub-<label>[/ses-<label>]/anat/<entities>, without a suffix."
    space: str = ""
    "Added to the names of images."

    @property
    def summary(self) -> Path:
        """What was found, and from what; written last."""
        return self._named(LESION_SUMMARY)

    @property
    def table(self) -> Path:
        """One row for each lesion."""
        return self._named("_desc-lesions_lesions.tsv")

    @property
    def parts_table(self) -> Path:
        return self._named("_desc-lesionparts_lesions.tsv")

    @property
    def load_table(self) -> Path:
        return self._named("_desc-lesionload_lesions.tsv")

    @property
    def image(self) -> Path:
        """The number of the lesion of every voxel."""
        return self._named(f"{self.space}{LESION_IMAGE}")

    @property
    def parts_image(self) -> Path:
        return self._named(f"{self.space}_desc-lesionparts_dseg.nii.gz")

    @property
    def regions_image(self) -> Path:
        """The regions with the lesions painted over."""
        return self._named(f"{self.space}_seg-regions_desc-lesions_dseg.nii.gz")

    @property
    def picture(self) -> Path:
        """The lesions coloured by zone, where it lies beside the tables."""
        return self._named("_desc-lesions_dseg.png")

    @property
    def mask(self) -> Path:
        """Lesions that the network found, where their mask lies beside the tables."""
        return self._named("_label-lesion_mask.nii.gz")

    @property
    def probabilities(self) -> Path:
        """The probability of lesion, likewise."""
        return self._named("_label-lesion_probseg.nii.gz")

    @property
    def files(self) -> list[Path]:
        """All tables, then all images, each followed by the JSON about it."""
        found = (self.table, self.parts_table, self.load_table, self.image, self.parts_image, self.regions_image)
        return [path for file in found for path in (file, sidecar_of(file))]

    def _named(self, ending: str) -> Path:
        return self.base.with_name(self.base.name + ending)


@dataclass(frozen=True)
class TemplateOutputs:
    """The files of a scan by itself in the template's space."""

    base: Path
    "Folder and beginning of the names."

    @property
    def scan(self) -> Path:
        return self._named(f"space-{TEMPLATE}.nii.gz")

    @property
    def lesions(self) -> Path:
        return self._named(f"space-{TEMPLATE}_label-lesion_mask.nii.gz")

    @property
    def transforms(self) -> tuple[Path, Path]:
        """What resamples images of the scan onto the template's grid, and the reverse."""
        onward, back = (f"from-{a}_to-{b}_mode-image_xfm.h5" for a, b in (("orig", TEMPLATE), (TEMPLATE, "orig")))
        return self._named(onward), self._named(back)

    def labels(self, scheme: str) -> Path:
        return self._named(f"space-{TEMPLATE}_seg-{scheme}_dseg.nii.gz")

    def _named(self, ending: str) -> Path:
        return self.base.with_name(f"{self.base.name}_{ending}")


@dataclass(frozen=True)
class ScanOutputs:
    """A scan, where it comes from and where its derivatives go."""

    scan: Scan
    dataset: Path
    out: Path
    partners: tuple[Path, ...] = ()
    "Other contrasts whose probabilities are averaged with the scan's; its suffix then ends in ``FUSED``."
    others: tuple[Path, ...] = ()
    "The scans of other sessions that it is segmented together with."

    @property
    def sources(self) -> tuple[Path, ...]:
        return (self.scan.path, *self.partners, *self.others)

    @property
    def source_uri(self) -> str:
        """BIDS URI of the scan."""
        return self.source_uris[0]

    @property
    def source_uris(self) -> list[str]:
        """BIDS URIs of the scan, of its partners, and of the scans of other sessions."""
        return [self.uri_of(path) for path in self.sources]

    def together(self) -> dict[str, Any]:
        """For sidecars: the other sessions that had a part in the answer; nothing of a scan by itself."""
        return {TOGETHER: [self.uri_of(path) for path in self.others]} if self.others else {}

    def uri_of(self, path: Path) -> str:
        """BIDS URI of a source."""
        return f"bids:raw:{path.relative_to(self.dataset).as_posix()}"

    def source_state(self) -> dict[str, Any]:
        """Cheap fingerprint (size, hash of the first 64 KiB) used to detect changed inputs; raises ``OSError``.

        A mended header alone leaves the size as it is.
        """
        return {
            "SourceBytes": sum(path.stat().st_size for path in self.sources),
            "SourceStartSHA256": [_checksum_of_start(path) for path in self.sources],
            **self.together(),
        }

    def file(self, ending: str, **extra: str) -> Path:
        return derivative_path(self.out, self.scan, ending, **extra)

    @property
    def quality(self) -> Path:
        """The verdict and its measures; this file marks the scan as complete."""
        return self.file(QUALITY.lstrip("_"), desc=self.scan.suffix)

    @property
    def agreement(self) -> Path:
        """How far the contrasts of the session agree; written when all of them are complete."""
        return self.file("agreement.json", desc=self.scan.suffix)

    @property
    def anchor(self) -> str:
        """The anchor of the scan on the participant's page."""
        return self.quality.name.removesuffix(QUALITY)

    @property
    def volumes(self) -> Path:
        return self.file("volumes.tsv", desc=self.scan.suffix)

    def labels(self, scheme: str, space: str = "orig") -> Path:
        return self.file("dseg.nii.gz", seg=scheme, desc=self.scan.suffix, **space_entities(space))

    def probabilities(self, scheme: str, space: str = "orig") -> Path:
        """The probability of every label."""
        return self.file("probseg.nii.gz", seg=scheme, desc=self.scan.suffix, **space_entities(space))

    def brain_mask(self, space: str = "orig") -> Path:
        return self.file("mask.nii.gz", label="brain", desc=self.scan.suffix, **space_entities(space))

    @property
    def lesion_mask(self) -> Path:
        """The lesions that the network found."""
        return self.file("mask.nii.gz", label="lesion", desc=self.scan.suffix, **space_entities("orig"))

    @property
    def lesion_probabilities(self) -> Path:
        return self.file("probseg.nii.gz", label="lesion", desc=self.scan.suffix, **space_entities("orig"))

    @property
    def preprocessed(self) -> Path:
        """The scan itself at 1 mm; fused answers share that of the scan whose grid they lie on."""
        suffix = self.scan.suffix.removesuffix(FUSED)
        return self.file(f"{suffix}.nii.gz", desc="preproc", **space_entities("1mm"))

    @property
    def in_template(self) -> Path:
        """The scan itself on the template's grid."""
        return self.file(f"{self.scan.suffix.removesuffix(FUSED)}.nii.gz", desc="preproc", space=TEMPLATE)

    @property
    def transforms(self) -> tuple[Path, Path]:
        """What resamples images of the scan onto the template's grid, and the reverse."""
        ways, end = (("orig", TEMPLATE), (TEMPLATE, "orig")), f"mode-image_desc-{self.scan.suffix}_xfm.h5"
        onward, back = (self.file(f"from-{a}_to-{b}_{end}") for a, b in ways)
        return onward, back

    @property
    def lesions_in_template(self) -> Path:
        """The mask of all lesions on the template's grid."""
        return self.file("mask.nii.gz", space=TEMPLATE, label="lesion", desc=self.scan.suffix)

    @property
    def filled(self) -> Path:
        """The scan on its own grid, its lesions redrawn as white matter."""
        return self.file(f"{self.scan.suffix}.nii.gz", desc="filled", space="orig")

    def figure(self, scheme: str) -> Path:
        """The picture of a label scheme: OUT/sub-<label>/figures/<entities>_seg-<scheme>_desc-<suffix>_dseg.png."""
        return self._figures / self.file("dseg.png", seg=scheme, desc=self.scan.suffix).name

    @property
    def log(self) -> Path:
        """Why the scan failed."""
        return logs_of(self.out) / f"{self.scan.stem}{ERROR}"

    @property
    def lesions(self) -> LesionOutputs:
        summary = self.file(LESION_SUMMARY.rpartition("_")[2], desc="lesionsummary")
        return LesionOutputs(summary.with_name(summary.name.removesuffix(LESION_SUMMARY)), ON_SCAN)

    @property
    def lesion_figure(self) -> Path:
        """The picture of lesions coloured by zone."""
        return self._figures / self.lesions.picture.name

    @property
    def lesion_log(self) -> Path:
        """Why the scan's lesion mask could not be used."""
        return logs_of(self.out) / f"{self.scan.stem}_desc-lesions{ERROR}"

    @property
    def _figures(self) -> Path:
        return participant_folder(self.out, self.scan) / FIGURES


@dataclass(frozen=True)
class ParticipantOutputs:
    """Where a participant's results lie, and which are there."""

    out: Path
    subject: str
    "Without sub-."

    @property
    def folder(self) -> Path:
        return self.out / f"sub-{self.subject}"

    @property
    def report(self) -> Path:
        return self.out / f"sub-{self.subject}.html"

    @property
    def changes_table(self) -> Path:
        """What became of lesions from session to session."""
        return self.folder / f"sub-{self.subject}_desc-lesionchanges_lesions.tsv"

    @property
    def changes(self) -> Path:
        """Counts of these changes, and what they were found from; written last."""
        return self.folder / f"sub-{self.subject}_desc-lesionchangesummary_lesions.json"

    @property
    def volumes_over_time(self) -> Path:
        """The volumes of all sessions."""
        return self.folder / f"sub-{self.subject}_desc-sessions_volumes.tsv"

    def lesions(self) -> list[LesionOutputs]:
        """Of all scans whose lesions have been described."""
        found = sorted(self.folder.glob(f"**/*{LESION_SUMMARY}"))
        return [LesionOutputs(path.with_name(path.name.removesuffix(LESION_SUMMARY)), ON_SCAN) for path in found]

    def lesion_tables(self) -> list[Path]:
        """All tables of lesions, also those of other versions."""
        return sorted(self.folder.glob("**/*_lesions.tsv"))

    def pictures(self) -> list[Path]:
        return sorted((self.folder / FIGURES).glob("*.png"))

    def logs(self) -> dict[str, Path]:
        """The logs of what failed, by what they are about."""
        found = sorted(logs_of(self.out).glob(f"sub-{self.subject}_*{ERROR}"))
        return {path.name.removesuffix(ERROR): path for path in found}

    def reported(self) -> list[Path]:
        """The files whose change makes the participant's page out of date."""
        patterns = (f"**/anat/*{QUALITY}", "**/anat/*_agreement.json", "**/*_lesions.json")
        times = [path for path in (sessions_table(self.out, self.subject),) if path.exists()]
        results = (path for pattern in patterns for path in self.folder.glob(pattern))
        return [*results, *times, *self.logs().values()]


def participants(out: Path) -> list[ParticipantOutputs]:
    """Everyone of whom there are results."""
    folders = sorted(path.name for path in out.glob("sub-*") if path.is_dir())
    return [ParticipantOutputs(out, name.removeprefix("sub-")) for name in folders]


def finished_scans(out: Path, subject: str) -> Iterator[ScanOutputs]:
    """The scans of a participant that have been segmented, by session and name, from their results alone.

    ``scan.path`` is a name, and ``dataset`` the output folder, since names of results do not tell where the scan lies.
    """
    for path in sorted((out / f"sub-{subject}").glob(f"**/anat/sub-*{QUALITY}")):
        stem, _, suffix = path.name.removesuffix(QUALITY).rpartition("_desc-")
        try:
            found = ScanOutputs(parse_scan(Path(f"{stem}_{suffix}.nii.gz")), out, out)
        except ValueError:
            continue
        if found.quality == path:
            yield found


def lesion_frequency_map(out: Path, name: str) -> Path:
    """The share of participants, all or those of a group, with a lesion in each voxel of the template."""
    return out / f"{FREQUENCY_MAP}{name}_frequency.nii.gz"


def lesion_frequency_files(out: Path) -> list[Path]:
    """All such maps, and then the JSON files about them."""
    return [path for end in (".nii.gz", ".json") for path in sorted(out.glob(f"{FREQUENCY_MAP}*_frequency{end}"))]


def lesions_beside(scan: ScanOutputs) -> list[LesionOutputs]:
    """Of the scan's session, also where they were described on another scan: lesions of which there is an image."""
    ending = f"{ON_SCAN}{LESION_IMAGE}"
    found = sorted(scan.quality.parent.glob(f"sub-*{ending}"))
    return [LesionOutputs(path.with_name(path.name.removesuffix(ending)), ON_SCAN) for path in found]


def logs_of(out: Path) -> Path:
    return out / "logs"


def defect_log(out: Path) -> Path:
    """What nobody expected of a run as a whole."""
    return logs_of(out) / f"bidsseg{ERROR}"


def failure_beside(log: Path) -> Path:
    """The same failure as data."""
    return log.with_suffix(".json")


def methods_file(out: Path) -> Path:
    """The methods text of the last run."""
    return logs_of(out) / "CITATION.md"


def label_table_file(out: Path, scheme: str, kind: str = "") -> Path:
    """Names and colours of the labels of a scheme; of the images that end so, where a ``kind`` is given."""
    return out / f"seg-{scheme}{kind and f'_desc-{kind}'}_dseg.tsv"


def space_entities(space: str) -> dict[str, str]:
    """The entities of a grid: orig is the scan's own, 1mm that of the preprocessed scan; others are templates."""
    return {"space": space} if space != "1mm" else {"space": "individual", "res": "1mm"}


def sidecar_of(path: Path) -> Path:
    """The JSON about an image or a table."""
    return path.with_name(path.name.removesuffix(".gz").rpartition(".")[0] + ".json")


def _checksum_of_start(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(START_BYTES)).hexdigest()
