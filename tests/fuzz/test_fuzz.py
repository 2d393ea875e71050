"""Nothing that is read ends in anything but the right answer or one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEW, MANY = 300, 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured in /proc")
def test_damaged_inputs_are_read_right_or_told_in_one_line(request: pytest.FixtureRequest) -> None:
    """In a process of its own, whose memory is limited; ``pytest tests/fuzz --full`` tries ``MANY``."""
    count = MANY if request.config.getoption("--full") else FEW
    command = [sys.executable, "-m", "tests.fuzz.run", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + count, check=False)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["others"] == []
    assert found["tried"] == count
    assert min(found["right"], found["one line"]) > 0.2 * count  # else it tries the same over and over
