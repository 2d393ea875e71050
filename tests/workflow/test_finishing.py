"""What follows the scans: comparing the contrasts of a session."""

from __future__ import annotations

import json
from pathlib import Path

from bidsseg.files import write_json, write_text
from bidsseg.quality.agreement import agreement_file
from bidsseg.workflow.finishing import sessions_to_compare
from tests.bids.test_contrasts import all_outputs


def test_sessions_are_compared_once_and_again_when_a_scan_was_done_again(tmp_path: Path) -> None:
    session = all_outputs(tmp_path, "sub-1_T1w", "sub-1_FLAIR")
    assert sessions_to_compare(session) == []  # not segmented yet
    for outputs in session:
        write_text(outputs.quality, json.dumps({"Verdict": "pass"}))
    assert sessions_to_compare(session) == [session]
    for outputs, other in zip(session, session[::-1], strict=True):
        write_json(outputs.agreement, agreement_file({other.scan.stem: 0.8}, {}))
    assert sessions_to_compare(session) == []
    session[0].agreement.unlink()
    assert sessions_to_compare(session) == [session]
