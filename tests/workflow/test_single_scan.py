"""``brainseg-cli predict``, the BIDS App and the nipype interface write the same labels for one scan."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from nipype.pipeline.engine import Node

from bidsseg.cli.bids_app import run
from bidsseg.cli.exit_codes import EXIT_OK
from bidsseg.cli.main import main
from bidsseg.workflow import SegmentRegions
from tests.conftest import Dataset

SCAN = "sub-01_T1w.nii.gz"
THICK_OBLIQUE = np.array([[-1.1, 0.1, 0.9, 40], [0.05, 1.1, 0.3, -50], [-0.2, -0.02, 4.9, -45], [0, 0, 0, 1]])


def make_oblique(scan: Path) -> None:
    """Give a scan thick slices at an angle."""
    nib.save(nib.Nifti1Image(np.asarray(nib.load(scan).dataobj), THICK_OBLIQUE), scan)


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("n4", [None, False, True])
def test_one_scan_gets_the_same_labels_everywhere(
    n4: bool | None, oblique: bool, dataset: Dataset, tiny_model: Path, tmp_path: Path
) -> None:
    """With N4, without, and as each does by default."""
    root = dataset(SCAN)
    scan = root / "sub-01" / "anat" / SCAN
    if oblique:
        make_oblique(scan)
    flags = () if n4 is None else ("--bias-correction",) if n4 else ("--no-bias-correction",)
    plugin = tmp_path / "plugin.json"
    plugin.write_text('{"plugin": "Linear"}')
    in_process = ("--model", str(tiny_model), "--use-plugin", str(plugin), "--nprocs", "1")
    assert run([str(root), str(tmp_path / "out"), "participant", "--seg", "regions", *in_process, *flags]) == EXIT_OK
    of_app = tmp_path / "out" / "sub-01" / "anat" / "sub-01_space-orig_seg-regions_desc-T1w_dseg.nii.gz"
    alone = tmp_path / "alone" / "seg.nii.gz"
    quick = ("--model", str(tiny_model), "--threads", "1", "--no-picture")
    predicted = CliRunner().invoke(main, ["predict", str(scan), "-o", str(alone), *flags, *quick])
    assert predicted.exit_code == 0, predicted.output
    assert alone.read_bytes() == of_app.read_bytes()
    corrected = {} if n4 is None else {"bias_correction": n4}
    interface = SegmentRegions(in_file=scan, model=str(tiny_model), picture=False, **corrected)
    found = Node(interface, "regions", base_dir=tmp_path).run().outputs
    assert Path(found.out_file).read_bytes() == of_app.read_bytes()
    assert Path(found.volumes).read_text() == alone.with_name("seg_volumes.tsv").read_text()
    assert found.verdict in ("pass", "check", "fail")
    assert Path(found.brain_mask).exists()
    assert Path(found.quality).exists()
