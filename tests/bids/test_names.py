from __future__ import annotations

from pathlib import Path

import pytest

from bidsseg.bids.names import derivative_name, derivative_path, parse_scan


@pytest.mark.parametrize(
    ("name", "entities", "suffix"),
    [
        ("sub-01_T1w.nii.gz", {"sub": "01"}, "T1w"),
        ("sub-01_ses-1_FLAIR.nii", {"sub": "01", "ses": "1"}, "FLAIR"),
        ("sub-x_acq-a_ce-gd_rec-n_run-02_echo-1_part-mag_T2w.nii.gz",
         {"sub": "x", "acq": "a", "ce": "gd", "rec": "n", "run": "02", "echo": "1", "part": "mag"}, "T2w"),
    ],
)  # fmt: skip
def test_a_name_is_its_entities(name: str, entities: dict[str, str], suffix: str) -> None:
    scan = parse_scan(Path("/data") / name)
    assert dict(scan.entities) == entities
    assert scan.suffix == suffix
    assert scan.subject == entities["sub"]
    assert scan.session == entities.get("ses")
    assert name.startswith(scan.stem + ".")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("T1w.nii.gz", "sub-"),
        ("ses-1_T1w.nii.gz", "sub-"),
        ("sub-01_foo-1_T1w.nii.gz", "'foo-1' in its name is not a BIDS entity"),
        ("sub-01_final_T1w.nii.gz", "'final' in its name is not a BIDS entity"),
        ("sub-01_sub-02_T1w.nii.gz", "no entity twice"),
        ("sub-01_desc-n4_T1w.nii.gz", "'desc-n4' in its name is for derivatives"),
    ],
)
def test_names_that_are_not_of_raw_scans_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_scan(Path(name))


@pytest.mark.parametrize(
    ("scan", "ending", "extra", "name"),
    [
        ("sub-01_ses-1_FLAIR.nii.gz", "dseg.nii.gz", {"space": "orig", "seg": "regions", "desc": "FLAIR"},
         "sub-01_ses-1_space-orig_seg-regions_desc-FLAIR_dseg.nii.gz"),
        ("sub-01_ses-1_FLAIR.nii.gz", "mask.nii.gz", {"desc": "FLAIR", "label": "brain", "space": "orig"},
         "sub-01_ses-1_space-orig_label-brain_desc-FLAIR_mask.nii.gz"),
        ("sub-01_run-2_T1w.nii", "T1w.nii.gz", {"space": "individual", "res": "1mm", "desc": "preproc"},
         "sub-01_run-2_space-individual_res-1mm_desc-preproc_T1w.nii.gz"),
        ("sub-01_acq-a_ce-gd_T1w.nii", "volumes.tsv", {"desc": "T1w"}, "sub-01_acq-a_ce-gd_desc-T1w_volumes.tsv"),
        ("sub-01_chunk-1_T1w.nii", "dseg.nii.gz", {"space": "orig", "seg": "gyri"},
         "sub-01_space-orig_chunk-1_seg-gyri_dseg.nii.gz"),
    ],
)  # fmt: skip
def test_derivative_names(scan: str, ending: str, extra: dict[str, str], name: str) -> None:
    assert derivative_name(parse_scan(Path(scan)), ending, **extra) == name


@pytest.mark.parametrize("extra", [{"foo": "1"}, {"run": "2"}, {"desc": "a_b"}, {"desc": ""}])
def test_derivative_names_take_only_derivative_entities(extra: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot add"):
        derivative_name(parse_scan(Path("sub-01_run-1_T1w.nii")), "dseg.nii.gz", **extra)


def test_derivatives_lie_in_the_folders_of_subject_and_session() -> None:
    out = Path("/out")
    path = derivative_path(out, parse_scan(Path("sub-01_ses-a_T1w.nii")), "qc.json", desc="T1w")
    assert path == out / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_desc-T1w_qc.json"
    path = derivative_path(out, parse_scan(Path("sub-01_T1w.nii")), "qc.json", desc="T1w")
    assert path.parent == out / "sub-01" / "anat"
