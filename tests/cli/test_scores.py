"""``brainseg-cli evaluate --patients``, with a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bidsseg.cli.main import main
from bidsseg.network.card import PATIENTS, read_card
from tests.conftest import write_scan


@pytest.mark.parametrize("mirror", [False, True])
def test_patients_are_measured_and_what_is_missing_is_named(tmp_path: Path, tiny_model: Path, mirror: bool) -> None:
    model, readme = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / "README.md"
    readme.write_text("<!-- patients -->\n<!-- /patients -->\n", encoding="utf-8")
    for contrast in ("FLAIR", "T1w"):
        write_scan(tmp_path / "ms-clinical-bids" / "sub-01" / "ses-1" / "anat" / f"sub-01_ses-1_{contrast}.nii.gz")
    command = ["evaluate", str(tmp_path), "--patients", "--card", "--readme", str(readme), "--model", str(model)]
    result = CliRunner().invoke(main, [*command, "--threads", "1", *["--mirror"] * mirror])
    assert result.exit_code == 0
    assert f"{tmp_path / 'ms-clinical-lesions'}: no such folder" in result.stderr
    row = "| ms-clinical-bids/sub-01_ses-1 | 0.0 % (1.000) |"  # the two scans are the same
    assert (row in readme.read_text(encoding="utf-8")) is not mirror
    assert (PATIENTS in read_card(model).about) is not mirror
    assert ("not written into card or readme" in result.stderr) is mirror


def test_without_patients_the_card_stays(tmp_path: Path, tiny_model: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    before = (model / "card.json").read_bytes()
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), "--patients", "--card", "--model", str(model)])
    assert (result.exit_code, result.stderr.count("no such folder")) == (0, 2)
    assert (model / "card.json").read_bytes() == before
