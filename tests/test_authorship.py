"""Which files are ours: as written, not as somebody else has written or changed them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsseg.authorship import is_our_label_image, is_ours, refuse_inputs, refuse_to_replace, voxels_mark
from bidsseg.errors import UserError
from bidsseg.imaging.image import save
from bidsseg.segmentation.mosaic import write_png
from bidsseg.segmentation.volumes import VOLUME_COLUMNS
from tests.phantoms import image, ramp

Change = Callable[[Path], object]


def _edit_voxel(path: Path) -> None:
    stored = nib.load(path)
    data = np.array(stored.dataobj.get_unscaled())
    data[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(data, stored.affine, stored.header), path)


def _save_again(path: Path) -> None:
    stored = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj).copy(), stored.affine, stored.header), path)


def _another_program(path: Path) -> None:
    stored = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(stored.dataobj).copy(), stored.affine), path)


def _nothing(path: Path) -> None:
    pass


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize(
    ("change", "ours"),
    [(_nothing, True), (_save_again, True), (_edit_voxel, False), (_another_program, False), (_cut, False)],
)
def test_images(change: Change, ours: bool, kind: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"labels{ending}"
    save(path, ramp(3, 4, 5).astype(kind), np.eye(4), image(ramp(3, 4, 5)))
    change(path)
    assert is_ours(path) == ours
    assert is_our_label_image(path) == (ours and kind != "f4")


def test_images_of_several_volumes_with_a_slope(tmp_path: Path) -> None:
    path = tmp_path / "probseg.nii.gz"
    save(path, ramp(3, 4, 5, 2).astype(np.uint8), np.eye(4), image(ramp(3, 4, 5)), 1 / 255)
    assert is_ours(path)


def test_the_mark_depends_on_voxels_not_on_their_place_in_memory() -> None:
    data = ramp(3, 4, 5)
    assert voxels_mark(data) == voxels_mark(np.asfortranarray(data)) == voxels_mark(data.astype(">f4"))
    assert voxels_mark(data) != voxels_mark(data[::-1])
    assert len(voxels_mark(data)) < 80


@pytest.mark.parametrize(
    ("name", "text", "ours"),
    [
        ("a.tsv", "\t".join(VOLUME_COLUMNS) + "\n1\n", True),
        ("a.tsv", "\t".join([*VOLUME_COLUMNS, "my notes"]) + "\n1\n", False),
        ("a.tsv", "", False),
        ("a.json", json.dumps({name: {} for name in VOLUME_COLUMNS}), True),
        ("a.json", '{"SoftwareVersion": "1"}', True),
        ("a.json", '{"RepetitionTime": 2}', False),
        ("a.json", "[", False),
        ("a.png", "my picture", False),
        ("a.html", '<head><meta name="generator" content="bidsseg 1">', True),
        ("a.html", "<head>bidsseg", False),
        ("a.txt", "bidsseg", False),
    ],
)
def test_texts(name: str, text: str, ours: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert is_ours(tmp_path / name, [tuple(VOLUME_COLUMNS)]) == ours


def test_pictures(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    write_png(tmp_path / "ours.png", np.zeros((4, 4, 3), np.uint8))
    Pillow.new("RGB", (4, 4)).save(tmp_path / "theirs.png")
    assert [is_ours(tmp_path / name) for name in ("ours.png", "theirs.png")] == [True, False]


def test_what_is_not_there_may_be_written_and_what_is_not_ours_may_not(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    refuse_to_replace([path])
    path.touch()
    with pytest.raises(UserError, match=r"a\.nii\.gz: was not written by bidsseg.*--overwrite"):
        refuse_to_replace([path])


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_no_output_is_an_input_by_any_name(link: str | None, tmp_path: Path) -> None:
    scan, output = tmp_path / "scan.nii", tmp_path / ("out.nii" if link else "scan.nii")
    scan.touch()
    if link:
        getattr(output, link)(scan)
    refuse_inputs([tmp_path / "other.nii"], [scan])
    with pytest.raises(UserError, match="is an input of this command"):
        refuse_inputs([output], [scan])
