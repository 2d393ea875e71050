"""The comparison with other tools: what their labels mean, how they are merged, and what is kept between runs."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bidsseg.files import read_tsv
from bidsseg.imaging.image import save
from bidsseg.labels import MIDLINE_TISSUES, TISSUES, label_table

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIDED, MIDLINE = 14, 3
"Structures that were outlined by hand: on both sides, and on the midline."


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("peers")


def tool(peers: ModuleType, name: str) -> Any:
    return next(tool for tool in peers.TOOLS if tool.name == name)


def test_every_label_of_others_has_a_known_meaning(peers: ModuleType) -> None:
    rows = read_tsv(BENCHMARKS / "peer_labels.tsv")
    assert {row["tool"] for row in rows} == {tool.name for tool in peers.TOOLS if not tool.own_labels}
    assert max(Counter((row["tool"], row["index"]) for row in rows).values()) == 1
    for row in rows:
        assert row["tissue"] in TISSUES
        assert row["source"]
        side = {"Left": "L", "Righ": "R"}.get(row["name"][:4], "")
        assert row["hemisphere"] == side, row["name"]
        assert not (side and row["tissue"] in MIDLINE_TISSUES)


def test_labels_of_freesurfer_are_ours_where_names_are(peers: ModuleType) -> None:
    ours = {label.name: label.index for label in label_table("regions")}
    shared = [
        row for row in read_tsv(BENCHMARKS / "peer_labels.tsv") if row["name"] in ours and row["tool"] == "samseg"
    ]
    assert len(shared) == 28  # all regions but lobes
    assert all(int(row["index"]) == ours[row["name"]] for row in shared)


@pytest.mark.parametrize(
    ("place", "names"),
    [
        (("cortex", "L", "frontal"), ("cortex", "L cortex", "L cortex frontal")),
        (("cortex", "L", ""), ("cortex", "L cortex", "")),
        (("white-matter", "", ""), ("white-matter", "", "")),
        (("hippocampus", "R", ""), ("hippocampus", "R hippocampus", "R hippocampus")),
        (("brainstem", "", ""), ("brainstem", "brainstem", "brainstem")),
    ],
)
def test_a_label_has_a_name_where_it_says_enough(
    peers: ModuleType, place: tuple[str, str, str], names: tuple[str, ...]
) -> None:
    assert tuple(peers.Place(*place).name(level) for level in peers.LEVELS) == names


@pytest.mark.parametrize(
    ("compared", "level", "count"),
    [
        (("bidsseg", "ANTs, one atlas"), "regions", 2 * (SIDED - 2) + 2 * 2 * 6 + MIDLINE),
        (("bidsseg", "samseg"), "sides", 2 * SIDED + MIDLINE),
        (("bidsseg", "samseg", "brainchop"), "structures", SIDED + MIDLINE),
    ],
)
def test_tools_are_compared_as_finely_as_all_allow(
    peers: ModuleType, compared: tuple[str, ...], level: str, count: int
) -> None:
    found, names = peers.common([tool(peers, name) for name in compared])
    assert (found, len(names)) == (level, count)
    assert "csf" not in names


def test_merging(peers: ModuleType) -> None:
    names = ["L cortex", "R white-matter", "L lateral-ventricle"]
    of_samseg = peers.merged(np.array([0, 3, 42, 41, 62, 4, 31, 77, 258]), tool(peers, "samseg"), "sides", names)
    assert of_samseg.tolist() == [0, 1, 0, 2, 2, 3, 3, 0, 0]
    of_ours = peers.merged(np.array([0, 1301, 1306, 2301, 4201, 4206, 4]), peers.TOOLS[0], "sides", names)
    assert of_ours.tolist() == [0, 1, 1, 0, 2, 2, 3]
    both_sides = peers.merged(np.array([2, 41, 77, 3]), tool(peers, "samseg"), "structures", ["white-matter"])
    assert both_sides.tolist() == [1, 1, 1, 0]


def test_dice_of_labels_that_differ_in_number_alone(peers: ModuleType) -> None:
    reference = np.array([[1301, 1304], [2301, 17], [24, 0]], np.uint16)
    found = np.array([[3, 3], [42, 0], [17, 258]])
    names = ["L cortex", "R cortex", "L hippocampus", "R hippocampus"]
    dice = peers.dice_by_name(reference, found, tool(peers, "samseg"), "sides", names)
    assert dice == {"L cortex": 1, "R cortex": 1, "L hippocampus": 0}


def test_what_was_measured_is_kept_and_what_failed_is_tried_again(peers: ModuleType, tmp_path: Path) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    scan = peers.Scan("sub-01-FLAIR", "sub-01", 0)
    path = peers.scan_path(scan, data, work)
    save(path, np.ones((4, 4, 4), np.float32), np.eye(4))
    tries = tmp_path / "tries.txt"

    def peer(name: str, code: str) -> Any:
        def command(job: Any) -> list[str]:
            started = f"open({str(tries)!r}, 'a').write({name[0]!r}); "
            return [sys.executable, "-c", started + code.format(scan=job.scan, folder=job.folder)]

        return peers.Tool(name, "", "", "sides", "labels.nii.gz", command, "")

    copies = peer("copies", "import shutil; shutil.copy('{scan}', '{folder}/labels.nii.gz')")
    fails = peer("fails", "raise SystemExit('no weights')")
    silent = peer("silent", "")
    for _ in range(2):
        peers.measure([copies, fails, silent], [scan], data, work, 1)
    assert Counter(tries.read_text()) == {"c": 1, "f": 2, "s": 2}
    rows = {row.tool: row for row in peers.read_rows(work / "measured.tsv")}
    assert {name: row.outcome for name, row in rows.items()} == {
        "copies": "measured",
        "fails": "failed",
        "silent": "failed",
    }
    assert rows["fails"].reason == "no weights"
    assert "labels.nii.gz" in rows["silent"].reason
    assert rows["copies"].cpu_seconds > 0
    assert rows["copies"].peak_gib > 0
    (peers.job_folder(copies, scan, work) / copies.output).unlink()
    peers.measure([copies], [scan], data, work, 1)
    assert Counter(tries.read_text())["c"] == 2


def test_a_tool_that_failed_is_in_the_table_with_its_reason(peers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "miccai2012-train" / "sub-1015").mkdir(parents=True)
    row = peers.Row("brainchop", "sub-1015-1mm", tool(peers, "brainchop").version, "failed", "weights are out of reach")
    text = peers.report(peers.Results((row,), tmp_path, tmp_path), 1)
    assert "failed: `weights are out of reach`" in text
    assert text.count("not measured yet") == len(peers.TOOLS) - 1
