"""Compare output folders of bidsseg: same files, same voxels and tables, same text but for paths. same.py A B"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nibabel
import numpy as np

UNLIKE = {"logs"}
"Folders of no interest."


def files(folder: Path) -> set[Path]:
    relative = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in relative if not UNLIKE & set(path.parts)}


def differ(a: Path, b: Path, roots: tuple[Path, Path]) -> bool:
    """Whether two files say different things."""
    if a.read_bytes() == b.read_bytes():
        return False
    if a.name.endswith(".nii.gz"):
        one, other = (nibabel.load(path) for path in (a, b))
        return one.header != other.header or not np.array_equal(
            np.asanyarray(one.dataobj), np.asanyarray(other.dataobj)
        )
    return without_paths(a, roots[0]) != without_paths(b, roots[1])


def without_paths(path: Path, root: Path) -> str:
    """A text without what depends on where and when it was made; pages name the versions of Python and PyTorch."""
    text = path.read_text(encoding="utf-8", errors="replace").replace(str(root), "")
    return re.sub(r'Python 3[\d.]*|PyTorch \S+|file://[^"<\s]*|\d{4}-\d\d-\d\d[ T]?[\d:]*', "", text)


def main(a: Path, b: Path) -> int:
    """The exit code: 1 if anything differs."""
    left, right = files(a), files(b)
    wrong = [f"only in one: {path}" for path in sorted(left ^ right)]
    wrong += [f"differs: {path}" for path in sorted(left & right) if differ(a / path, b / path, (a, b))]
    print(
        *wrong, f"{len(left & right) - sum(line.startswith('differs') for line in wrong)} files are the same", sep="\n"
    )
    return bool(wrong or not left)


if __name__ == "__main__":
    sys.exit(main(*(Path(argument).resolve() for argument in sys.argv[1:3])))
