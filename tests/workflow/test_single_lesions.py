"""Lesions of one scan, found by the packaged networks: the demo's scan in the contrast of FLAIR, with bright balls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bidsseg.authorship import is_ours
from bidsseg.bids.outputs import LesionOutputs
from bidsseg.cli.demo import make_dataset
from bidsseg.errors import UserError
from bidsseg.files import read_json
from bidsseg.imaging.image import Image, load, save
from bidsseg.network.card import folder_of
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_card import LESION_MODEL, read_lesion_card
from bidsseg.network.weights import load_model
from bidsseg.workflow.single_lesions import SingleLesionOptions, describe_scan
from tests.golden.scene import flair_of, lesion_mask

OPTIONS = SingleLesionOptions(predicting=PredictOptions("cpu"), bias_correction=False, probseg=True)


@pytest.fixture(scope="module")
def t1w(tmp_path_factory: pytest.TempPathFactory) -> Image:
    root = tmp_path_factory.mktemp("demo") / "data"
    make_dataset(root)
    return load(root / "sub-02" / "anat" / "sub-02_T1w.nii.gz")


def test_bright_balls_are_found_and_described(t1w: Image, tmp_path: Path) -> None:
    path = tmp_path / "sub-02_FLAIR.nii.gz"
    flair = flair_of(t1w)
    save(path, flair.data, flair.affine)
    described = describe_scan(path, tmp_path / "out" / "sub-02_FLAIR", load_model(), OPTIONS)
    files = LesionOutputs(tmp_path / "out" / "sub-02_FLAIR")
    assert described.verdict.split(":")[0] in ("pass", "check", "fail")
    assert all(file.exists() for file in described.files)
    assert {files.mask, files.probabilities, files.table} <= set(described.files)
    found, balls = load(files.mask).data > 0, lesion_mask(t1w) > 0
    lesions, count = ndimage.label(balls)
    assert count == 4
    assert len(set(np.unique(lesions[found])) - {0}) >= 3
    assert (found & ~ndimage.binary_dilation(balls, iterations=2)).sum() < 0.2 * found.sum()
    probability = load(files.probabilities).data
    card = read_lesion_card(folder_of(LESION_MODEL))
    threshold = card.thresholds.thick
    assert (probability[found] >= threshold - 1e-3).all()
    sidecar = files.mask.with_name("sub-02_FLAIR_label-lesion_mask.json")
    assert is_ours(sidecar)  # or the same command again would stop at it
    about = read_json(sidecar)
    least, most = about["LesionLoadRangeMl"]
    assert about["Threshold"] == threshold
    assert least <= about["LesionLoadMl"] <= most
    assert card.load_errors
    error = card.load_errors.thick.of(about["LesionLoadMl"])
    assert about["LesionLoadExpectedErrorMl"] == pytest.approx(error, abs=1e-3)
    assert described.expected_error_ml == pytest.approx(error, abs=1e-3)


def test_a_t1w_is_refused_in_one_line(t1w: Image, tmp_path: Path) -> None:
    path = tmp_path / "sub-02_FLAIR.nii.gz"  # its name is wrong
    save(path, t1w.data, t1w.affine)
    with pytest.raises(UserError, match="as in T1w"):
        describe_scan(path, tmp_path / "out" / "sub-02", load_model(), OPTIONS)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_refusal_says_what_is_odd_about_the_header(t1w: Image, tmp_path: Path) -> None:
    path = tmp_path / "sub-02_FLAIR.nii.gz"
    save(path, t1w.data.repeat(6, 2), np.eye(4))
    with pytest.raises(UserError, match=r"no lesions looked for: .*; the header has no position or direction"):
        describe_scan(path, tmp_path / "out" / "sub-02", load_model(), OPTIONS)


def test_a_given_mask_is_not_written_again(t1w: Image, tmp_path: Path) -> None:
    path, mask = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    save(path, t1w.data, t1w.affine)
    save(mask, lesion_mask(t1w), t1w.affine)
    described = describe_scan(path, tmp_path / "scan", load_model(), replace(OPTIONS, mask=mask))
    assert LesionOutputs(tmp_path / "scan").mask not in described.files
    assert len(described.report.lesions) == 4
