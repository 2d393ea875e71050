"""``brainseg-cli predict``, the BIDS App and the nipype interface write the same labels for one scan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from nipype.pipeline.engine import Node

from bidsseg.cli.exit_codes import EXIT_OK
from bidsseg.cli.main import main
from bidsseg.workflow import SegmentRegions
from tests.conftest import Dataset, Run

SCAN = "sub-01_T1w.nii.gz"
THICK_OBLIQUE = np.array([[-1.1, 0.1, 0.9, 40], [0.05, 1.1, 0.3, -50], [-0.2, -0.02, 4.9, -45], [0, 0, 0, 1]])


def make_oblique(scan: Path) -> None:
    """Give a scan thick slices at an angle."""
    nib.save(nib.Nifti1Image(np.asarray(nib.load(scan).dataobj), THICK_OBLIQUE), scan)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("bias_correction", [False, True])
def test_one_scan_gets_the_same_labels_everywhere(
    bias_correction: bool, oblique: bool, dataset: Dataset, app: Run, tiny_model: Path, tmp_path: Path
) -> None:
    root = dataset(SCAN)
    scan = root / "sub-01" / "anat" / SCAN
    if oblique:
        make_oblique(scan)
    flag = "--bias-correction" if bias_correction else "--no-bias-correction"
    assert app(root, "--seg", "regions", flag) == EXIT_OK
    of_app = tmp_path / "out" / "sub-01" / "anat" / "sub-01_space-orig_seg-regions_desc-T1w_dseg.nii.gz"
    alone = tmp_path / "alone" / "seg.nii.gz"
    quick = ("--model", str(tiny_model), "--threads", "1", "--no-picture")
    predicted = CliRunner().invoke(main, ["predict", str(scan), "-o", str(alone), flag, *quick])
    assert predicted.exit_code == 0, predicted.output
    assert alone.read_bytes() == of_app.read_bytes()
    interface = SegmentRegions(in_file=scan, model=str(tiny_model), bias_correction=bias_correction, picture=False)
    found = Node(interface, "regions", base_dir=tmp_path).run().outputs
    assert Path(found.out_file).read_bytes() == of_app.read_bytes()
    assert Path(found.volumes).read_text() == alone.with_name("seg_volumes.tsv").read_text()
    assert found.verdict in ("pass", "check", "fail")
    assert Path(found.brain_mask).exists()
    assert Path(found.quality).exists()
