"""The words of verdicts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bidsseg.quality.verdicts import AGREEMENT, WITH, in_words, judged, reasons_of, tally, verdict, verdict_of
from bidsseg.workflow.console import Row, finish, summary


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        ({"Verdict": "pass", "Reasons": []}, "pass"),
        ({"Verdict": "check", "Reasons": ["only 5 slices", "dark"]}, "check: only 5 slices; dark"),
        ({"Verdict": "Fail", "Reasons": ["no brain"]}, "fail: no brain"),
        ({}, ""),
        ({"Verdict": ["pass"], "Reasons": "none"}, ""),
    ],
)  # fmt: skip
def test_one_line_for_each_scan(quality: Mapping[str, Any], words: str) -> None:
    assert in_words(quality) == words


def test_what_is_malformed_has_no_verdict() -> None:
    assert verdict_of({"Verdict": "<b>"}) == ""
    assert reasons_of({"Reasons": None}) == []


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (["check", "pass", "fail", "pass"], "2 pass, 1 check, 1 fail"),
        (["pass", ""], "1 pass"),
        ([], ""),
    ],
)
def test_verdicts_are_counted_best_first(verdicts: list[str], words: str) -> None:
    assert tally(verdicts) == words


@pytest.mark.parametrize(
    ("assessed", "agreement", "expected", "more"),
    [
        ("pass", None, "pass", 0),
        ("pass", 0.8, "pass", 0),
        ("pass", 0.5, "pass", 0),
        ("pass", 0.3, "check", 1),
        ("check", 0.3, "check", 1),
        ("fail", 0.3, "fail", 1),
        ("check", 0.9, "check", 0),
        ("pass", float("nan"), "pass", 0),
    ],
)
def test_little_agreement_calls_for_a_look(assessed: str, agreement: float | None, expected: str, more: int) -> None:
    word, reasons = verdict((assessed, ["few slices"]), agreement)
    assert word == expected
    assert reasons[0] == "few slices"
    assert len(reasons) == 1 + more


def test_a_quality_file_is_read_with_the_agreement_beside_it() -> None:
    quality = {"Verdict": "pass", "Reasons": [], "MeanConfidence": 0.9}
    low = judged(quality, {AGREEMENT: 0.3, WITH: {"sub-1_FLAIR": 0.3}, "SoftwareVersion": "1"})
    assert {**low, "Reasons": None} == {
        **quality, "Verdict": "check", "Reasons": None, AGREEMENT: 0.3, WITH: {"sub-1_FLAIR": 0.3},
    }  # fmt: skip
    assert "mean Dice 0.30" in low["Reasons"][0]
    assert judged(quality, {}) == quality
    assert judged(quality, {AGREEMENT: "low"}) == quality
    assert "Verdict" not in judged({}, {AGREEMENT: 0.3})


ROWS = (
    Row("a", "done", verdict="pass"),
    Row("b", "done", "only 5 slices", "check"),
    Row("c", "complete", "skipped", "pass"),
    Row("d", "failed", "/data/d.nii.gz: cut short"),
)


NO_REPORTS = [Row("reports", "failed", "sub-1: no report", about="reports")] * 3
MASKS = [Row("lesions", result, about="lesions") for result in ("done", "lesions failed", "done")]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (ROWS, "2 done: 1 pass, 1 check; 1 complete: 1 pass; 1 failed"),
        ([*NO_REPORTS, *ROWS], "2 done: 1 pass, 1 check; 1 complete: 1 pass; 1 failed; reports: 3 failed"),
        (
            [*ROWS[2:], *NO_REPORTS, *MASKS],
            "1 complete: 1 pass; 1 failed; lesions: 2 done, 1 failed; reports: 3 failed",
        ),
        (NO_REPORTS, "reports: 3 failed"),
    ],
)
def test_a_run_is_summed_up_in_a_line_that_counts_scans(rows: Sequence[Row], line: str) -> None:
    assert summary(rows) == line


def test_the_closing_table_has_verdicts_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(ROWS, []) == "failed"
    told = capsys.readouterr()
    for words in ("check", "only 5 slices", "2 done: 1 pass, 1 check"):
        assert words in told.out
    assert told.err == "error: /data/d.nii.gz: cut short\n"


def test_scans_that_need_a_look_are_not_hidden_in_a_long_table(capsys: pytest.CaptureFixture[str]) -> None:
    finish([*(Row(f"good{n}", "done", verdict="pass") for n in range(100)), Row("doubtful", "done", "", "fail")], [])
    told = capsys.readouterr().out
    assert "doubtful" in told
    assert "good1 " not in told


def test_words_need_no_numpy() -> None:
    code = "import sys, bidsseg.quality.verdicts, bidsseg.workflow.console; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
