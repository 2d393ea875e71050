"""The options of a run, as the user gave them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bidsseg.bids.outputs import LESION_CONTRAST
from bidsseg.labels import Scheme

LesionSource = Literal["given", "found", "none"]
"""What lesions a session's are: those of a mask, or else those that the network found; the other way round; or those of
a mask alone."""


@dataclass(frozen=True)
class RunOptions:
    """What the user asked for; fields are the options."""

    bids_dir: Path
    out_dir: Path
    participant_label: tuple[str, ...]
    session_label: tuple[str, ...]
    modality: tuple[str, ...]
    bids_filter_file: Path | None
    bids_database_dir: Path | None
    skip_bids_validation: bool
    seg: tuple[Scheme, ...]
    output_spaces: tuple[str, ...]
    derivatives: tuple[Path, ...]
    lesion_pattern: str | None
    lesions: LesionSource
    lesion_threshold: float | None
    "None is the card's for found lesions, 0.5 for given masks."
    lesion_min_volume: float
    lesion_tolerance: float
    lesion_bands: tuple[float, ...]
    fill: bool
    fuse: bool
    longitudinal: bool
    probseg: bool
    mirror: bool
    bias_correction: bool
    model: str | None
    group_by: str | None
    work_dir: Path | None
    nprocs: int
    omp_nthreads: int
    mem_gb: float | None
    low_mem: bool
    device: str
    use_plugin: Path | None
    overwrite: bool
    dry_run: bool
    reports_only: bool
    stop_on_first_crash: bool
    write_graph: bool
    resource_monitor: bool
    verbose: bool

    @property
    def finds_lesions(self) -> bool:
        """Whether the network looks for lesions."""
        return self.lesions != "none" and LESION_CONTRAST in self.modality

    @property
    def describes_lesions(self) -> bool:
        """Whether any lesions may be described, be they found or given."""
        return self.finds_lesions or bool(self.derivatives)

    @property
    def workers(self) -> int:
        """Scans at once."""
        return max(1, self.nprocs // self.omp_nthreads)
