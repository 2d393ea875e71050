"""The run behind the golden tests: the demo's scan in thick slices, a lesion mask of balls, the packaged model.

``python -m tests.golden.scene`` replaces what is expected by what comes out now; look at ``git diff --stat`` and at the
labels before you commit it.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bidsseg.cli.bids_app import run
from bidsseg.cli.demo import make_dataset
from bidsseg.cli.exit_codes import EXIT_OK
from bidsseg.imaging.image import Image, load, save
from bidsseg.labels import Codes, label_table

EXPECTED = Path(__file__).parent / "expected"
SUBJECT = "02"
BALLS = (
    ("beside the left ventricle", (-26, -28, 24), 6.0),
    ("right frontal white matter", (30, 30, 18), 5.0),
    ("left parietal white matter", (-30, -56, 36), 4.0),
    ("brainstem", (4, -28, -30), 4.0),
)
"What each stands for, its centre in mm and its radius in mm."


@dataclass(frozen=True)
class Outcome:
    """What a run gave, or should give."""

    labels: Codes
    "(I, J, K), regions on the scan's own grid."
    lesions: list[dict[str, str]]
    "Rows of the table of lesions."
    names: list[str]
    "Of all output files, relative to the output folder."


def lesion_mask(scan: Image) -> Codes:
    """1 where the centre of a voxel lies in one of ``BALLS``."""
    indices = np.stack([*np.indices(scan.data.shape), np.ones(scan.data.shape)])
    points = np.einsum("ij,j...->i...", scan.affine, indices)[:3]
    distances = [np.linalg.norm(points - np.reshape(centre, (3, 1, 1, 1)), axis=0) / mm for _, centre, mm in BALLS]
    mask: Codes = (np.min(distances, 0) <= 1).astype(np.uint16)
    return mask


def run_app(folder: Path) -> Outcome:
    """Make the dataset in a folder, run the App on it in this process, and read what it wrote."""
    data, masks, out = folder / "data", folder / "masks", folder / "out"
    make_dataset(data)
    shutil.rmtree(data / "sub-01")  # the same scan at 1 mm takes longer
    scan = load(data / f"sub-{SUBJECT}" / "anat" / f"sub-{SUBJECT}_T1w.nii.gz")
    name = f"sub-{SUBJECT}_label-lesion_mask.nii.gz"
    save(masks / f"sub-{SUBJECT}" / "anat" / name, lesion_mask(scan), scan.affine)
    plugin = folder / "plugin.json"
    plugin.write_text(json.dumps({"plugin": "Linear"}))
    options = ["--derivatives", str(masks), "--use-plugin", str(plugin), "--device", "cpu"]
    if run([str(data), str(out), "participant", *options]) != EXIT_OK:
        raise RuntimeError("the run failed; its reason is above")
    anat = out / f"sub-{SUBJECT}" / "anat"
    labels = load(anat / f"sub-{SUBJECT}_space-orig_seg-regions_desc-T1w_dseg.nii.gz").data.astype(np.uint16)
    lesions = anat / f"sub-{SUBJECT}_desc-lesions_lesions.tsv"
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return Outcome(labels, _rows(lesions), names)


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))


def expected() -> Outcome:
    """What was found when the expectations were made."""
    names = (EXPECTED / "names.txt").read_text(encoding="utf-8").splitlines()
    return Outcome(np.load(EXPECTED / "labels.npz")["labels"], _rows(EXPECTED / "lesions.tsv"), names)


def flair_of(scan: Image) -> Image:
    """Dark fluid, bright grey and middling white matter, as in FLAIR, with noise and the balls of the golden scene."""
    codes = expected().labels
    names = {label.index: label.name for label in label_table("regions")}
    tissue = [np.isin(codes, [code for code, name in names.items() if part in name]) for part in ("ctx", "White")]
    grey, white = (float(np.median(scan.data[where])) for where in tissue)
    levels = ([0.0, 0.35 * grey, grey, white, 1.3 * white], [0.0, 15.0, 85.0, 62.0, 50.0])
    flair = np.interp(scan.data, *levels) + np.random.default_rng(0).normal(0, 1.5, scan.data.shape) * (codes > 0)
    balls = lesion_mask(scan) > 0
    return replace(scan, data=np.where(balls, 130.0, flair).astype(np.float32))


def regenerate() -> None:
    """Replace the expectations."""
    with tempfile.TemporaryDirectory() as folder:
        found = run_app(Path(folder))
    np.savez_compressed(EXPECTED / "labels.npz", labels=found.labels)
    (EXPECTED / "names.txt").write_text("\n".join(found.names) + "\n", encoding="utf-8")
    lines = ["\t".join(found.lesions[0]), *("\t".join(row.values()) for row in found.lesions)]
    (EXPECTED / "lesions.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    regenerate()
