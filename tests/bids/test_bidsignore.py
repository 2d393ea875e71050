from __future__ import annotations

from pathlib import Path

import pytest

from bidsseg.bids.bidsignore import LARGEST_BYTES, Ignored, read_bidsignore

ONE, DEEP = "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-02/ses-1/anat/sub-02_ses-1_acq-bad_T1w.nii.gz"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# *\n\n", []),
        ("*_acq-bad_T1w*\n", [DEEP]),
        ("sub-01/\n", [ONE]),
        ("sub-01\n", [ONE]),
        ("/sub-01   \n", [ONE]),
        ("anat/\n", [ONE, DEEP]),
        ("/anat/\n", []),
        ("sub-01/anat\n", [ONE]),
        ("ses-1/anat\n", []),
        ("**/ses-1/anat/\n", [DEEP]),
        ("sub-02/**/sub-02_*\n", [DEEP]),
        ("sub-02/**\n", [DEEP]),
        ("sub-*/anat/*.nii.gz\n", [ONE]),
        ("sub-0[!1]/\n", [DEEP]),
        ("sub-0[1-9]/\n", [ONE, DEEP]),
        ("sub-0?\n", [ONE, DEEP]),
        ("*.nii.gz\n!sub-01_FLAIR.nii.gz\n", [DEEP]),
        ("sub-01/\n!sub-01_FLAIR.nii.gz\n", [ONE]),
        ("\\#x\n[\n[z-a]\n", []),
        ("\ufeffsub-01/\r\n", [ONE]),
        ("FLAIR\n", []),
    ],
)
def test_patterns_are_those_of_gitignore(text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / ".bidsignore").write_text(text, encoding="utf-8", newline="")
    ignored = read_bidsignore(tmp_path)
    assert [path for path in (ONE, DEEP) if path in ignored] == expected


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"#" * (LARGEST_BYTES + 1)])
def test_what_cannot_be_read_ignores_nothing(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / ".bidsignore").write_bytes(content)
    assert read_bidsignore(tmp_path) == Ignored()
