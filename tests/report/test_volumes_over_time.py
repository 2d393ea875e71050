"""The sessions of a participant side by side: what is compared, by how much it changed, and when the table goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bidsseg.bids.names import Scan
from bidsseg.bids.outputs import ParticipantOutputs, ScanOutputs, sidecar_of
from bidsseg.files import read_tsv, table, write_json, write_text
from bidsseg.imaging.image import save
from bidsseg.labels import SCHEMES, Scheme, is_fluid, label_table, other_sides
from bidsseg.report.time_charts import HEIGHT, MARGIN, WIDTH, read_time_charts
from bidsseg.report.volumes_over_time import (
    COLUMNS,
    THICK_MM,
    WITHIN_ERROR,
    rescan_error,
    rescan_errors,
    series_of,
    slice_mm_of,
    write_volumes_over_time,
)
from bidsseg.segmentation.volumes import VOLUME_COLUMNS
from bidsseg.workflow.finishing import report_is_stale, write_reports

LEFT_THALAMUS, RIGHT_THALAMUS, CSF, LEFT_VENTRICLE = 10, 49, 24, 4
VOLUMES = {LEFT_THALAMUS: 8000.0, RIGHT_THALAMUS: 8000.0, CSF: 1000.0, LEFT_VENTRICLE: 3000.0}


def add(out: Path, name: str, volumes: dict[int, float] | None = None) -> ScanOutputs:
    """The quality file and the volumes of a scan of sub-01, by the rest of its name."""
    *pairs, suffix = name.split("_")
    entities = (("sub", "01"), *((key, value) for key, _, value in (pair.partition("-") for pair in pairs)))
    place = ScanOutputs(Scan(Path("sub-01_" + name), entities, suffix), out, out)
    labels = {label.index: label for label in label_table("regions")}
    found = VOLUMES | (volumes or {})
    rows = [
        ("regions", index, labels[index].name, labels[index].hemisphere, 1, mm3, mm3 / sum(found.values()), 1, "")
        for index, mm3 in found.items()
    ]
    write_text(place.volumes, table(tuple(VOLUME_COLUMNS), rows))
    write_json(place.quality, {"Verdict": "pass", "SoftwareVersion": "1"})
    return place


def dated(out: Path, **times: str) -> None:
    rows = [(f"ses-{label}", time) for label, time in times.items()]
    write_text(out / "sub-01" / "sub-01_sessions.tsv", table(("session_id", "acq_time"), rows))


def written(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the table by name and session."""
    write_volumes_over_time(out, "01")
    rows = read_tsv(ParticipantOutputs(out, "01").volumes_over_time)
    assert all(tuple(row) == tuple(COLUMNS) for row in rows)
    return {(row["name"], row["session_id"]): row for row in rows}


def test_changes_and_the_brain_without_fluid(tmp_path: Path) -> None:
    """Two years; the left thalamus loses 10 %, its fluid the same volume gains: 16 of 20 mL are brain, then 15.2."""
    add(tmp_path, "ses-a_FLAIR", {LEFT_THALAMUS: 7200, LEFT_VENTRICLE: 3800})
    add(tmp_path, "ses-b_FLAIR")
    dated(tmp_path, a="2022-01-01T10:00:00", b="2020-01-01")
    rows = written(tmp_path)
    assert list(rows)[:2] == [("brain-parenchyma", "ses-b"), ("brain-parenchyma", "ses-a")]
    first, last = rows["Left-Thalamus", "ses-b"], rows["Left-Thalamus", "ses-a"]
    assert [first[name] for name in ("change_percent", "exceeds_error", "years")] == ["n/a", "n/a", "0.0"]
    assert float(last["years"]) == pytest.approx(2, abs=0.01)
    assert (last["change_percent"], last["exceeds_error"]) == ("-10.0", "yes")
    assert float(last["change_percent_per_year"]) == pytest.approx(-5, abs=0.02)
    assert rows["Right-Thalamus", "ses-a"]["exceeds_error"] == "no"
    brain = rows["brain-parenchyma", "ses-a"]
    assert (float(brain["volume_mm3"]), float(brain["fraction_of_intracranial"])) == (15_200, 0.76)
    assert brain["fraction_change_percent"] == "-5.0"
    assert float(rows["CSF", "ses-a"]["change_percent"]) == 0


@pytest.mark.parametrize(
    ("times", "years"),
    [
        ({}, "n/a"),
        ({"1": "2020-01-01"}, "n/a"),
        ({"1": "2020-01-01", "2": "2020-13-01"}, "n/a"),
        ({"1": "2020-01-01", "2": "2020-01-01T20:00:00"}, "0.0"),
    ],
)
def test_no_change_per_year_without_times(tmp_path: Path, times: dict[str, str], years: str) -> None:
    add(tmp_path, "ses-1_T1w")
    add(tmp_path, "ses-2_T1w", {LEFT_THALAMUS: 8080})
    dated(tmp_path, **times)
    row = written(tmp_path)["Left-Thalamus", "ses-2"]
    assert (row["years"], row["change_percent_per_year"]) == (years, "n/a")
    assert (row["change_percent"], row["exceeds_error"]) == ("1.0", "no")


@pytest.mark.parametrize(("slice_mm", "share"), [(0.5, 0), (1, 0), (2, 0.25), (5, 1), (8, 1)])
def test_the_error_grows_with_the_slices(slice_mm: float, share: float) -> None:
    thin, thick = rescan_errors()["regions", str(LEFT_VENTRICLE)]
    assert rescan_error("regions", str(LEFT_VENTRICLE), slice_mm) == pytest.approx(thin + share * (thick - thin))


def test_the_error_of_every_label_is_known_and_that_of_both_sides_alike() -> None:
    labels = {(scheme, str(label.index)) for scheme in SCHEMES for label in label_table(scheme)}
    assert {*labels, ("brain", "0")} <= set(rescan_errors())
    for scheme in SCHEMES:
        for one, other in other_sides(scheme).items():
            assert rescan_errors()[scheme, str(one)] == rescan_errors()[scheme, str(other)]


def test_slices_are_those_of_the_label_images(tmp_path: Path) -> None:
    place = add(tmp_path, "ses-1_T1w")
    assert slice_mm_of(place) == THICK_MM
    save(place.labels("lobes"), np.ones((2, 2, 2), np.uint16), np.diag((0.5, 3.0, 1.0, 1.0)))
    assert slice_mm_of(place) == 3


def test_what_was_not_there_before_has_no_change(tmp_path: Path) -> None:
    add(tmp_path, "ses-1_T1w", {CSF: 0})
    add(tmp_path, "ses-2_T1w")
    row = written(tmp_path)["CSF", "ses-2"]
    assert (row["change_percent"], row["exceeds_error"]) == ("n/a", "n/a")
    (chart,) = read_time_charts(ParticipantOutputs(tmp_path, "01").volumes_over_time)
    csf = next(row.first for row in chart.rows if row.name == "CSF")
    assert csf is not None
    assert (csf.last_change, len(chart.points(csf))) == ("", 1)


@pytest.mark.parametrize(
    ("names", "compared"),
    [
        (("ses-1_T1w", "ses-2_FLAIR"), {}),
        (("T1w",), {}),
        (("ses-1_acq-2d_FLAIR", "ses-2_acq-3d_FLAIR"), {}),
        (("ses-1_run-1_T1w", "ses-1_run-2_T1w"), {}),
        (("ses-10_acq-2d_FLAIR", "ses-2_acq-2d_FLAIR", "ses-2_T1w"), {"acq-2d_FLAIR": ["2", "10"]}),
        (("ses-1_T1wfused", "ses-2_T1wfused"), {"T1wfused": ["1", "2"]}),
    ],
)
def test_only_scans_that_differ_in_their_session_are_compared(
    tmp_path: Path, names: tuple[str, ...], compared: dict[str, list[str]]
) -> None:
    for name in names:
        add(tmp_path, name)
    found = {shared: [place.scan.session for place in places] for shared, places in series_of(tmp_path, "01").items()}
    assert found == compared
    write_volumes_over_time(tmp_path, "01")
    assert ParticipantOutputs(tmp_path, "01").volumes_over_time.exists() == bool(compared)


def test_the_table_is_written_with_the_report_and_goes_with_the_second_session(tmp_path: Path) -> None:
    add(tmp_path, "ses-1_T1w")
    second = add(tmp_path, "ses-2_T1w")
    found = ParticipantOutputs(tmp_path, "01")
    assert write_reports(tmp_path, ["01"], 1) == []
    assert not report_is_stale(tmp_path, "01")
    assert "Volumes over time" in found.report.read_text(encoding="utf-8")
    second.quality.unlink()
    assert report_is_stale(tmp_path, "01")
    assert write_reports(tmp_path, ["01"], 1) == []
    assert not found.volumes_over_time.exists()
    assert not sidecar_of(found.volumes_over_time).exists()
    assert "Volumes over time" not in found.report.read_text(encoding="utf-8")
    assert not report_is_stale(tmp_path, "01")


def test_a_table_of_somebody_else_stays(tmp_path: Path) -> None:
    add(tmp_path, "ses-1_T1w")
    add(tmp_path, "ses-2_T1w")
    theirs = ParticipantOutputs(tmp_path, "01").volumes_over_time
    write_text(theirs, "mine\n1\n")
    (line,) = write_reports(tmp_path, ["01"], 1)
    assert "was not written by bidsseg" in line
    assert theirs.read_text(encoding="utf-8") == "mine\n1\n"


def test_unreadable_volumes_leave_the_other_sessions(tmp_path: Path) -> None:
    places = [add(tmp_path, f"ses-{session}_T1w") for session in (1, 2, 3)]
    places[1].volumes.write_bytes(b"\xff\x00damaged")
    assert {session for _, session in written(tmp_path)} == {"ses-1", "ses-3"}


def test_curves_lie_in_their_drawing_and_the_error_in_the_middle(tmp_path: Path) -> None:
    """Sessions after 0, 1 and 4 years; left thalamus up by 50 %, which runs along the edge."""
    error = round(rescan_error("regions", str(LEFT_THALAMUS), 5), 2)
    for session, left in ((1, 8000), (2, 8000 * (1 + WITHIN_ERROR * error / 100)), (3, 12_000)):
        add(tmp_path, f"ses-{session}_T1w", {LEFT_THALAMUS: left})
    dated(tmp_path, **{"1": "2020-01-01", "2": "2020-12-31", "3": "2024-01-01"})
    write_volumes_over_time(tmp_path, "01")
    (chart,) = read_time_charts(ParticipantOutputs(tmp_path, "01").volumes_over_time)
    assert chart.sessions == "1 (2020-01-01), 2 (2020-12-31), 3 (2024-01-01)"
    assert [row.name for row in chart.rows[:3]] == ["Brain parenchyma", "Brain parenchymal fraction, %", "Thalamus"]
    thalamus = chart.rows[2]
    assert thalamus.first is not None
    assert thalamus.right is not None
    (x0, y0), (x1, y1), (x2, y2) = chart.points(thalamus.first)
    assert (x0, y0, x2, y2) == (MARGIN, HEIGHT / 2, WIDTH - MARGIN, 3)
    assert x1 == pytest.approx(MARGIN + (WIDTH - 2 * MARGIN) / 4, abs=0.3)
    (upper, height), inner = chart.bands(thalamus)
    assert y1 == pytest.approx(upper, abs=0.11)
    assert upper + height / 2 == pytest.approx(HEIGHT / 2, abs=0.1)
    assert upper < inner[0] < HEIGHT / 2
    assert (thalamus.first.first_and_last, thalamus.first.last_change) == ("8.00 → 12.00", "+50.0")
    assert (thalamus.first.yearly, thalamus.first.exceeds_error) == ("+12.5", True)
    assert {y for _, y in chart.points(thalamus.right)} == {HEIGHT / 2}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_knows_its_fluid(scheme: Scheme) -> None:
    fluid = {label.name for label in label_table(scheme) if is_fluid(scheme, label.index)}
    assert any("entricle" in name for name in fluid)
    assert any("CSF" in name.upper() for name in fluid)
    assert not any("Thalamus" in name or "White" in name or "grey" in name for name in fluid)
