"""Evidence and labels of one answer are found side by side."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidsseg.errors import UserError
from bidsseg.imaging.image import Image
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.quality.assessed import AssessedScan, segment_and_assess
from bidsseg.quality.judgement import examine
from bidsseg.segmentation.pipeline import native
from tests.phantoms import head


def found_with(threads: int, scan: Image, model: Path) -> AssessedScan:
    return segment_and_assess(scan, load_model(model), PredictOptions("cpu", threads), bias_correction=False)


def test_threads_change_no_result(tiny_model: Path) -> None:
    scan = head((40, 36, 30), np.eye(4))
    one, two = (found_with(threads, scan, tiny_model) for threads in (1, 2))
    assert one.evidence == two.evidence
    assert one.assessment == two.assessment
    np.testing.assert_array_equal(one.segmentation.labels("lobes"), two.segmentation.labels("lobes"))


@pytest.mark.parametrize(("threads", "together"), [(1, False), (2, True)])
def test_no_more_threads_than_asked_for(
    threads: int, together: bool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels wait for the evidence here, which comes at the same time only with a second thread."""
    examining, seen = threading.Event(), []

    def examined(*given: Any) -> Any:
        examining.set()
        return examine(*given)

    def decided(*given: Any) -> Any:
        seen.append(examining.wait(5 if together else 0.2))
        return native(*given)

    monkeypatch.setattr("bidsseg.quality.assessed.examine", examined)
    monkeypatch.setattr("bidsseg.quality.assessed.native", decided)
    found_with(threads, head((30, 26, 20), np.eye(4)), tiny_model)
    assert seen == [together]


@pytest.mark.parametrize("failing", ["examine", "native"])
def test_an_error_of_either_comes_out(failing: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise UserError("what went wrong")

    monkeypatch.setattr(f"bidsseg.quality.assessed.{failing}", fails)
    with pytest.raises(UserError, match="what went wrong"):
        found_with(2, head((30, 26, 20), np.eye(4)), tiny_model)
