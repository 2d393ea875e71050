"""What ``brainseg-cli evaluate`` measures, with a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bidsseg.cli import scores
from bidsseg.cli.main import main
from bidsseg.labels import TISSUE
from bidsseg.network.card import PATIENTS, read_card
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.held_out import Case
from tests.conftest import write_scan
from tests.phantoms import head


@pytest.mark.parametrize("mirror", [False, True])
def test_patients_are_measured_and_what_is_missing_is_named(tmp_path: Path, tiny_model: Path, mirror: bool) -> None:
    model, readme = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / "README.md"
    readme.write_text("<!-- patients -->\n<!-- /patients -->\n", encoding="utf-8")
    for contrast in ("FLAIR", "acq-2_FLAIR", "T1w"):
        write_scan(tmp_path / "ms-clinical-bids" / "sub-01" / "ses-1" / "anat" / f"sub-01_ses-1_{contrast}.nii.gz")
    command = ["evaluate", str(tmp_path), "--patients", "--card", "--readme", str(readme), "--model", str(model)]
    result = CliRunner().invoke(main, [*command, "--threads", "1", *["--mirror"] * mirror])
    assert result.exit_code == 0
    assert f"{tmp_path / 'ms-clinical-lesions'}: no such folder" in result.stderr
    for flair in ("", "_acq-2"):
        row = f"| ms-clinical-bids/sub-01_ses-1{flair} | 0.0 % (1.000) |"  # the scans are the same
        assert (row in readme.read_text(encoding="utf-8")) is not mirror
    assert (PATIENTS in read_card(model).about) is not mirror
    assert ("not written into card or readme" in result.stderr) is mirror


def test_without_patients_the_card_stays(tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    before = (model / "card.json").read_bytes()
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), "--patients", "--card", "--model", str(model)])
    assert (result.exit_code, result.stderr.count("no such folder")) == (0, 2)
    assert (model / "card.json").read_bytes() == before


def test_scores_of_scans_go_to_table_card_and_readme(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, readme, output = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / "README.md", tmp_path / "t.tsv"
    readme.write_text("<!-- accuracy -->\n<!-- /accuracy -->\n", encoding="utf-8")
    tissue = np.full((32, 32, 32), TISSUE["putamen"], np.uint8)
    anatomy = Anatomy(tissue, np.zeros_like(tissue), np.zeros_like(tissue))
    scan = head(tissue.shape, np.eye(4))
    monkeypatch.setattr(scores, "validation_cases", lambda data: iter([Case("cube", scan, anatomy)]))
    command = ["evaluate", str(tmp_path), "--seg", "regions", "--gain", "0.25", "-o", str(output), "--card"]
    result = CliRunner().invoke(main, [*command, "--readme", str(readme), "--model", str(model), "--threads", "1"])
    assert result.exit_code == 0, result.stderr
    (condition,) = read_card(model).accuracy
    assert "25" in condition
    assert list(read_card(model).accuracy[condition]) == ["regions"]
    assert condition in readme.read_text(encoding="utf-8")
    assert condition in output.read_text(encoding="utf-8")


def test_scans_that_were_learned_from_are_scored_in_place_of_the_others(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tissue = np.full((32, 32, 32), TISSUE["putamen"], np.uint8)
    case = Case("cube", head(tissue.shape, np.eye(4)), Anatomy(tissue, np.zeros_like(tissue), np.zeros_like(tissue)))
    for name, cases in (("validation_cases", []), ("training_cases", [case])):
        monkeypatch.setattr(scores, name, lambda data, cases=cases: iter(cases))
    output = tmp_path / "t.tsv"
    command = ["evaluate", str(tmp_path), "--learned-from", "--seg", "regions", "-o", str(output)]
    assert CliRunner().invoke(main, [*command, "--model", str(tiny_model), "--threads", "1"]).exit_code == 0
    assert "cube" in output.read_text(encoding="utf-8")
