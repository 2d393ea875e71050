"""How often the slow steps run for a participant: each scan goes through each of them once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

import bidsseg.workflow.finishing
import bidsseg.workflow.scan_stages  # noqa: F401, so that all users of the functions are imported
from bidsseg.cli.bids_app import EXIT_OK
from bidsseg.imaging.bias import correct_bias
from bidsseg.imaging.registration import rigid_transform
from bidsseg.network.inference import infer
from tests.conftest import Dataset, Run

Calls = Counter[str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Counts the calls of the slow steps, whichever module makes them."""
    counted: Calls = Counter()

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def count(*arguments: Any, **named: Any) -> Any:
            counted[function.__name__] += 1
            return function(*arguments, **named)

        return count

    for function in (correct_bias, infer, rigid_transform):
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
        (2, ("--fuse",), 1 + 1),
        (3, ("--fuse",), 3 + 3),
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
