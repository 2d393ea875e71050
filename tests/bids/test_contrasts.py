"""Which scans of a session go together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bidsseg.bids.contrasts import all_fused_outputs
from bidsseg.bids.names import Scan
from bidsseg.bids.outputs import ScanOutputs


def all_outputs(out: Path, *names: str) -> list[ScanOutputs]:
    found = []
    for name in names:
        *pairs, suffix = name.split("_")
        entities = tuple((key, value) for key, value in (pair.split("-") for pair in pairs))
        found.append(ScanOutputs(Scan(out / "raw" / f"{name}.nii.gz", entities, suffix), out / "raw", out))
    return found


def test_contrasts_of_one_session_are_fused(tmp_path: Path) -> None:
    found = all_fused_outputs(
        all_outputs(tmp_path, "sub-1_ses-1_T1w", "sub-1_ses-1_FLAIR", "sub-1_ses-2_T1w", "sub-2_ses-1_T1w")
    )
    assert [(outputs.scan.stem, [p.name for p in outputs.partners]) for outputs in found] == [
        ("sub-1_ses-1_T1wfused", ["sub-1_ses-1_FLAIR.nii.gz"]),
        ("sub-1_ses-1_FLAIRfused", ["sub-1_ses-1_T1w.nii.gz"]),
    ]
    assert found[0].file("dseg.nii.gz", space="orig", seg="lobes", desc=found[0].scan.suffix).name == (
        "sub-1_ses-1_space-orig_seg-lobes_desc-T1wfused_dseg.nii.gz"
    )


def test_a_fused_place_is_another_than_the_scans_own(tmp_path: Path) -> None:
    [outputs, _] = all_outputs(tmp_path, "sub-1_T1w", "sub-1_FLAIR")
    assert replace(outputs, partners=(Path("x"),)) != outputs
