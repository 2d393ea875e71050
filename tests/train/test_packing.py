from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from bidsseg.errors import FileError, UserError
from bidsseg.labels import TISSUE, UNKNOWN_PARCEL
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.data import LabelledPatient, Patient, Subject, TrainingSet, brain_box, load_patients, pack, unpack
from bidsseg.train.packing import (
    STEP_OF_NOISE,
    joined,
    noise_of,
    pack_training_set,
    parcels_apart,
    read_arrays,
    subjects_and_lesions,
    unpack_training_set,
    write_arrays,
)


def labels(size: int = 20) -> NDArray[np.int16]:
    """White matter in the middle, of parcel 7, on both sides; skull around it."""
    tissue, side, parcel, kind = np.zeros((4, size, size, size), np.uint8)
    tissue[6:14, 6:14, 6:14], side[10:14, 6:14, 6:14], parcel[6:14, 6:14, 6:14] = TISSUE["white-matter"], 1, 7
    kind[2:18, 2:18, 2:4] = 3
    return pack(Anatomy(tissue, side, parcel), kind)


@pytest.fixture
def known() -> TrainingSet:
    noisy = np.random.default_rng(0).normal(100, 4, (20, 20, 20))
    packed = labels()
    box = brain_box(unpack(packed).tissue)
    scan = np.where((packed & 31) != 0, noisy / 120, 0).astype(np.float16)
    patient = Patient("sub-01", {"FLAIR": noisy.astype(np.float32)}, {}, np.diag((0.9, 0.9, 6.5, 1)))
    lesion = (noisy > 105).astype(np.uint8)
    heads, brains = [Subject("head", packed, None, box)], [Subject("brain", packed, scan, box)]
    of_patient = np.pad(labels(18), ((0, 0), (0, 0), (56, 56)))  # 18 x 18 x 130 mm, as the scan
    return TrainingSet(heads, brains, [lesion], [LabelledPatient(patient, of_patient)])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::-1],
        np.array([True, False]),
        np.array(0.25),
        np.eye(4),
        np.zeros((0, 3), np.float16),
    ],
)
def test_arrays_come_back_as_they_were(array: NDArray[np.generic], tmp_path: Path) -> None:
    write_arrays(tmp_path / "file", {"a/b/c": array})
    found = read_arrays(tmp_path / "file")["a/b/c"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_labels_are_exact_and_scans_change_by_less_than_their_noise(known: TrainingSet, tmp_path: Path) -> None:
    lost = pack_training_set(known, tmp_path / "file")
    found = unpack_training_set(tmp_path / "file")
    for before, after in zip((*known.heads, *known.brains), (*found.heads, *found.brains), strict=True):
        assert (before.name, before.packed.tolist()) == (after.name, after.packed.tolist())
        np.testing.assert_array_equal(before.box, after.box)
    np.testing.assert_array_equal(known.pseudo[0].packed, found.pseudo[0].packed)
    patient, copy = known.pseudo[0].patient, found.pseudo[0].patient
    np.testing.assert_array_equal(patient.affine, copy.affine)
    np.testing.assert_array_equal(found.lesions[0], known.lesions[0])
    change = copy.scans["FLAIR"] - patient.scans["FLAIR"]
    assert np.abs(change).max() <= STEP_OF_NOISE / 2 * lost[-1].noise * 1.001
    assert lost[-1].noise == pytest.approx(4, rel=0.1)
    assert lost[-1].error == pytest.approx(STEP_OF_NOISE / 12**0.5, rel=0.1)
    scan, again = known.brains[0].image, found.brains[0].image
    assert scan is not None
    assert again is not None
    np.testing.assert_array_equal(scan > 0, again > 0)


def test_parcels_are_apart_from_the_other_labels_and_come_together_again() -> None:
    packed = labels()
    apart = parcels_apart(packed)
    assert apart["parcels"].tolist() == [7] * 8**3
    bare = unpack(apart["labels"])
    assert (bare.parcel[bare.tissue > 0] == UNKNOWN_PARCEL).all()
    np.testing.assert_array_equal(joined(apart), packed)
    np.testing.assert_array_equal(joined({"labels": packed}), packed)


def test_the_same_set_gives_the_same_bytes(known: TrainingSet, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack_training_set(known, tmp_path / name)
    pack_training_set(replace(known, brains=known.brains[::-1]), tmp_path / "three")
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "three")}) == 1


def test_samples_are_made_from_heads_and_from_brains_amid_them(known: TrainingSet, tmp_path: Path) -> None:
    pack_training_set(known, tmp_path / "file")
    subjects, lesions = subjects_and_lesions(tmp_path / "file", tmp_path / "cache")
    assert {subject.name for subject in subjects} == {"head", "brain_in_head", "sub-01_FLAIR"}
    assert len(lesions) == 1
    assert not (tmp_path / "cache").exists()


def test_sections_of_later_versions_are_skipped(known: TrainingSet, tmp_path: Path) -> None:
    pack_training_set(known, tmp_path / "file")
    write_arrays(tmp_path / "file", read_arrays(tmp_path / "file") | {"later/x/y": np.zeros(3)})
    assert len(unpack_training_set(tmp_path / "file").heads) == 1


def test_nothing_in_the_file_could_run(known: TrainingSet, tmp_path: Path) -> None:
    pack_training_set(known, tmp_path / "file")
    with safe_open(tmp_path / "file", "np") as stored:
        assert {str(stored.get_slice(name).get_dtype()) for name in stored.keys()} == {"U8"}  # noqa: SIM118


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_other_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FileError, match="not a packed training set"):
        unpack_training_set(tmp_path / "file")


@pytest.mark.parametrize("sd", [1.0, 5.0])
def test_noise_is_measured_amid_a_gradient(sd: float) -> None:
    i, j, _ = np.ogrid[:60, :60, :30]
    scan = (100 + i + 2 * j + np.random.default_rng(1).normal(0, sd, (60, 60, 30))).astype(np.float32)
    assert noise_of(scan, np.ones(scan.shape, bool)) == pytest.approx(sd, rel=0.05)


def write_patient(data: Path, name: str, mask_shape: tuple[int, int, int] = (6, 5, 4)) -> None:
    manual = data / "derivatives" / "manual" / name / "anat"
    for path, shape in (
        (data / name / "anat" / f"{name}_FLAIR.nii.gz", (6, 5, 4)),
        (manual / f"{name}_label-lesion_mask.nii.gz", mask_shape),
    ):
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), path)


def test_patients_for_validation_are_left_out(tmp_path: Path) -> None:
    for name in ("sub-01", "sub-02", "sub-05", "sub-07", "sub-08"):
        write_patient(tmp_path / "ms-clinical-lesions", name)
    found = load_patients(tmp_path)
    assert [patient.name for patient in found] == ["sub-01", "sub-08"]
    assert (list(found[0].scans), list(found[0].masks)) == (["FLAIR"], ["lesion"])


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    write_patient(tmp_path / "ms-clinical-lesions", "sub-01", (6, 5, 3))
    with pytest.raises(UserError, match="not on the grid"):
        load_patients(tmp_path)
