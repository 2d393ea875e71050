"""What the benchmark of one scan refuses; it measures nothing here."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "run.py"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["FLAIR", "acq-3D_FLAIR", "T1w"], "one scan per contrast is fused, and it has sub-1_FLAIR.nii.gz and sub-1_"),
        (["FLAIR"], "has no two scans"),
    ],
)
def test_a_session_to_fuse_has_one_scan_per_contrast(
    tmp_path: Path, names: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / f"sub-1_{name}.nii.gz").touch()
    monkeypatch.setattr(sys, "argv", ["run.py", "--fuse", str(tmp_path)])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_scans_to_fuse_are_known_by_their_contrast(tmp_path: Path) -> None:
    for name in ("sub-1_FLAIR", "sub-1_acq-3D_T1w"):
        (tmp_path / f"{name}.nii.gz").touch()
    found = runpy.run_path(str(SCRIPT))["one_scan_per_contrast"](str(tmp_path))
    assert {contrast: scan.name for contrast, scan in found.items()} == {
        "FLAIR": "sub-1_FLAIR.nii.gz",
        "T1w": "sub-1_acq-3D_T1w.nii.gz",
    }
