from __future__ import annotations

import json
from pathlib import Path

import pytest

from bidsseg.bids.dataset import INDEX, Found, InvalidDataset, NothingSelected, ScanSelection, find_scans, read_filters
from bidsseg.errors import UserError
from tests.conftest import Dataset


def stems(found: Found) -> list[str]:
    return [scan.stem for scan in found.scans]


ALL = (
    "sub-01_ses-1_FLAIR.nii.gz",
    "sub-01_ses-1_run-1_T1w.nii.gz",
    "sub-01_ses-1_run-2_T1w.nii.gz",
    "sub-01_ses-2_acq-3d_T1w.nii",
    "sub-02_T1w.nii.gz",
    "sub-02_T2w.nii.gz",
    "sub-03_T2w.nii.gz",
)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (ScanSelection(), [0, 1, 2, 3, 4]),
        (ScanSelection(participants=("01",)), [0, 1, 2, 3]),
        (ScanSelection(participants=("02", "01"), sessions=("2",)), [3]),
        (ScanSelection(modalities=("T2w",)), [5, 6]),
        (ScanSelection(filters={"t1w": {"run": 2}}), [0, 2]),
        (ScanSelection(filters={"t1w": {"session": None}, "bold": {"task": "rest"}}), [0, 4]),
        (ScanSelection(filters={"t1w": {"acquisition": "*"}, "flair": {"session": ["7"]}}), [3]),
        (ScanSelection(validate=False), [0, 1, 2, 3, 4]),
    ],
)
def test_every_scan_of_the_selection_is_found(dataset: Dataset, selection: ScanSelection, expected: list[int]) -> None:
    found = find_scans(dataset(*ALL), selection)
    assert stems(found) == [ALL[n].partition(".")[0] for n in expected]
    assert not found.unusable


ODD = {
    "sub-02/anat/sub-02_FLAIR.NII.GZ": "(BIDS writes FLAIR.nii.gz); rename it",
    "sub-02/anat/sub-02_flair.nii": "(BIDS writes FLAIR.nii); rename it",
    "sub-03/anat/sub-03_acq-a_rec-b_ce-c_FLAIR.nii.gz": "rename it, or give --skip-bids-validation",
    "sub-04/anat/sub-05_FLAIR.nii.gz": "does not fit the folder sub-04/anat",
    "sub-04/ses-1/anat/sub-04_T1w.nii.gz": "does not fit the folder sub-04/ses-1/anat",
    "sub-06/sub-06_FLAIR.nii.gz": "move it to sub-06/anat",
    "sub-06/Anat/sub-06_FLAIR.nii.gz": "move it to sub-06/anat",
    "sub-06/ses-1/Anat/x/sub-06_ses-1_FLAIR.nii.gz": "move it to sub-06/ses-1/anat",
    "sub-07/anat/sub-07_part-phase_T1w.nii.gz": "it contains phase",
    "sub-07/anat/sub-07_part-imag_T1w.nii.gz": "it contains the imaginary part",
    "sub-01/anat/sub-01_T1w.mgz": "not NIfTI, which BIDS requires; convert it to sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_acq-x_flair.NRRD": "convert it to sub-01_acq-x_FLAIR.nii.gz",
    "sub-03/ses-1/anat/sub-03_ses-1_T1w.hdr": "convert it to sub-03_ses-1_T1w.nii.gz",
    "sub-03/anat/sub-03_T1w.mgh.gz": "convert it to sub-03_T1w.nii.gz",
}


UNTOLD = (
    *("sub-03/func/sub-03_task-x_T1w.nii.gz", "sub-03/anat/sub-03_PDT2.nii.gz", "sub-03/anat/sub-03_PDT2.mgz"),
    *("sub-03/ses-1/anat/sub-03_ses-1_T1w.img", "sub-03/anat/sub-03_FLAIR.mgz", "sub-03/func/sub-03_T1w.mgz"),
)
"The voxels of a header, an image that was converted, and what has another modality or datatype."


def _with_odd_names(dataset: Dataset, bidsignore: str = "") -> Path:
    root = dataset("sub-01_FLAIR.nii.gz", "sub-01_acq-bad_FLAIR.nii.gz", "sub-03_FLAIR.nii.gz", "sub-99_FLAIR.nii.gz")
    for name in (*ODD, *UNTOLD):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / ".bidsignore").write_text(f"*_acq-bad_FLAIR*\nsub-99/\n{bidsignore}")
    return root


def test_names_that_are_dropped_are_told_once_and_bidsignore_is_honoured(dataset: Dataset) -> None:
    root = _with_odd_names(dataset)
    found = find_scans(root, ScanSelection())
    assert stems(found) == ["sub-01_FLAIR", "sub-03_FLAIR"]
    assert not found.unusable
    told = {path.relative_to(root).as_posix(): why for path, why in found.left_out}
    assert len(found.left_out) == len(told)
    assert told.keys() == ODD.keys()
    assert [name for name, why in told.items() if ODD[name] not in why] == []
    assert found.empty_participants == ("02", "04", "06", "07")


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        (ScanSelection(participants=("02",)), ["sub-02_FLAIR.NII.GZ", "sub-02_flair.nii"]),
        (ScanSelection(modalities=("T1w",), participants=("04",), sessions=("1",)), ["sub-04_T1w.nii.gz"]),
    ],
)
def test_an_empty_selection_names_what_was_dropped(dataset: Dataset, selection: ScanSelection, told: list[str]) -> None:
    with pytest.raises(NothingSelected) as caught:
        find_scans(_with_odd_names(dataset), selection)
    assert [name for name in told if name not in str(caught.value)] == []


def test_what_bidsignore_takes_out_is_not_told(dataset: Dataset) -> None:
    assert (
        find_scans(
            _with_odd_names(dataset, "sub-0[1-7]/**/*_T1w.*\nsub-0[2-7]/**\n*flair.NRRD\n"), ScanSelection()
        ).left_out
        == ()
    )


def test_no_scan_goes_to_another_participant_though_names_are_not_checked(dataset: Dataset) -> None:
    found = find_scans(_with_odd_names(dataset), ScanSelection(validate=False))
    assert "sub-03_acq-a_rec-b_ce-c_FLAIR" in stems(found)
    assert not [scan for scan in found.scans if f"sub-{scan.subject}" not in scan.path.parts]
    assert {path.name for path, why in found.unusable if "does not fit" in why} == {
        "sub-05_FLAIR.nii.gz", "sub-04_T1w.nii.gz"
    }  # fmt: skip


def test_a_filter_may_ask_for_what_is_no_anatomy(dataset: Dataset) -> None:
    found = find_scans(_with_odd_names(dataset), ScanSelection(filters={"t1w": {"part": "phase"}}))
    assert "sub-07_part-phase_T1w" in stems(found)


def test_participants_without_scans_are_named(dataset: Dataset) -> None:
    root = dataset(*ALL)
    (root / "sub-04" / "ses-1" / "anat").mkdir(parents=True)
    assert find_scans(root, ScanSelection()).empty_participants == ("03", "04")


def test_two_files_of_one_scan_are_both_refused(dataset: Dataset) -> None:
    found = find_scans(dataset("sub-01_T1w.nii", "sub-01_T1w.nii.gz", "sub-02_T1w.nii"), ScanSelection())
    assert stems(found) == ["sub-02_T1w"]
    assert {path.name for path, _ in found.unusable} == {"sub-01_T1w.nii", "sub-01_T1w.nii.gz"}
    assert all("remove one" in why for _, why in found.unusable)


def test_derivatives_and_source_data_are_not_input(dataset: Dataset) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    for folder in ("derivatives/x", "sourcedata", ".hidden"):
        (root / folder).mkdir(parents=True)
        target = root / folder / "sub-09" / "anat" / "sub-09_T1w.nii.gz"
        target.parent.mkdir(parents=True)
        target.write_bytes(b"")
    assert stems(find_scans(root, ScanSelection())) == ["sub-01_T1w"]


def test_odd_names_count_only_without_validation(dataset: Dataset) -> None:
    root = dataset("sub-01_T1w.nii.gz", "sub-01_desc-n4_T1w.nii.gz")
    assert not find_scans(root, ScanSelection()).unusable
    [(path, why)] = find_scans(root, ScanSelection(validate=False)).unusable
    assert path.name == "sub-01_desc-n4_T1w.nii.gz"
    assert "rename" in why


def test_the_index_can_be_kept(dataset: Dataset, tmp_path: Path) -> None:
    root, database = dataset("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"), tmp_path / "index"
    assert stems(find_scans(root, ScanSelection(participants=("01",), database=database))) == ["sub-01_T1w"]
    assert stems(find_scans(root, ScanSelection(participants=("02",), database=database))) == ["sub-02_T1w"]
    other = root.rename(tmp_path / "elsewhere")
    root.mkdir()
    with pytest.raises(UserError, match="another dataset"):
        find_scans(other, ScanSelection(database=database))


def test_an_index_that_was_not_finished_is_made_anew(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bids.layout import BIDSLayoutIndexer

    root, selection = dataset("sub-01_T1w.nii.gz"), ScanSelection(database=tmp_path / "index")

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BIDSLayoutIndexer, "_index_dir", kill)
        with pytest.raises(KeyboardInterrupt):
            find_scans(root, selection)
    assert stems(find_scans(root, selection)) == ["sub-01_T1w"]
    assert [path.name for path in (tmp_path / "index").iterdir()] == [INDEX]


def test_what_the_index_lacks_is_told_to_be_newer_perhaps(dataset: Dataset, tmp_path: Path) -> None:
    root, database = dataset("sub-01_T1w.nii.gz"), tmp_path / "index"
    find_scans(root, ScanSelection(database=database))
    dataset("sub-02_T1w.nii.gz")
    assert find_scans(root, ScanSelection(database=database)).empty_participants == ("02",)
    with pytest.raises(NothingSelected, match=f"newer than the index, remove {database}"):
        find_scans(root, ScanSelection(participants=("02",), database=database))


def test_outputs_within_the_dataset_are_no_scans(dataset: Dataset) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    output = root / "out" / "sub-01" / "anat" / "sub-01_desc-preproc_T1w.nii.gz"
    output.parent.mkdir(parents=True)
    output.write_bytes(b"")
    assert find_scans(root, ScanSelection(validate=False)).unusable
    assert not find_scans(root, ScanSelection(validate=False, not_in=root / "out")).unusable


@pytest.mark.parametrize("closed", ["sub-02", "sub-02/anat"])
def test_a_closed_folder_is_told_and_the_others_go_on(
    closed: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = dataset("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    monkeypatch.setattr(
        "bidsseg.bids.dataset.os.access", lambda path, mode: path != root / closed
    )  # root may enter any
    found = find_scans(root, ScanSelection())
    assert stems(found) == ["sub-01_T1w"]
    assert found.unusable == ((root / closed, "no permission to read this folder; ask for access"),)
    assert found.empty_participants == ()


def _break(root: Path, how: str) -> Path:
    description = root / "dataset_description.json"
    if how == "missing":
        description.unlink()
    elif how == "no folder":
        return root / "nowhere"
    elif how == "no subjects":
        (root / "sub-01").rename(root / "patient1")
    else:
        description.write_text(how)
    return root


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("missing", "no such file"),
        ("no folder", "not a folder"),
        ("no subjects", "no sub-"),
        ("{", "not readable as JSON"),
        ("[]", "Name and BIDSVersion missing"),
        ('{"Name": "x"}', "BIDSVersion missing"),
    ],
)
def test_folders_that_are_not_bids_are_refused(dataset: Dataset, how: str, reason: str) -> None:
    root = _break(dataset("sub-01_T1w.nii.gz"), how)
    with pytest.raises(InvalidDataset, match=reason) as caught:
        find_scans(root, ScanSelection())
    assert "\n" not in str(caught.value)


def test_without_validation_no_description_is_needed(dataset: Dataset) -> None:
    root = _break(dataset("sub-01_T1w.nii.gz"), "missing")
    assert stems(find_scans(root, ScanSelection(validate=False))) == ["sub-01_T1w"]


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (ScanSelection(participants=("01", "99")), "no participant 99; there are 1: 01"),
        (ScanSelection(sessions=("9",)), "no T1w or FLAIR image, ses-9"),
        (ScanSelection(participants=("01",), modalities=("PDw",)), "no PDw image in sub-01"),
    ],
)
def test_an_empty_selection_says_so(dataset: Dataset, selection: ScanSelection, reason: str) -> None:
    with pytest.raises(NothingSelected, match=reason):
        find_scans(dataset("sub-01_T1w.nii.gz"), selection)


def test_an_empty_selection_names_bidsignore_where_it_is_why(dataset: Dataset) -> None:
    root = dataset("sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz")
    (root / ".bidsignore").write_text("sub-02/\n")
    with pytest.raises(NothingSelected, match=r"no T1w or FLAIR image in sub-02; .*; \.bidsignore excludes 1"):
        find_scans(root, ScanSelection(participants=("02",)))


def test_filters_are_read_by_lower_case_modality(tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    path.write_text(json.dumps({"T1w": {"run": 1}}))
    assert read_filters(path) == {"t1w": {"run": 1}}


@pytest.mark.parametrize("text", ["", "[1]", '{"t1w": 3}'])
def test_filters_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "filters.json"
    path.write_text(text)
    with pytest.raises(UserError, match="--bids-filter-file"):
        read_filters(path)


def test_a_filter_for_an_unknown_entity_is_refused(dataset: Dataset) -> None:
    with pytest.raises(UserError, match="the filter for T1w fails"):
        find_scans(dataset("sub-01_T1w.nii.gz"), ScanSelection(filters={"t1w": {"colour": "red"}}))


def test_a_byte_order_mark_changes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    description, filters = root / "dataset_description.json", tmp_path / "filters.json"
    filters.write_text(json.dumps({"T1w": {"run": 1}}), encoding="utf-8-sig")
    description.write_text(description.read_text(), encoding="utf-8-sig")
    assert read_filters(filters) == {"t1w": {"run": 1}}
    assert stems(find_scans(root, ScanSelection())) == ["sub-01_T1w"]


@pytest.mark.parametrize("validate", [True, False])
def test_a_description_nested_too_deep_is_one_line(dataset: Dataset, validate: bool) -> None:
    root = dataset("sub-01_T1w.nii.gz")
    (root / "dataset_description.json").write_text("[" * 100_000)
    with pytest.raises(InvalidDataset, match="nested too deep"):
        find_scans(root, ScanSelection(validate=validate))
