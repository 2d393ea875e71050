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
@click.argument("name")
def told(name: str) -> None:
    click.echo(os.environ[name])


@pytest.mark.parametrize(
    ("name", "given", "seen"),
    [
        ("OMP_WAIT_POLICY", None, "PASSIVE"),
        ("OMP_WAIT_POLICY", "ACTIVE", "ACTIVE"),
        ("OPENBLAS_THREAD_TIMEOUT", None, "4"),
        ("OPENBLAS_THREAD_TIMEOUT", "26", "26"),
    ],
)
def test_threads_sleep_while_they_wait(
    name: str, given: str | None, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "")  # to be put back at the end
    if given is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, given)
    assert waiting()[name] == seen
    with environment(Resources(tmp_path, tmp_path), threads=1):
        assert os.environ[name] == seen
    assert os.environ.get(name) == given
    assert CliRunner().invoke(tool, ["told", name]).output == f"{seen}\n"
