"""The public interface: what it offers, what it costs to import, and that ways in agree with each other."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bidsseg
from bidsseg.imaging.image import load
from bidsseg.labels import SCHEMES, Codes
from tests.conftest import write_scan


def test_import_is_light() -> None:
    heavy = {"torch", "numpy", "nibabel", "nipype"}
    code = f"import sys, bidsseg, bidsseg.workflow; dir(bidsseg); print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_module_runs_the_app() -> None:
    said = subprocess.run([sys.executable, "-m", "bidsseg", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"bidsseg, version {bidsseg.__version__}\n"


def test_all_public_names_are_there_and_documented() -> None:
    assert set(bidsseg.__all__) <= set(dir(bidsseg))
    for name in bidsseg.__all__:
        assert inspect.getdoc(getattr(bidsseg, name)), name
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        bidsseg.nothing_of_this_name  # noqa: B018


@pytest.mark.parametrize(
    "name", ["describe_lesions", "find_lesions", "label_table", "load_image", "load_model", "segment"]
)
def test_functions_have_all_sections(name: str) -> None:
    text = inspect.getdoc(getattr(bidsseg, name)) or ""
    for section in ("Parameters", "Returns", "Examples"):
        assert f"\n{section}\n{'-' * len(section)}\n" in text


def test_segmentation_of_a_phantom(tiny_model: Path, tmp_path: Path) -> None:
    scan = bidsseg.load_image(write_scan(tmp_path / "scan.nii.gz"))
    found = bidsseg.segment(scan, gyri=True, bias_correction=False, device="cpu", threads=1, model=tiny_model)
    assert found.assessment is not None
    assert found.brain_mask.dtype == bool
    for scheme in SCHEMES:
        codes = found.labels(scheme)
        assert codes is found.labels(scheme)
        assert {row.label.index: row.voxels for row in found.volumes(scheme) if row.voxels} == _counts(codes)
        found.save(tmp_path / f"{scheme}.nii.gz", scheme)
        saved = load(tmp_path / f"{scheme}.nii.gz", uniform_ok=True)
        np.testing.assert_array_equal(saved.data, codes)
        np.testing.assert_allclose(saved.affine, scan.affine)
        assert found.volumes_frame(scheme)["voxels"].sum() == found.brain_mask.sum()
        assert len(found.plot(scheme).axes) == 1
    with pytest.raises(ValueError, match="read-only"):
        found.labels("regions")[0, 0, 0] = 1


def _counts(codes: Codes) -> dict[int, int]:
    values, counts = np.unique(codes[codes > 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_lesions_of_a_phantom(tiny_model: Path, tmp_path: Path) -> None:
    scan = bidsseg.load_image(write_scan(tmp_path / "scan.nii.gz"))
    found = bidsseg.segment(scan, bias_correction=False, device="cpu", threads=1, model=tiny_model)
    mask = np.zeros(scan.data.shape, np.float32)
    mask[10:14, 10:13, 9:12] = 1
    (lesion,) = bidsseg.describe_lesions(scan, bidsseg.Image(mask, scan.affine, scan.header), found).lesions
    assert lesion.volume_mm3 == pytest.approx(4 * 3 * 3 * 8)
