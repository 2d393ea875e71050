"""Jobs that the processes of a run pass to each other, as plain values. No torch here, so that a run starts quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from bidsseg.bids.contrasts import fused_outputs
from bidsseg.bids.names import parse_scan
from bidsseg.bids.outputs import OutputSettings, ScanOutputs
from bidsseg.lesions.options import LesionOptions


class Stage(str, Enum):
    """The steps of a workflow, by the names of their nodes.

    The last come first: a scan begun is finished before another begins, which keeps the work folder small.
    """

    OUTPUTS = "outputs"
    FUSION = "fusion"
    SEGMENTATION = "segmentation"
    BIAS = "n4"
    LESIONS = "lesions"
    SESSIONS = "sessions"


LAST_STAGES = (Stage.OUTPUTS, Stage.LESIONS, Stage.SESSIONS)
"With one of these a workflow has ended."


@dataclass(frozen=True)
class Job:
    """One scan to segment and how; plain values, so that it can travel between processes as a dict."""

    scan: str
    dataset: str
    out: str
    model: str
    "Name or folder."
    recipe: dict[str, Any]
    "Fields of ``OutputSettings``."
    device: str = "auto"
    threads: int = 1
    partners: Sequence[str] = ()
    "Scans of other contrasts of the session, to average probabilities with."
    others: Sequence[str] = ()
    "Scans of other sessions, to be segmented together with."
    low_memory: bool = False
    keep_answer: bool = False
    "Whether to keep the network's answer, to be fused with other contrasts."
    overwrite: bool = False
    "Whether to replace also what bidsseg did not write."
    stands: bool = False
    "An earlier run's answer, with others of these sessions, holds unless one that is to do gets a say in it."

    @property
    def outputs(self) -> ScanOutputs:
        others = tuple(map(Path, self.others))
        outputs = ScanOutputs(parse_scan(Path(self.scan)), Path(self.dataset), Path(self.out), others=others)
        return fused_outputs(outputs, [Path(path) for path in self.partners]) if self.partners else outputs

    @property
    def sources(self) -> tuple[str, ...]:
        """The scan, and its partners."""
        return (self.scan, *self.partners)

    def alone(self, scan: str) -> Job:
        """The job of one of the sources by itself, whose answer is kept."""
        return replace(self, scan=scan, partners=(), others=(), keep_answer=True, stands=False)

    @property
    def stamp(self) -> list[int]:
        """Size and time of the scan, which tell whether it has changed; empty where it is not there."""
        path = Path(self.scan)
        state = path.stat() if path.exists() else None
        return [state.st_size, state.st_mtime_ns] if state else []

    @property
    def finds_lesions(self) -> bool:
        return self.made_with().finds_lesions_in(self.outputs.scan)

    def made_with(self) -> OutputSettings:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in self.recipe.items()}
        return OutputSettings(**fields)


def job_for(outputs: ScanOutputs, recipe: OutputSettings, model: str, **how: Any) -> Job:
    """``how`` are the remaining fields of the job."""
    paths = str(outputs.scan.path), str(outputs.dataset), str(outputs.out)
    partners, others = ([str(path) for path in together] for together in (outputs.partners, outputs.others))
    return Job(*paths, model, asdict(recipe), partners=partners, others=others, **how)


@dataclass(frozen=True)
class SessionsJob:
    """One participant's scans of one contrast in several sessions, to be segmented together; plain values."""

    jobs: tuple[dict[str, Any], ...]
    "Fields of the ``Job`` of each scan."

    @property
    def each(self) -> tuple[Job, ...]:
        return tuple(Job(**fields) for fields in self.jobs)

    @property
    def name(self) -> str:
        """Of the participant and the contrast."""
        scan = self.each[0].outputs.scan
        return "_".join([*(f"{key}-{value}" for key, value in scan.entities if key != "ses"), scan.suffix])


@dataclass(frozen=True)
class LesionJob:
    """One participant's scans and masks; plain values, so that it can travel between processes as a dict."""

    dataset: str
    out: str
    version: str
    "Version of bidsseg."
    scans: tuple[str, ...]
    "In the order of their sessions."
    masks: tuple[str, ...]
    "One for each scan."
    mask_uris: tuple[str, ...]
    "BIDS URIs of the masks."
    options: dict[str, Any]
    "Fields of ``LesionOptions``."
    fill: bool = False
    "Also the scans with their lesions filled."
    beside: tuple[tuple[str, ...], ...] = ()
    "For each scan, the others of its session, which the same lesions are filled in."
    threads: int = 1
    overwrite: bool = False
    "Whether to replace also what bidsseg did not write."

    @property
    def all_outputs(self) -> tuple[ScanOutputs, ...]:
        return tuple(map(self._outputs, self.scans))

    def _outputs(self, scan: str) -> ScanOutputs:
        return ScanOutputs(parse_scan(Path(scan)), Path(self.dataset), Path(self.out))

    def filled_beside(self, outputs: ScanOutputs) -> tuple[ScanOutputs, ...]:
        """The other scans that the lesions of this one are filled in; none without ``fill``."""
        beside = dict(zip(self.scans, self.beside, strict=False)) if self.fill else {}
        return tuple(map(self._outputs, beside.get(str(outputs.scan.path), ())))

    @property
    def subject(self) -> str:
        return self.all_outputs[0].scan.subject

    @property
    def made_with(self) -> LesionOptions:
        bands = tuple(self.options["bands_mm"])
        return LesionOptions(**{**self.options, "bands_mm": bands})
