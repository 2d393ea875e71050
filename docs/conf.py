"""Settings of the documentation site: ``sphinx-build -W docs docs/_build``."""

from collections.abc import Iterable, Mapping
from typing import Any

import click

import bidsseg
from bidsseg import __version__
from bidsseg.cli.bids_app import command as bids_app
from bidsseg.cli.main import main as single_scans
from bidsseg.network.card import folder_of, read_card

project = "bidsseg"
author = "The bidsseg developers"
project_copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "jupyter_execute"]
html_theme = "furo"
html_title = f"bidsseg {version}"
html_theme_options = {"source_view_link": ""}
html_copy_source = False

myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings name types and shapes

HIDDEN = "\N{REPLACEMENT CHARACTER}"


def python_interface() -> str:
    """What the docstrings of the public names say."""
    functions = (f".. autofunction:: bidsseg.{name}\n" for name in bidsseg.__all__ if name[0].islower())
    of_class = "   :members:\n   :undoc-members:\n"
    classes = (f".. autoclass:: bidsseg.{name}\n{of_class}" for name in bidsseg.__all__ if name[0].isupper())
    return "\n".join(["```{eval-rst}", ".. automodule:: bidsseg.api\n", *functions, *classes, "```"])


def help_of(command: click.Command, name: str) -> str:
    """What ``--help`` prints, as a block of text."""
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    return f"```text\n{command.get_help(context)}\n```\n"


def help_of_members(group: click.Group, name: str) -> str:
    """A heading and the help of every command of a group."""
    members = group.commands.items()
    return "\n".join(f"### {name} {member}\n\n{help_of(command, f'{name} {member}')}" for member, command in members)


def bullets(lines: Iterable[Any]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def on_one_line(value: Any) -> str:
    return ", ".join(f"{name} {inner}" for name, inner in value.items()) if isinstance(value, Mapping) else str(value)


def nested(content: Mapping[str, Any]) -> str:
    """A list of names with what they stand for, which may be lists or mappings themselves."""
    lines = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{name}:", *(f"  - {key}: {on_one_line(inner)}" for key, inner in value.items())]
        elif isinstance(value, list):
            lines += [f"{name}:", *(f"  - {inner}" for inner in value)]
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(line if line.startswith("  ") else f"- {line}" for line in lines)


card = read_card(folder_of())
myst_substitutions = {
    "known_failures": bullets(card.about["known_failures"]),
    "robustness": nested(card.about["robustness"]),
    "calibration": nested(card.quality["about"]),
    "python_interface": python_interface(),
    "bidsseg_help": help_of(bids_app, "bidsseg"),
    "brainseg_cli_help": help_of_members(single_scans, "brainseg-cli"),
}


def hide_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon would take what precedes a colon in an attribute's docstring for its type."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", HIDDEN) for line in lines]


def show_colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace(HIDDEN, ":") for line in lines]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", show_colons, priority=600)
