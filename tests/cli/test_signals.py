import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

BUSY = """
import os, signal, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from bidsseg.cli.signals import ending_at_once

for number in (signal.SIGTERM, signal.SIGHUP):  # nohup has some ignored, which is inherited
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
ThreadPoolExecutor(1).submit(time.sleep, 60)
with ending_at_once(), tempfile.TemporaryDirectory(dir=sys.argv[2]):
    print("half a line", end="")
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")
@pytest.mark.parametrize(
    ("signal", "code", "told"), [("SIGTERM", 143, ""), ("SIGHUP", 129, ""), ("SIGINT", 130, "interrupted\n")]
)
def test_a_signal_ends_a_command_that_still_computes(signal: str, code: int, told: str, tmp_path: Path) -> None:
    """At once, with its output written and its temporary files removed."""
    start = time.monotonic()
    command = [sys.executable, "-c", BUSY, signal, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "half a line", told)
    assert time.monotonic() - start < 30
    assert list(tmp_path.iterdir()) == []
