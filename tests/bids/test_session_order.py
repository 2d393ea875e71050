from __future__ import annotations

from pathlib import Path

import pytest

from bidsseg.bids.session_order import in_time


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (None, ["post", "pre"]),
        ("session_id\tacq_time\nses-pre\t2020-01-02T03:04:05\nses-post\t2021-01-02T03:04:05\n", ["pre", "post"]),
        ("session_id\tacq_time\tage\nses-pre\tn/a\t40\nses-post\t2021-01-02T03:04:05\t41\n", ["post", "pre"]),
        ("session_id\tacq_time\nses-pre\t2020-01-02T03:04:05\n", ["post", "pre"]),
        ("no table", ["post", "pre"]),
    ],
)
def test_sessions_follow_their_times_where_all_are_known(
    table: str | None, expected: list[str], tmp_path: Path
) -> None:
    if table is not None:
        (tmp_path / "sub-01").mkdir()
        (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text(table)
    assert in_time(tmp_path, "01", ["pre", "post", "pre"]) == expected


def test_times_that_are_no_table_leave_the_order_of_labels(tmp_path: Path) -> None:
    table = tmp_path / "sub-01" / "sub-01_sessions.tsv"
    table.parent.mkdir()
    table.write_text("session_id\tacq_time\nses-2\t" + "x" * 200_000 + "\nses-1\t2020-01-01\n")
    assert in_time(tmp_path, "01", ["2", "10", "1"]) == ["1", "2", "10"]
