"""Recipes of images, lock files and Boutiques descriptor agree with the package. Nothing is built here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from bidsseg import __version__
from bidsseg.cli.bids_app import command, spread

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "container" / "locks"
DESCRIPTOR = ROOT / "boutiques.json"
NOT_IN_DESCRIPTOR = {
    *("version", "bids_database_dir", "use_plugin", "dry_run", "verbose", "stop_on_first_crash"),
    *("write_graph", "resource_monitor"),
}
"For people at a terminal, not for platforms."


def locked(name: str) -> dict[str, str]:
    """Versions by package."""
    found = re.findall(r"^([a-z][a-z0-9-]*)==(\S+)", (LOCKS / name).read_text(encoding="utf-8"), re.MULTILINE)
    return dict(found)


def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return content


def descriptor() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DESCRIPTOR.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("file", ["Dockerfile", "Singularity.def"])
def test_recipes_name_this_version(file: str) -> None:
    assert re.findall(r"VERSION=(\S+)", (ROOT / file).read_text(encoding="utf-8")) == [__version__]


@pytest.mark.parametrize("torch", ["cpu", "cuda"])
def test_locks_hold_all_dependencies(torch: str) -> None:
    wanted = {re.split(r"[<>=]", line)[0].lower() for line in project()["dependencies"]}
    assert wanted <= {*locked("base.txt"), *locked(f"{torch}.txt")}


def test_both_images_have_the_torch_that_is_tested() -> None:
    tested = next(line for line in project()["optional-dependencies"]["test"] if line.startswith("torch"))
    assert tested == f"torch=={locked('cuda.txt')['torch']}"
    assert locked("cpu.txt")["torch"] == f"{locked('cuda.txt')['torch']}+cpu"


@pytest.mark.parametrize("path", sorted(LOCKS.glob("*.txt")), ids=lambda path: path.name)
def test_every_locked_package_has_a_hash(path: Path) -> None:
    entries = re.split(r"^(?=[a-z])", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert entries
    assert all(re.match(r"[a-z0-9-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


@pytest.mark.parametrize(
    "script",
    ["container/lock", "container/bidsseg-slurm", *(f".ci/{n}" for n in ("run", "package", "podman", "slurm"))],
)
def test_scripts_are_bash(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def test_descriptor_is_valid() -> None:
    boutiques = pytest.importorskip("boutiques")
    boutiques.validate(str(DESCRIPTOR))


def test_descriptor_makes_a_command_that_bidsseg_takes(tmp_path: Path) -> None:
    boutiques = pytest.importorskip("boutiques")
    invocation = {"bids_dir": "data", "out_dir": "out", "level": "participant", "seg": ["lobes", "gyri"], "nprocs": 2}
    (tmp_path / "invocation.json").write_text(json.dumps(invocation))
    line = boutiques.execute("simulate", str(DESCRIPTOR), "-i", str(tmp_path / "invocation.json")).shell_command
    context = command.make_context("bidsseg", spread(line.split()[1:]))
    assert {name: context.params[name] for name in ("level", "seg", "nprocs")} == {
        "level": "participant",
        "seg": ("lobes", "gyri"),
        "nprocs": 2,
    }


def test_descriptor_names_this_version_and_all_options() -> None:
    content = descriptor()
    flags = {entry["command-line-flag"] for entry in content["inputs"] if "command-line-flag" in entry}
    options = [option for option in command.params if isinstance(option, click.Option)]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    assert content["tool-version"] == __version__
    assert content["container-image"]["image"] == f"bidsseg:{__version__}"
    assert flags <= known
    missing = {o.name for o in options if not flags & {*o.opts, *o.secondary_opts}}
    assert missing == NOT_IN_DESCRIPTOR


@pytest.mark.parametrize(
    ("metadata", "files", "told", "code"),
    [
        ("License-Expression: MIT", ["thing.py"], "MIT", 0),
        ("License: BSD\nClassifier: License :: OSI Approved :: BSD License", ["thing.py"], "BSD License", 0),
        ("Summary: asks for other packages alone", [], "none: it holds no files", 0),
        ("Summary: says nothing", ["thing.py"], "", 1),
    ],
)
def test_licences_are_told_or_missed(metadata: str, files: list[str], told: str, code: int, tmp_path: Path) -> None:
    info = tmp_path / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: thing\nVersion: 1.0\n{metadata}\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in (f"{info.name}/METADATA", *files)))
    script = [sys.executable, "-S", str(ROOT / "container" / "licences.py")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"thing\t1.0\t{told}"
    assert done.returncode == code
    assert ("thing" in done.stderr) == bool(code)
