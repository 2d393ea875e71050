"""What users are shown."""

import io
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from bidsseg.cli.bids_app import run
from bidsseg.cli.main import main
from bidsseg.errors import FileError, UserError, one_line_errors, plain
from bidsseg.workflow import console as run_table
from bidsseg.workflow.console import Row, finish
from tests.conftest import write_scan

NASTY = "a\x1b[31m\nred\u202e\x9b\udcff"
SHOWN = r"a\x1b[31m\nred\u202e\x9b\udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain [bold] text, Grüße 脳", "plain [bold] text, Grüße 脳"), (NASTY, SHOWN), (SHOWN, SHOWN), ("", "")],
)
def test_text_is_shown_as_it_is_and_control_characters_as_escapes(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert str(UserError(text)) == shown
    assert str(FileError(text, "odd", "mend it")) == f"{shown}: odd; mend it"


def test_a_scan_of_an_odd_name_is_named_once() -> None:
    for error in (FileError(NASTY, "odd", "mend it"), UserError("odd; mend it")):
        with pytest.raises(UserError) as caught, one_line_errors(NASTY):
            raise error
        assert str(caught.value) == f"{SHOWN}: odd; mend it"


def test_the_table_shows_markup_and_control_characters_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=200, force_terminal=True, color_system=None)
    monkeypatch.setattr(run_table, "Console", lambda **_: console)
    finish([Row(f"[bold]x[/bold]{NASTY}", "failed", f"[red]why{NASTY}")], [NASTY])
    shown = screen.getvalue() + capsys.readouterr().err
    assert f"[bold]x[/bold]{SHOWN}" in shown
    assert f"[red]why{SHOWN}" in shown
    assert not set("\u202e\x9b\udcff") & set(shown)
    assert "\x1b[31m" not in shown


def test_commands_show_odd_names_as_escapes(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "[bold]x\x1b[31m"
    scan = write_scan(folder / "scan.nii.gz")
    given = ["predict", str(scan), str(folder / "none.nii"), "--model", str(tiny_model), "--threads", "1"]
    found = CliRunner().invoke(main, given, color=True)
    assert found.exit_code == 1
    assert r"[bold]x\x1b[31m/none.nii: no such file" in found.stderr
    assert r"[bold]x\x1b[31m/scan_dseg.nii.gz" in found.stdout
    assert "\x1b" not in found.output
    assert run([str(folder / "missing"), str(tmp_path / "out"), "participant"]) != 0
    assert run([str(folder), str(tmp_path / "out"), "participant", "--sub\x1b[31m"]) != 0
    assert "\x1b" not in capsys.readouterr().err


def test_a_link_to_itself_is_no_traceback(tiny_model: Path, tmp_path: Path) -> None:
    loop = tmp_path / "l.nii"
    os.symlink(loop, loop)
    found = CliRunner().invoke(main, ["predict", str(loop), "--model", str(tiny_model)])
    assert found.exit_code == 1
    assert found.stderr.startswith(f"error: {loop}: a link that leads back to itself; ")


def test_a_damaged_mask_is_named_as_the_mask(tiny_model: Path, tmp_path: Path) -> None:
    scan, mask = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz"
    mask.write_bytes(scan.read_bytes()[:-8])
    found = CliRunner().invoke(main, ["lesions", str(scan), "--mask", str(mask), "--model", str(tiny_model)])
    assert found.exit_code == 1
    errors = [line for line in found.stderr.splitlines() if line.startswith("error")]
    assert [line.startswith(f"error: {mask}: damaged or truncated") for line in errors] == [True]
