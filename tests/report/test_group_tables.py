"""All participants: tables that add up, a page that works, memory that stays flat."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bidsseg.bids.dataset import NothingSelected
from bidsseg.files import Table, read_table, write_text
from bidsseg.labels import label_table
from bidsseg.lesions.changes import CHANGE_COLUMNS, STATUSES
from bidsseg.lesions.tables import LOAD_COLUMNS
from bidsseg.report.group import Cohort, Entry, distribution, matrix, shown_entries, statistics_of, visit_numbers
from bidsseg.report.group_tables import run, sources
from bidsseg.segmentation.volumes import VOLUME_COLUMNS
from tests.browser import CHROMIUM, browser

NASTY = "<script>alert(1)</script>"
THALAMUS = 10


def add_scan(
    out: Path, participant: str, session: str | None = None, factor: float = 1.0, suffix: str = "FLAIR"
) -> Path:
    """A quality file and a table of volumes; the left thalamus is ``factor`` times as large as others'."""
    folder = out / f"sub-{participant}" / (f"ses-{session}" if session else "") / "anat"
    stem = "_".join([f"sub-{participant}", *([f"ses-{session}"] if session else []), f"desc-{suffix}"])
    lines = ["\t".join(VOLUME_COLUMNS)]
    for label in label_table("regions"):
        volume = 1000.0 * (factor if label.index == THALAMUS else 1 + 0.001 * (hash_of(participant) % 7))
        cells = ("regions", label.index, label.name, label.hemisphere or "n/a", 100, volume, volume / 1e6, 0.9, 0.8)
        lines.append("\t".join(map(str, cells)))
    write_text(folder / f"{stem}_volumes.tsv", "\n".join(lines) + "\n")
    quality = {"IntracranialVolumeMm3": 1_000_000.0, "Warnings": [], "Outputs": ["a", "b"], "Model": "small"}
    write_text(folder / f"{stem}_qc.json", json.dumps(quality))
    return folder / f"{stem}_qc.json"


def hash_of(text: str) -> int:
    return sum(map(ord, text))


def add_lesions(out: Path, participant: str, session: str, volume_mm3: float) -> None:
    """A table of lesion loads, and the summary that marks the lesions as complete."""
    rows = [("total", "all", "n/a"), ("zone", "periventricular", "n/a"), ("lobe", "Left-Frontal-Lobe", "1301")]
    cells = [[*row, "1", "1", str(volume_mm3), "0.01", "1", str(volume_mm3)] for row in rows]
    folder = out / f"sub-{participant}" / f"ses-{session}" / "anat"
    text = "\n".join("\t".join(line) for line in [list(LOAD_COLUMNS), *cells]) + "\n"
    write_text(folder / f"sub-{participant}_ses-{session}_desc-lesionload_lesions.tsv", text)
    write_text(folder / f"sub-{participant}_ses-{session}_desc-lesionsummary_lesions.json", "{}")


def add_changes(out: Path, participant: str, new: int) -> None:
    """Two sessions' changes: one stable lesion and new ones."""
    base = out / f"sub-{participant}" / f"sub-{participant}_desc-"
    statuses = ["stable"] + ["new"] * new
    rows = [["1", "2", status, *["1"] * (len(CHANGE_COLUMNS) - 3)] for status in statuses]
    text = "\n".join("\t".join(line) for line in [list(CHANGE_COLUMNS), *rows]) + "\n"
    write_text(base.with_name(base.name + "lesionchanges_lesions.tsv"), text)
    counts = {status: statuses.count(status) for status in STATUSES}
    interval = {"Before": "1", "After": "2", **counts}
    write_text(base.with_name(base.name + "lesionchangesummary_lesions.json"), json.dumps({"Intervals": [interval]}))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def script(page: Path, name: str) -> str:
    return page.read_text(encoding="utf-8").partition(f'id="{name}">')[2].partition("</script>")[0]


def test_tables_are_tidy(tmp_path: Path) -> None:
    add_scan(tmp_path, "01", "1")
    add_scan(tmp_path, "01", "2")
    add_scan(tmp_path, "02", suffix="T1w")
    add_lesions(tmp_path, "01", "2", 500.0)
    run(tmp_path)
    volumes = table(tmp_path / "group_volumes.tsv")
    assert len(volumes) == 3 * len(label_table("regions"))
    assert list(volumes[0]) == ["participant_id", "session_id", "suffix", "scan", *VOLUME_COLUMNS]
    ids = {(row["participant_id"], row["session_id"], row["suffix"], row["scan"]) for row in volumes}
    assert ids == {
        ("sub-01", "ses-1", "FLAIR", "sub-01_ses-1_FLAIR"),
        ("sub-01", "ses-2", "FLAIR", "sub-01_ses-2_FLAIR"),
        ("sub-02", "n/a", "T1w", "sub-02_T1w"),
    }
    quality = table(tmp_path / "group_qc.tsv")
    assert [row["scan"] for row in quality] == ["sub-01_ses-1_FLAIR", "sub-01_ses-2_FLAIR", "sub-02_T1w"]
    assert quality[0]["Warnings"] == "n/a"
    assert "Outputs" not in quality[0]
    lesions = table(tmp_path / "group_lesions.tsv")
    assert [(row["level"], row["volume_mm3"]) for row in lesions] == [
        ("total", "500.0"),
        ("zone", "500.0"),
        ("lobe", "500.0"),
    ]


def test_numbers_of_lesions_over_sessions(tmp_path: Path) -> None:
    for session in ("1", "2"):
        add_scan(tmp_path, "01", session)
        add_lesions(tmp_path, "01", session, 500.0)
    add_scan(tmp_path, "02", "1")
    add_changes(tmp_path, "01", new=3)
    run(tmp_path)
    changes = table(tmp_path / "group_lesionchanges.tsv")
    assert [(row["participant_id"], row["status"]) for row in changes] == [
        ("sub-01", s) for s in ["stable"] + ["new"] * 3
    ]
    assert list(json.loads((tmp_path / "group_lesionchanges.json").read_text())) == list(changes[0])
    page = tmp_path / "group.html"
    data, scale = json.loads(script(page, "data")), json.loads(script(page, "scale"))
    steps = np.frombuffer(gzip.decompress(base64.b64decode(script(page, "matrix"))), "<u2").reshape(len(scale), -1)
    lesions = [n for n, entry in enumerate(data["entries"]) if data["kinds"][entry[1]] == "lesions"]
    for scheme, key, expected in (("change", "new", [0, 4]), ("change", "stable", [0, 2]), ("count", "all", [2, 2])):
        column = [(c[0], c[1]) for c in data["columns"]].index((scheme, key))
        found = [round(1 + (step - 1) * scale[column]) if step else 0 for step in steps[column, lesions].astype(int)]
        assert found == expected, (scheme, key)


@pytest.mark.parametrize("name", ["volumes", "qc", "lesions"])
def test_every_column_is_described(tmp_path: Path, name: str) -> None:
    add_scan(tmp_path, "01", "1")
    add_lesions(tmp_path, "01", "1", 500.0)
    run(tmp_path)
    described = json.loads((tmp_path / f"group_{name}.json").read_text(encoding="utf-8"))
    assert list(table(tmp_path / f"group_{name}.tsv")[0]) == list(described)
    assert all(entry["Description"] for entry in described.values())


def test_without_lesions_there_is_no_table_of_them(tmp_path: Path) -> None:
    add_scan(tmp_path, "01", "1")
    write_text(tmp_path / "group_lesions.tsv", "of an earlier run")
    run(tmp_path)
    assert {path.name for path in tmp_path.glob("group*")} == {
        *("group.html", "group_qc.json", "group_qc.tsv", "group_volumes.json", "group_volumes.tsv"),
    }


def test_nothing_to_gather_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(NothingSelected, match="run the participant level first"):
        run(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["not json", "[1, 2]", ""])
def test_what_cannot_be_read_is_left_out_and_told(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add_scan(tmp_path, "01")
    add_scan(tmp_path, "02").write_text(damage)
    short = add_scan(tmp_path, "03")
    (short.parent / "sub-03_desc-FLAIR_volumes.tsv").write_text("\t".join(VOLUME_COLUMNS) + "\nregions\t4\n")
    (add_scan(tmp_path, "04").parent / "sub-04_desc-FLAIR_volumes.tsv").unlink()
    run(tmp_path)
    assert {row["scan"] for row in table(tmp_path / "group_volumes.tsv")} == {"sub-01_FLAIR"}
    warned = capsys.readouterr().err
    assert warned.count("left out") == 3
    assert "sub-03_FLAIR: left out" in (tmp_path / "group.html").read_text(encoding="utf-8")


def test_the_reason_is_told_where_nothing_can_be_read(tmp_path: Path) -> None:
    for participant in ("01", "02"):
        add_scan(tmp_path, participant).write_text("not json")
    told = r"no segmented scan can be read: sub-01_FLAIR: left out: .*_qc.json: not readable as JSON .* and 1 more"
    with pytest.raises(NothingSelected, match=told):
        run(tmp_path)


WIDE = b"a\tb\n" + b"x" * 200_000
UTF_16 = "scheme\tindex\n".encode("utf-16")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("ses-1/anat/sub-01_ses-1_desc-FLAIR_volumes.tsv", WIDE, "a table (Error: field larger than field limit"),
        ("ses-1/anat/sub-01_ses-1_desc-FLAIR_volumes.tsv", UTF_16, "a table (UnicodeDecodeError: "),
        ("ses-1/anat/sub-01_ses-1_desc-FLAIR_volumes.tsv", None, "a table (FileNotFoundError: "),
        ("ses-1/anat/sub-01_ses-1_desc-FLAIR_qc.json", b'{"Model": ', "JSON (JSONDecodeError: Expecting value"),
        ("ses-1/anat/sub-01_ses-1_desc-FLAIR_qc.json", b"[1, 2]", "JSON (ValueError: not a JSON object)"),
        ("ses-1/anat/sub-01_ses-1_desc-lesionload_lesions.tsv", WIDE, "a table (Error: field larger"),
        ("sub-01_desc-lesionchanges_lesions.tsv", UTF_16, "a table (UnicodeDecodeError: "),
        ("sub-01_desc-lesionchangesummary_lesions.json", b"{}", "JSON (KeyError: 'Intervals')"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(
    name: str, content: bytes | None, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for participant in ("01", "02"):
        add_scan(tmp_path, participant, "1")
        add_lesions(tmp_path, participant, "1", 500.0)
        add_changes(tmp_path, participant, new=3)
    damaged = tmp_path / "sub-01" / name
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    run(tmp_path)
    [line] = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert line.startswith("warning: sub-01")
    assert f": left out: {damaged}: not readable as {found}" in line
    assert line.endswith("; run the participant level again with --participant-label 01 --overwrite")


@pytest.mark.parametrize("ending", ["desc-FLAIR_volumes.tsv", "desc-FLAIR_qc.json", "desc-lesionload_lesions.tsv"])
@pytest.mark.parametrize(
    "text", ["a\tb\n" + "x" * 200_000, '"', "\0", "[" * 100_000, '{"a": 1e999}', "\t\t\n" * 9, "scheme\tindex\nx\ty\n"]
)
def test_the_odd_files_of_one_participant_leave_the_others_alone(ending: str, text: str, tmp_path: Path) -> None:
    for participant in ("01", "02"):
        add_scan(tmp_path, participant)
    (tmp_path / "sub-01" / "anat" / f"sub-01_{ending}").write_text(text)
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text(text)
    run(tmp_path)
    assert {row["scan"] for row in table(tmp_path / "group_volumes.tsv")} >= {"sub-02_FLAIR"}


def test_no_cell_of_the_tables_is_a_formula(tmp_path: Path) -> None:
    marker = add_scan(tmp_path, "01")
    write_text(marker, json.dumps({**json.loads(marker.read_text()), "Model": "=1+1", "@x": -1.5, "Warnings": ["+a"]}))
    volumes = marker.with_name("sub-01_desc-FLAIR_volumes.tsv")
    write_text(volumes, volumes.read_text().replace("Left-Thalamus", "@Left\u2028Thalamus"))
    run(tmp_path)
    [quality] = table(tmp_path / "group_qc.tsv")
    assert (quality["Model"], quality["Warnings"], quality["'@x"]) == ("'=1+1", "'+a", "-1.5")
    assert "'@Left Thalamus" in {row["name"] for row in table(tmp_path / "group_volumes.tsv")}


def test_tables_of_other_versions_are_matched_by_name(tmp_path: Path) -> None:
    write_text(tmp_path / "x.tsv", "name\tnew\tindex\na\t1\t2\n")
    found = read_table(tmp_path / "x.tsv", ["index", "name", "gone"])
    assert found.rows == [["2", "a", "n/a"]]
    assert list(found.cells("name", "index")) == [("a", "2")]


def test_a_new_column_leaves_the_measures_what_they_are() -> None:
    cohort = Cohort()
    volumes = Table(("new", "scheme", "voxels", "index", "volume_mm3"), [["9", "regions", "7", "17", "4000"]])
    numbers = cohort.numbers_of_volumes(volumes)
    assert numbers[cohort.position["regions", "17"]] == 4
    loads = Table(("count", "new", "level", "volume_mm3", "name"), [["3", "9", "zone", "2000", "juxtacortical"]])
    numbers = cohort.numbers_of_lesions(loads)
    assert numbers[cohort.position["zone", "juxtacortical"]] == 2
    assert numbers[cohort.position["count", "juxtacortical"]] == 3


def test_source_entities(tmp_path: Path) -> None:
    write_text(tmp_path / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_acq-x_run-2_desc-T1w_qc.json", "{}")
    write_text(tmp_path / "sub-01" / "ses-a" / "anat" / "sub-01_final_desc-T1w_qc.json", "of another program")
    [source] = sources(tmp_path)
    assert source.cells == ("sub-01", "ses-a", "T1w", "sub-01_ses-a_acq-x_run-2_T1w")


def test_who_stands_out_links_to_the_report(tmp_path: Path) -> None:
    for number in range(20):
        add_scan(tmp_path, f"{number:02d}", factor=1 + 0.01 * (number % 5))
    marker = add_scan(tmp_path, "far", factor=3.0)
    run(tmp_path)
    text = (tmp_path / "group.html").read_text(encoding="utf-8")
    assert text.count(f'href="sub-far.html#{marker.name.removesuffix("_qc.json")}"') == 1
    assert "Left thalamus (regions)" in text
    assert 'href="sub-01.html#' not in text


def test_nothing_of_the_user_becomes_markup(tmp_path: Path) -> None:
    marker = add_scan(tmp_path, "01")
    quality = json.loads(marker.read_text())
    write_text(marker, json.dumps({**quality, "Warnings": [NASTY], "Verdict": NASTY}))
    run(tmp_path)
    assert NASTY not in (tmp_path / "group.html").read_text(encoding="utf-8")


def test_the_page_holds_all_values(tmp_path: Path) -> None:
    for number in range(5):
        add_scan(tmp_path, f"{number:02d}", factor=1 + 0.1 * number)
    run(tmp_path)
    data = json.loads(script(tmp_path / "group.html", "data"))
    scale = json.loads(script(tmp_path / "group.html", "scale"))
    steps = np.frombuffer(gzip.decompress(base64.b64decode(script(tmp_path / "group.html", "matrix"))), "<u2")
    values = (steps.reshape(len(data["columns"]), -1).astype(float) - 1) * np.array(scale)[:, None]
    column = [c[:2] for c in data["columns"]].index(["regions", str(THALAMUS)])
    assert values[column] == pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4], rel=1e-4)
    assert data["statistics"]["FLAIR"]["ml"][column][10] == pytest.approx(1.2)
    assert data["statistics"]["FLAIR"]["share"][column][10] == pytest.approx(0.12)


def test_robust_z_by_hand() -> None:
    values = np.array([[v] for v in (1, 2, 3, 4, 5, 6, 7, 8, 104)], np.float32)
    found = distribution(values)
    assert found.spread[0] == pytest.approx(2 / 0.6745)  # deviations from 5: 4 3 2 1 0 1 2 3 99
    assert found.z(values)[-1, 0] == pytest.approx(99 * 0.6745 / 2)
    assert np.isnan(distribution(values[:5]).z(values[:5])).all()


def test_missing_values_leave_the_rest_alone() -> None:
    volumes = np.array([[1, np.nan], [3, np.nan], [np.nan, np.nan]], np.float32)
    found = statistics_of(volumes, np.full((3, 1), 100.0), False)
    assert found.ml.percentiles[10].tolist()[0] == 2
    assert found.share.percentiles[10, 0] == pytest.approx(2)
    assert np.isnan(found.ml.percentiles[:, 1]).all()
    packed = np.frombuffer(gzip.decompress(base64.b64decode(matrix(volumes)["text"])), "<u2")
    assert (packed > 0).tolist() == [True, True, False, False, False, False]


def test_of_too_many_scans_those_of_participants_that_stand_out_are_drawn() -> None:
    z = np.array([[0.1], [5.0], [np.nan], [-7.0], [0.2]], np.float32)
    who = ["sub-1", "sub-2", "sub-3", "sub-1", "sub-3"]
    assert shown_entries(who, z, 2).tolist() == [0, 3]  # both visits of sub-1
    assert shown_entries(who, z, 3).tolist() == [0, 1, 3]
    assert shown_entries(who, z, 5).tolist() == [0, 1, 2, 3, 4]


def test_visits_are_in_order_of_time_or_else_of_numbers(tmp_path: Path) -> None:
    entries = [Entry("sub-01", session, "T1w", "", "", {}) for session in ("ses-M12", "ses-M2", "ses-M0", "ses-M2")]
    assert visit_numbers(tmp_path, entries) == [2, 1, 0, 1]
    times = "session_id\tacq_time\nses-M12\t2001-01-01T00:00:00\nses-M0\t2003-01-01T00:00:00\n"
    write_text(tmp_path / "sub-01" / "sub-01_sessions.tsv", times + "ses-M2\t2002-01-01T00:00:00\n")
    assert visit_numbers(tmp_path, entries) == [0, 1, 2, 1]


def test_a_cohort_knows_every_label() -> None:
    cohort = Cohort()
    schemes = {column.scheme for column in cohort.columns}
    assert schemes == {"regions", "lobes", "gyri", "total", "zone", "lobe", "count", "change"}
    assert len(cohort.position) == len(cohort.columns)


def test_memory_holds_numbers_rather_than_tables(tmp_path: Path) -> None:
    peaks, sizes = [], []
    for number in range(300):
        add_scan(tmp_path, f"{number:03d}")
        if number in (99, 299):
            run(tmp_path)  # caches
            tracemalloc.start()
            run(tmp_path)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            sizes.append((tmp_path / "group_volumes.tsv").stat().st_size)
    assert peaks[1] - peaks[0] < 3 * (sizes[1] - sizes[0])  # rows of cells take eight times as much


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")
def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    for number in range(12):
        for session in ("1", "2"):
            add_scan(tmp_path, f"{number:02d}", session, factor=1 + 0.01 * number)
            add_lesions(tmp_path, f"{number:02d}", session, 100.0 * number)
        add_changes(tmp_path, f"{number:02d}", new=number)
    run(tmp_path)
    with browser() as tab:
        tab.open(tmp_path / "group.html")
        tab.wait_for("document.body?.dataset.state === 'ready'", 120)
        assert tab.evaluate("document.querySelectorAll('#strips tbody tr').length") == len(label_table("regions"))
        assert tab.evaluate("page.plot.points.length") == 24
        assert tab.evaluate("page.plot.visits") == 2
        tab.evaluate("document.querySelector('#choose-kind [data-value=\"1\"]').click()")
        assert tab.evaluate("document.getElementById('detail-title').textContent") == "All, lesions"
        tab.evaluate("document.querySelector('#choose-scheme [data-value=change]').click()")
        assert tab.evaluate("document.getElementById('detail-range').textContent").endswith("lesions")
        assert tab.evaluate("page.plot.points.length") == 12
        assert tab.evaluate("page.address(0)") == "sub-00.html#sub-00_ses-1_desc-FLAIR"
        assert tab.errors == []
        assert tab.outside_requests == []
