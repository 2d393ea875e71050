"""What ``brainseg-cli evaluate`` and ``calibrate`` refuse; tests/cli/test_scores.py has what they measure."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bidsseg.cli.exit_codes import CLI_USAGE
from bidsseg.cli.main import main


@pytest.mark.parametrize(
    ("options", "idle", "because_of"),
    [
        ("--lesions --device cpu", "--device", "--lesions"),
        ("--lesions --threads 2", "--threads", "--lesions"),
        ("--lesions --patients", "--patients", "--lesions"),
        ("--lesions --all", "--all", "--lesions"),
        ("--lesions --mirror", "--mirror", "--lesions"),
        ("--lesions --seg gyri", "--seg", "--lesions"),
        ("--patients -o scores.tsv", "-o", "--patients"),
        ("--patients --seg gyri", "--seg", "--patients"),
        ("--patients --bias-correction", "--bias-correction", "--patients"),
        ("--patients --simulate-slices 1", "--simulate-slices", "--patients"),
        ("--all --contrast flair", "--contrast", "--all"),
        ("--all --patients --gain 0.1", "--gain", "--all"),
        ("--patients --lesion-model .", "--lesion-model", "--lesions"),
        ("--lesion-model .", "--lesion-model", "--lesions"),
        ("--axis coronal", "--axis", "--simulate-slices"),
        ("--learned-from --card", "--card", "--learned-from"),
        ("--learned-from --readme .", "--readme", "--learned-from"),
        ("--learned-from --all", "--all", "--learned-from"),
        ("--learned-from --patients", "--patients", "--learned-from"),
        ("--learned-from --lesions", "--lesions", "--learned-from"),
    ],
)
def test_options_that_change_nothing_are_refused_in_one_line(
    tmp_path: Path, options: str, idle: str, because_of: str
) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path), *options.split()])
    *_, line = result.stderr.strip().splitlines()
    assert result.exit_code == CLI_USAGE
    assert line.startswith(f"Error: {idle} ")
    assert because_of in line


@pytest.mark.parametrize("options", ["--workers 2", "--device cpu"])
def test_a_fit_alone_segments_nothing(tmp_path: Path, options: str) -> None:
    result = CliRunner().invoke(main, ["calibrate", str(tmp_path), "--fit-only", *options.split()])
    assert result.exit_code == CLI_USAGE
    assert f"Error: {options.split()[0]} is for segmenting" in result.stderr
