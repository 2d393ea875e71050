"""The demo: a small BIDS dataset made from the MNI152 T1 that nilearn ships, segmented by the BIDS App."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bidsseg.authorship import is_ours
from bidsseg.bids.outputs import participants
from bidsseg.cli import bids_app
from bidsseg.errors import UserError
from bidsseg.files import read_json, write_text
from bidsseg.imaging.affines import voxel_spacing_mm
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.image import Image, save

NAME = "MNI152 T1 as a patient"
SLICE_MM = 6
"Thickness of the slices of the clinical-looking scan."


def template() -> Image:
    """The MNI152 T1 at 1 mm that nilearn ships."""
    from nilearn.datasets import load_mni152_template

    loaded = load_mni152_template(resolution=1)
    volume = np.asarray(loaded.dataobj, dtype=np.float32)
    return Image(volume, np.asarray(loaded.affine, dtype=np.float64), loaded.header)


def make_dataset(folder: Path) -> None:
    """sub-01: the MNI152 T1 at 1 mm; sub-02: the same averaged to thick axial slices."""
    scan = template()
    volume, affine = scan.data, scan.affine
    description = {"Name": NAME, "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    write_text(folder / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    write_text(folder / "README", "The MNI152 T1 template (nilearn), and the same in thick slices.\n")
    save(folder / "sub-01" / "anat" / "sub-01_T1w.nii.gz", volume, affine)
    thick = affine @ np.diag((1.0, 1.0, SLICE_MM / voxel_spacing_mm(affine)[2], 1.0))
    thick[:3, 3] += (thick[:3, 2] - affine[:3, 2]) / 2
    save(folder / "sub-02" / "anat" / "sub-02_T1w.nii.gz", average_slices(volume, SLICE_MM), thick)


def is_demo(folder: Path) -> bool:
    """Whether a folder holds the demo's dataset, or nothing."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return True
    return read_json(folder / "dataset_description.json").get("Name") == NAME and all(
        map(is_ours, folder.rglob("*.nii.gz"))
    )


def average_slices(volume: Floats, count: int) -> Floats:
    """Means of ``count`` neighbouring slices, (I, J, K) to (I, J, K // count)."""
    i, j, k = volume.shape
    means: Floats = volume[..., : k // count * count].reshape(i, j, -1, count).mean(-1)
    return means


def run_demo(out: Path) -> None:
    """Make the dataset in OUT/data, segment it into OUT/derivatives, and say where to look.

    Raises ``UserError`` if something fails.
    """
    if not is_demo(out / "data"):
        raise UserError(f"{out / 'data'}: holds other data; give another folder")
    make_dataset(out / "data")
    derivatives = out / "derivatives"
    print(f"Segmenting {out / 'data'}: 2 scans, about a minute on a laptop.", flush=True)
    if bids_app.run([str(out / "data"), str(derivatives), "participant"]) != 0:
        raise UserError(f"{derivatives}: the demo failed; the reason is above, details are in its logs folder")
    print("Pictures:")
    found = participants(derivatives)
    for picture in (picture for participant in found for picture in participant.pictures()):
        print(f"  {picture}")
    for report in (participant.report for participant in found if participant.report.exists()):
        print(f"Report: {report}")
