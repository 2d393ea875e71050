"""How often the slow steps run for a participant: each scan goes through each of them once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

import bidsseg.workflow.finishing
import bidsseg.workflow.scan_stages  # noqa: F401, so that all users of the functions are imported
from bidsseg.cli.exit_codes import EXIT_OK
from bidsseg.files import json_content
from bidsseg.imaging.bias import correct_bias
from bidsseg.imaging.grey import on_scale_of
from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import load
from bidsseg.imaging.registration import rigid_transform
from bidsseg.labels import encode
from bidsseg.network.inference import infer
from bidsseg.quality.verdicts import WITH
from tests.conftest import Dataset, Run

Calls = Counter[str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts the calls of the slow steps, whichever module makes them, and how often each image is read, by name."""
    counted: Calls = Counter()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def count(*arguments: Any, **named: Any) -> Any:
            counted[Path(arguments[0]).name if function is load else function.__name__] += 1
            return function(*arguments, **named)

        return count

    for function in (load, conform, on_scale_of, correct_bias, infer, encode, rigid_transform):
        replacement = counting(function)
        for name, module in list(sys.modules.items()):
            if name.startswith("bidsseg") and getattr(module, function.__name__, None) is function:
                monkeypatch.setattr(module, function.__name__, replacement)
    return counted


CONTRASTS = ("sub-01_T1w.nii.gz", "sub-01_FLAIR.nii.gz", "sub-01_T2w.nii.gz")


@pytest.mark.parametrize(
    ("scans", "options", "registrations"),
    [
        (1, (), 0),
        (2, (), 1),  # their labels are compared
        (2, ("--fuse",), 1),  # for both
        (3, ("--fuse",), 3),
    ],
)
def test_every_scan_is_corrected_and_asked_once(
    scans: int, options: tuple[str, ...], registrations: int, calls: Calls, dataset: Dataset, app: Run
) -> None:
    root = dataset(*CONTRASTS[:scans])
    chosen = ("--modality", "T1w", "FLAIR", "T2w", "--seg", "lobes", "--bias-correction")
    assert app(root, *chosen, *options) == EXIT_OK
    assert calls["infer"] == scans
    assert calls["correct_bias"] == scans
    assert calls["rigid_transform"] == registrations
    fused = "--fuse" in options
    # For a registration two scans, and where the brain is in one of them, which labels on the scan's grid tell twice.
    # Thick slices are resampled again, clipped at the brain's brightest, for each look after the first.
    assert scans <= calls["on_scale_of"] <= 2 * scans
    assert calls["conform"] == scans + calls["on_scale_of"] + (3 if fused else 4) * registrations
    assert calls["encode"] == (3 * scans if fused else scans)  # of the scan, of the fused scan, and to compare
    # Stages are processes of their own: one corrects the scan, others write its results and those of the fused scan.
    assert calls[CONTRASTS[0]] == 2 + fused
    assert calls["corrected.nii"] == scans * (1 + fused)


def agreements(root: Path) -> dict[str, set[str]]:
    """By the names of files of agreement, the scans that these are about."""
    files = (root.parent / "out" / "sub-01" / "anat").glob("*_agreement.json")
    return {path.name: set(json_content(path)[WITH]) for path in files}


def test_the_agreement_of_contrasts_is_known_with_and_without_fusion(dataset: Dataset, app: Run) -> None:
    root = dataset(*CONTRASTS)
    chosen = ("--modality", "T1w", "FLAIR", "T2w", "--seg", "lobes")
    stems = {name.removesuffix(".nii.gz") for name in CONTRASTS}
    expected = {f"{s.replace('_', '_desc-')}_agreement.json": stems - {s} for s in stems}
    assert app(root, *chosen, "--fuse") == EXIT_OK
    assert agreements(root) == expected
    assert app(root, *chosen, "--overwrite") == EXIT_OK
    assert agreements(root) == expected


def test_a_fused_scan_done_again_asks_each_contrast_once(calls: Calls, dataset: Dataset, app: Run) -> None:
    root = dataset(*CONTRASTS[:2])
    assert app(root, "--seg", "lobes", "--fuse") == EXIT_OK
    out = root.parent / "out" / "sub-01" / "anat"
    (out / "sub-01_desc-T1wfused_qc.json").unlink()
    calls.clear()
    assert app(root, "--seg", "lobes", "--fuse") == EXIT_OK
    assert calls["infer"] == 2


def test_one_bad_contrast_fails_what_is_fused_with_it_and_nothing_else(
    dataset: Dataset, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset(*CONTRASTS[:2], "sub-02_T1w.nii.gz")
    bad = root / "sub-01" / "anat" / CONTRASTS[1]
    bad.write_bytes(bad.read_bytes()[:3000])
    assert app(root, "--seg", "lobes", "--fuse") != EXIT_OK
    out = root.parent / "out"
    done = {path.name for path in out.rglob("*_qc.json")}
    assert done == {"sub-01_desc-T1w_qc.json", "sub-02_desc-T1w_qc.json"}
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 3
    assert all(str(bad) in line for line in errors)
    assert not (out / "work").exists()
