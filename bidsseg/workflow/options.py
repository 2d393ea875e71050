"""The options of a run, as the user gave them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bidsseg.labels import Scheme


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
    lesion_threshold: float
    lesion_min_volume: float
    lesion_tolerance: float
    lesion_bands: tuple[float, ...]
    fill: bool
    fuse: bool
    probseg: bool
    mirror: bool
    bias_correction: bool
    model: str | None
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
    def workers(self) -> int:
        """Scans at once."""
        return max(1, self.nprocs // self.omp_nthreads)
