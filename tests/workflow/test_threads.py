"""Both programs have OpenMP's threads sleep while they wait, unless the user wants otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bidsseg.cli.options import OneLineErrors
from bidsseg.workflow.environment import environment
from bidsseg.workflow.threads import waiting
from bidsseg.workflow.workers import Resources


@click.group(cls=OneLineErrors)
def tool() -> None:
    """Has one command."""


@tool.command()
def policy() -> None:
    click.echo(os.environ["OMP_WAIT_POLICY"])


@pytest.mark.parametrize(("given", "seen"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait(
    given: str | None, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # to be put back at the end
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    assert waiting() == {"OMP_WAIT_POLICY": seen}
    with environment(Resources(tmp_path, tmp_path), threads=1):
        assert os.environ["OMP_WAIT_POLICY"] == seen
    assert os.environ.get("OMP_WAIT_POLICY") == given
    assert CliRunner().invoke(tool, ["policy"]).output == f"{seen}\n"
