"""One run of the packaged model, which all golden tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.scene import Outcome, run_app


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run."""
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="session")
def found(golden: Path) -> Outcome:
    return run_app(golden)
