"""Print what is installed beside this Python and under which licence; fail where a package does not say."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions

OTHERS = (
    ("bidsseg's weights", "-", "CC-BY-NC-4.0"),
    ("niivue, in bidsseg's pages", "0.69.0", "BSD-2-Clause"),
    ("Python", ".".join(map(str, sys.version_info[:3])), "PSF-2.0"),
    ("Debian's packages", "-", "see /usr/share/doc/*/copyright"),
)
"What has no metadata here."
EMPTY = "none: it holds no files"


def licence(package: Distribution) -> str:
    """What the package's metadata says, in one line: its expression, else its classifiers, else its free text."""
    told = package.metadata.json
    classifiers = [line for line in told.get("classifier", []) if line.startswith("License ::")]
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.count(" :: ") > 1]
    free = str(told.get("license", "")).strip().partition("\n")[0]
    return str(told.get("license_expression") or "; ".join(named) or free or (EMPTY if is_empty(package) else ""))


def is_empty(package: Distribution) -> bool:
    """Whether it installs nothing but its own metadata: it only asks for other packages."""
    return package.files is not None and all(file.parts[0].endswith(".dist-info") for file in package.files)


def main() -> int:
    """The exit code: 1 if a licence is not known."""
    packages = sorted(distributions(), key=lambda package: package.name.lower())
    print("name", "version", "licence", sep="\t")
    for row in OTHERS:
        print(*row, sep="\t")
    for package in packages:
        print(package.name, package.version, licence(package), sep="\t")
    unknown = [package.name for package in packages if not licence(package)]
    if unknown:
        print(f"no licence told: {', '.join(unknown)}", file=sys.stderr)
    return bool(unknown)


if __name__ == "__main__":
    sys.exit(main())
