"""Which patients the lesion network learns from."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsseg.errors import UserError
from bidsseg.network.weights import load_model
from bidsseg.train.lesion_examples import ExampleOptions, examples


def dataset(folder: Path) -> Path:
    """Three patients with a head of one grey value, and in it a lesion."""
    data, lesion = np.zeros((2, 48, 56, 10), np.float32)
    data[8:40, 8:48], lesion[20:28, 24:32, 3:6] = 100, 1
    clinical = folder / "ms-clinical-lesions"
    for subject in ("sub-01", "sub-02", "sub-03"):
        manual = clinical / "derivatives" / "manual" / subject / "anat" / f"{subject}_label-lesion_mask.nii.gz"
        for path, voxels in (
            (clinical / subject / "anat" / f"{subject}_FLAIR.nii.gz", data + lesion),
            (manual, lesion),
        ):
            path.parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(voxels, np.diag((1, 1, 6, 1))), path)
    return folder


@pytest.mark.parametrize(
    ("without", "learned"),
    [
        ((), {"sub-01", "sub-03"}),  # sub-02 is for validation
        (("sub-01",), {"sub-03"}),
    ],
)
def test_patients_left_out_are_not_learned_from(
    tmp_path: Path, tiny_model: Path, without: tuple[str, ...], learned: set[str]
) -> None:
    options = ExampleOptions(painted=0, without=without)
    found = examples(dataset(tmp_path / "data"), load_model(tiny_model), tmp_path / "cache", options, lambda text: None)
    assert len(found.patients) == len(learned)
    assert {path.stem for path in (tmp_path / "cache").rglob("*.safetensors")} == learned


@pytest.mark.parametrize("stranger", ["sub-99", "sub-02"])
def test_only_patients_for_training_can_be_left_out(tmp_path: Path, tiny_model: Path, stranger: str) -> None:
    options = ExampleOptions(painted=0, without=("sub-01", stranger))
    with pytest.raises(UserError, match=f"--without {stranger}: no patient for training"):
        examples(dataset(tmp_path / "data"), load_model(tiny_model), tmp_path / "cache", options, lambda text: None)
