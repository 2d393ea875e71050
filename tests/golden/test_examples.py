"""The examples in the docstrings of the public names do what they say, on the packaged scan with the packaged model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from doctest import ELLIPSIS, DocTestFinder, DocTestRunner
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

import bidsseg
from bidsseg import api
from bidsseg.cli.bids_app import DEFAULT_THREADS, available_cpus
from bidsseg.imaging.image import save
from tests.golden.scene import SUBJECT, Outcome, flair_of

NAMES = (
    f"data/sub-{SUBJECT}/anat/sub-{SUBJECT}_T1w.nii.gz",
    f"masks/sub-{SUBJECT}/anat/sub-{SUBJECT}_label-lesion_mask.nii.gz",
)
THREADS = min(DEFAULT_THREADS, available_cpus())
"Those of the app, since sums in another order differ in their last digits."
Segment = Callable[..., api.Segmentation]


@pytest.fixture(scope="module")
def folder(golden: Path, found: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the files that the examples read."""
    folder = tmp_path_factory.mktemp("examples")
    for name in NAMES:
        shutil.copy(golden / name, folder)
    flair = flair_of(bidsseg.load_image(golden / NAMES[0]))
    save(folder / f"sub-{SUBJECT}_FLAIR.nii.gz", flair.data, flair.affine)
    return folder


@pytest.fixture(scope="module")
def segment() -> Segment:
    """``api.segment``, which segments the one scan of the examples but once."""
    known: list[api.Segmentation] = []

    @wraps(api.segment)
    def once(scan: api.Image) -> api.Segmentation:
        if not known:
            known.append(original(scan, gyri=True, device="cpu", threads=THREADS))  # as the app does
        return known[0]

    original = api.segment
    return once


@pytest.mark.parametrize("name", ["api", *bidsseg.__all__])
def test_examples(name: str, folder: Path, segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    documented: Any = api if name == "api" else getattr(bidsseg, name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(api, "segment", segment)
    runner = DocTestRunner(optionflags=ELLIPSIS)
    for test in DocTestFinder(recurse=False).find(documented, name):
        assert runner.run(test).failed == 0


def test_python_and_app_give_the_same_labels(folder: Path, found: Outcome, segment: Segment) -> None:
    scan = bidsseg.load_image(folder / Path(NAMES[0]).name)
    labels = segment(scan).labels("regions")
    assert (labels != found.labels).mean() < 1e-5  # a thread more or less rounds otherwise at a tie
