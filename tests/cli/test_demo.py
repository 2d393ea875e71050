from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bidsseg.bids.dataset import ScanSelection, find_scans
from bidsseg.cli import bids_app, demo
from bidsseg.cli.demo import average_slices, is_demo, make_dataset, run_demo
from bidsseg.errors import UserError
from bidsseg.imaging.image import load


def test_slices_are_averaged() -> None:
    volume = np.broadcast_to(np.arange(7, dtype=np.float32), (2, 3, 7))
    np.testing.assert_array_equal(average_slices(volume, 3)[0, 0], [1, 4])


def test_the_dataset_holds_one_head_twice(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    found = find_scans(tmp_path, ScanSelection())
    thin, thick = (load(scan.path) for scan in found.scans)
    np.testing.assert_allclose(thin.spacing_mm, (1, 1, 1))
    np.testing.assert_allclose(thick.spacing_mm, (1, 1, 6))
    assert thick.data[60:120, 60:120].mean() == pytest.approx(thin.data[60:120, 60:120].mean(), rel=0.05)
    first = thick.affine @ (50, 50, 10, 1)
    sources = thin.affine @ (50, 50, 60 + 2.5, 1)
    np.testing.assert_allclose(first, sources)


@pytest.mark.parametrize("code", [0, 1])
def test_the_demo_runs_the_app_and_says_where_the_pictures_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def run(args: list[str]) -> int:
        picture = Path(args[1]) / "sub-01" / "figures" / "a.png"
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b"")
        return code

    monkeypatch.setattr(bids_app, "run", run)
    monkeypatch.setattr(demo, "make_dataset", lambda folder: None)
    if code:
        with pytest.raises(UserError, match="the demo failed"):
            run_demo(tmp_path)
    else:
        run_demo(tmp_path)
        assert "a.png" in capsys.readouterr().out


def test_the_demo_leaves_other_data_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert is_demo(tmp_path / "data")
    (tmp_path / "data" / "dataset_description.json").write_text('{"Name": "patients"}')
    with pytest.raises(UserError, match="holds other data"):
        run_demo(tmp_path)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["dataset_description.json"]
