"""A dataset's .bidsignore: files that its owner does not count as part of it; patterns are those of .gitignore."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LARGEST_BYTES = 1_000_000
PARTS = re.compile(r"\*\*/|/\*\*$|\*+|\?|\[!?\]?[^\]]*\]|\\.|.", re.DOTALL)


@dataclass(frozen=True)
class Ignored:
    """Which paths of a dataset are left out."""

    rules: tuple[tuple[re.Pattern[str], bool], ...] = ()
    "Patterns of paths below the dataset, and whether they leave out or take back; the last that fits counts."

    def __contains__(self, path: str) -> bool:
        """Whether a file is left out, by itself or with a folder above it; ``path`` is below the dataset, with /."""
        parts = path.split("/")
        folders = ("/".join(parts[:end]) + "/" for end in range(1, len(parts)))
        return any(self._leaves_out(folder) for folder in folders) or self._leaves_out(path)

    def _leaves_out(self, path: str) -> bool:
        left_out = False
        for pattern, leaves_out in self.rules:
            if pattern.fullmatch(path):
                left_out = leaves_out
        return left_out


def read_bidsignore(dataset: Path) -> Ignored:
    """The rules of a dataset; none where there are none, or they cannot be read."""
    path = dataset / ".bidsignore"
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            return Ignored()
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        return Ignored()
    return Ignored(tuple(rule for line in lines if (rule := _rule(line)) is not None))


def _rule(line: str) -> tuple[re.Pattern[str], bool] | None:
    line = re.sub(r"(?<!\\)\s+$", "", line)
    if not line or line.startswith("#"):
        return None
    leaves_out = not line.startswith("!")
    pattern = line if leaves_out else line[1:]
    before = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    after = "/" if pattern.endswith("/") else "/?"
    body = "".join(map(_expression, PARTS.findall(pattern.strip("/"))))
    try:
        return re.compile(f"{before}{body}{after}", re.DOTALL), leaves_out
    except re.error:  # no pattern, such as [z-a]
        return None


def _expression(part: str) -> str:
    """The regular expression of a part of a pattern."""
    known = {"**/": "(?:.*/)?", "/**": "/.*", "?": "[^/]"}
    if part in known:
        return known[part]
    if part.startswith("*"):
        return "[^/]*"
    if part.startswith("[") and len(part) > 2:
        inside = part[1:-1].replace("\\", r"\\")
        return f"[^{inside[1:]}/]" if inside.startswith(("!", "^")) else f"[{inside}]"
    return re.escape(part[-1] if part.startswith("\\") and len(part) == 2 else part)
