"""Maps of lesion frequency: shares countable by hand, by group, and nothing of the user's replaced."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from bidsseg.bids.names import parse_scan
from bidsseg.bids.outputs import ScanOutputs, sidecar_of
from bidsseg.bids.participant_groups import Groups
from bidsseg.errors import UserError
from bidsseg.files import write_text
from bidsseg.imaging.image import in_mni, save
from bidsseg.lesions.tables import LOAD_COLUMNS
from bidsseg.report.frequency_view import grey_picture
from bidsseg.report.group_tables import run
from bidsseg.report.lesion_frequency import write_frequency_maps
from bidsseg.segmentation.template_labels import template
from tests.browser import CHROMIUM, browser
from tests.report.test_group_tables import NASTY, add_scan, script
from tests.report.test_participant import COLORS

Voxel = tuple[int, int, int]
HERE, THERE, ELSEWHERE = (80, 110, 80), (81, 110, 80), (90, 130, 95)
BY_SEX = Groups("sex", {"sub-01": "F", "sub-02": "F", "sub-03": "M"})
ALL, F, M = (
    f"group_space-MNI152NLin2009aSym_label-lesion_desc-{name}_frequency.nii.gz" for name in ("all", "sexF", "sexM")
)


def add_mask(out: Path, participant: str, *lesion: Voxel, session: str | None = None) -> Path:
    """A finished scan whose lesions lie in these voxels of the template."""
    add_scan(out, participant, session)
    name = "_".join([f"sub-{participant}", *([f"ses-{session}"] if session else []), "FLAIR.nii.gz"])
    outputs = ScanOutputs(parse_scan(Path(name)), out, out)
    mask = np.zeros(template().tissue.shape, np.uint8)
    mask[tuple(np.array(lesion, int).reshape(-1, 3).T)] = 1
    save(outputs.lesions_in_template, mask, template().affine, in_mni(mask, template().affine))
    write_text(outputs.lesions.load_table, "\t".join(LOAD_COLUMNS) + "\n")
    write_text(outputs.lesions.summary, "{}")
    return outputs.lesions_in_template


def three(out: Path) -> None:
    """Two of three have a lesion here, one also beside it, one elsewhere."""
    add_mask(out, "01", HERE, THERE)
    add_mask(out, "02", HERE)
    add_mask(out, "03", ELSEWHERE)


def shares(path: Path) -> dict[Voxel, float]:
    """Of the voxels that are not 0."""
    stored = np.asarray(nib.load(path).dataobj)
    found = np.argwhere(stored)
    return {(int(i), int(j), int(k)): float(stored[i, j, k]) for i, j, k in found}


def maps_in(out: Path) -> set[str]:
    return {path.name for path in out.glob("group_space*")}


def both(*names: str) -> set[str]:
    """Images and their sidecars."""
    return {*names, *(name.replace(".nii.gz", ".json") for name in names)}


def test_shares_by_hand(tmp_path: Path) -> None:
    three(tmp_path)
    add_scan(tmp_path, "04")  # no lesions were looked for: not counted
    run(tmp_path)
    assert maps_in(tmp_path) == both(ALL)
    assert shares(tmp_path / ALL) == pytest.approx({HERE: 2 / 3, THERE: 1 / 3, ELSEWHERE: 1 / 3})
    stored = nib.load(tmp_path / ALL)
    assert stored.get_data_dtype() == np.float32
    assert np.array_equal(stored.affine, template().affine)
    assert int(stored.header["sform_code"]) == 4  # MNI152
    about = json.loads(sidecar_of(tmp_path / ALL).read_text())
    assert about["Participants"] == 3
    assert about["SpatialReference"] == "MNI152NLin2009aSym"
    assert about["Sources"][0] == (
        "bids::sub-01/anat/sub-01_space-MNI152NLin2009aSym_label-lesion_desc-FLAIR_mask.nii.gz"
    )
    assert "Group" not in about


def test_a_participant_without_lesions_counts(tmp_path: Path) -> None:
    add_mask(tmp_path, "01", HERE)
    add_mask(tmp_path, "02")
    run(tmp_path)
    assert shares(tmp_path / ALL) == {HERE: 0.5}


def test_shares_of_groups_by_hand(tmp_path: Path) -> None:
    three(tmp_path)
    add_mask(tmp_path, "04", HERE)
    problems: list[str] = []
    maps = write_frequency_maps(tmp_path, BY_SEX, problems)
    assert [(one.title, one.participants) for one in maps] == [("All participants", 4), ("sex: F", 2), ("sex: M", 1)]
    assert shares(tmp_path / ALL) == {HERE: 0.75, THERE: 0.25, ELSEWHERE: 0.25}
    assert shares(tmp_path / F) == {HERE: 1, THERE: 0.5}
    assert shares(tmp_path / M) == {ELSEWHERE: 1}
    assert json.loads(sidecar_of(tmp_path / F).read_text())["Group"] == {"sex": "F"}
    assert problems == ["in no map by sex, as participants.tsv has no value: sub-04"]


def test_of_several_sessions_the_earliest_with_a_mask_counts(tmp_path: Path) -> None:
    add_mask(tmp_path, "01", HERE, session="2")
    add_mask(tmp_path, "01", THERE, session="10")
    add_scan(tmp_path, "01", "1")
    add_mask(tmp_path, "02", HERE, session="a")
    add_mask(tmp_path, "02", ELSEWHERE, session="b")
    times = "session_id\tacq_time\nses-a\t2021-01-01\nses-b\t2020-01-01\n"
    write_text(tmp_path / "sub-02" / "sub-02_sessions.tsv", times)
    run(tmp_path)
    assert shares(tmp_path / ALL) == {HERE: 0.5, ELSEWHERE: 0.5}


def test_without_masks_nothing_changes_and_earlier_maps_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three(tmp_path)
    run(tmp_path, BY_SEX)
    assert maps_in(tmp_path) == both(ALL, F, M)
    run(tmp_path)
    assert maps_in(tmp_path) == both(ALL)
    for mask in tmp_path.rglob("*_mask.nii.gz"):
        mask.unlink()
    assert capsys.readouterr().err == ""
    run(tmp_path, BY_SEX)
    assert maps_in(tmp_path) == set()
    assert "so there are no maps by sex" in capsys.readouterr().err
    page = (tmp_path / "group.html").read_text(encoding="utf-8")
    assert "blob:" not in page
    assert "niivue" not in page


def test_what_somebody_changed_stays(tmp_path: Path) -> None:
    three(tmp_path)
    run(tmp_path, BY_SEX)
    for name in (ALL, M):
        stored = nib.load(tmp_path / name)
        changed = np.asarray(stored.dataobj) * 2
        nib.save(nib.Nifti1Image(changed, stored.affine, stored.header), tmp_path / name)
    before = (tmp_path / ALL).read_bytes()
    (tmp_path / "group_volumes.tsv").unlink()
    with pytest.raises(UserError, match=r"desc-all_frequency.nii.gz: was not written by bidsseg.*--overwrite"):
        run(tmp_path)
    assert (tmp_path / ALL).read_bytes() == before
    assert not (tmp_path / "group_volumes.tsv").exists()  # told before anything is written
    run(tmp_path, overwrite=True)
    assert shares(tmp_path / ALL)[HERE] == pytest.approx(2 / 3)
    assert maps_in(tmp_path) == both(ALL, M)  # a stale map that was changed is kept, with its sidecar


def other_grid(mask: Path) -> None:
    save(mask, np.zeros((9, 9, 9), np.uint8), np.eye(4))


@pytest.mark.parametrize("damage", [other_grid, lambda mask: mask.write_bytes(b"no image")])
def test_a_bad_mask_is_left_out_and_told(damage: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three(tmp_path)
    assert callable(damage)
    damage(add_mask(tmp_path, "02"))
    run(tmp_path)
    assert shares(tmp_path / ALL) == {HERE: 0.5, THERE: 0.5, ELSEWHERE: 0.5}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: sub-02: not in the maps of lesions (")


def volume(page: Path, name: str) -> NDArray[np.uint16]:
    """As the page embeds it."""
    stored = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(script(page, name))))
    found: NDArray[np.uint16] = np.asarray(stored.dataobj)
    return found


def test_the_page_holds_the_counts(tmp_path: Path) -> None:
    three(tmp_path)
    run(tmp_path, Groups("sex", {"sub-01": NASTY, "sub-02": NASTY, "sub-03": "M"}))
    page = tmp_path / "group.html"
    data = json.loads(script(page, "frequency-data"))
    assert [(one["title"], one["participants"]) for one in data["maps"]] == [
        ("All participants", 3),
        (f"sex: {NASTY}", 2),
        ("sex: M", 1),
    ]
    assert data["highest"] == 1
    assert NASTY not in page.read_text(encoding="utf-8")
    labels, grey = volume(page, "frequency-labels"), volume(page, "frequency-grey")
    for number, expected in enumerate(([1, 1, 2], [1, 2], [1])):
        counts = volume(page, f"frequency-counts-{number}")
        assert counts.shape == labels.shape == grey.shape
        assert sorted(counts[counts > 0].tolist()) == expected
    code = labels[np.unravel_index(volume(page, "frequency-counts-0").argmax(), labels.shape)]
    assert code == template().labels("regions")[HERE]
    assert str(code) in data["names"]
    assert page.stat().st_size < 3_000_000


def test_the_grey_picture_has_bright_white_matter_and_dark_fluid() -> None:
    anatomy = template()
    grey, regions = grey_picture(anatomy.tissue), anatomy.labels("regions")
    white, cortex, fluid = (np.median(grey[regions == code]) for code in (3201, 1301, 4))
    assert white > cortex > fluid > grey[regions == 0].min() == 0


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")
def test_the_viewer_shows_each_map(tmp_path: Path) -> None:
    three(tmp_path)
    run(tmp_path, BY_SEX)
    with browser() as tab:
        tab.open(tmp_path / "group.html")
        tab.wait_for("document.getElementById('canvas')?.dataset.state === 'ready'", 120)
        assert tab.evaluate("document.getElementById('readout').textContent").startswith("66.7 %2 of 3 · ")
        assert tab.evaluate("viewer.nv.volumes[1].img.filter(Boolean).length") == 3
        lesions = tab.evaluate(f"({COLORS})(0.85)") - tab.evaluate(f"({COLORS})(0)")
        assert 3 <= lesions < 3000  # pixels: the rest of the picture is grey
        tab.evaluate("document.querySelector('#choose-map [data-value=\"2\"]').click()")
        tab.wait_for("viewer.number === 2 && viewer.nv.volumes[1].img.filter(Boolean).length === 1", 60)
        assert tab.evaluate("document.getElementById('readout').textContent").startswith("0.0 %0 of 1 · ")
        tab.evaluate("viewer.findHighest()")
        assert tab.evaluate("document.getElementById('readout').textContent").startswith("100.0 %1 of 1 · ")
        assert tab.errors == []
        assert tab.outside_requests == []
