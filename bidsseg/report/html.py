"""Web pages that need nothing but themselves: templates and assets from the package, no network."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bidsseg.files import write_text

NIIVUE = "niivue-0.69.0.umd.js"


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of ``bidsseg/report/assets`` and write it whole; all values are escaped."""
    write_text(path, _templates().get_template(template).render(values))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("bidsseg.report", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals["asset"] = inline
    environment.policies["json.dumps_kwargs"] = {}  # keep the order of keys
    return environment


def inline(name: str) -> Markup:
    """A style sheet or script of the package, as it is."""
    return Markup((files("bidsseg.report") / "assets" / name).read_text(encoding="utf-8"))


@cache
def packed(name: str) -> str:
    """An asset as base64 of its gzip: a third of the size, and nothing in it can end a script element."""
    content = (files("bidsseg.report") / "assets" / name).read_bytes()
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")
