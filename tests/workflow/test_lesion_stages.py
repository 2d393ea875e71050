"""Lesions in the BIDS App: masks found, tables written, run again only where something changed."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bidsseg.bids.lesion_masks import MaskSearch, choose, find_masks
from bidsseg.bids.names import parse_scan
from bidsseg.bids.outputs import ScanOutputs, sidecar_of
from bidsseg.bids.session_order import natural
from bidsseg.cli.exit_codes import EXIT_LESIONS_FAILED, EXIT_OK
from bidsseg.errors import UserError
from bidsseg.files import read_json, write_json
from bidsseg.imaging.image import load, save
from bidsseg.labels import TISSUE, Scheme
from bidsseg.lesions.finding import lesion_mask, load_fields
from bidsseg.lesions.options import LesionOptions
from bidsseg.network.card import folder_of
from bidsseg.network.lesion_card import LESION_MODEL, read_lesion_card
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.workflow.jobs import LesionJob
from bidsseg.workflow.lesion_plan import link_names
from bidsseg.workflow.lesion_stages import describe_participant
from tests.conftest import Dataset, Run
from tests.conftest import write_scan as write_image

BOXES = [(slice(6, 9), slice(8, 11), slice(8, 11)), (slice(13, 16), slice(8, 12), slice(8, 11))]


@pytest.fixture
def app(app: Run, tmp_path: Path) -> Run:
    """Runs the participant level with masks from tmp_path/masks in this process."""

    def call(dataset: Path, *options: str) -> int:
        return app(dataset, "--derivatives", str(tmp_path / "masks"), *options)

    return call


def write_mask(folder: Path, scan: str, lesions: int = 2, name: str = "label-lesion_mask.nii.gz") -> Path:
    """A mask of boxes on the grid of the scans that ``conftest`` writes, named after a scan."""
    entities = scan.split("_")[:-1]
    path = folder.joinpath(*(e for e in entities if e[:3] in ("sub", "ses")), "anat", "_".join([*entities, name]))
    image = nib.load(write_image(folder / "grid.nii.gz"))
    (folder / "grid.nii.gz").unlink()
    data = np.zeros(image.shape, np.uint8)
    for box in BOXES[:lesions]:
        data[box] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, image.affine), path)
    return path


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8"), delimiter="\t"))


def test_two_sessions(dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables, images, pictures and changes of a patient; a third session has no mask; all is valid BIDS."""
    root = dataset(*(f"sub-01_ses-{n}_FLAIR.nii.gz" for n in (1, 2, 10)), "sub-02_T1w.nii.gz")
    for number in (2, 10):
        first = root / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_FLAIR.nii.gz"
        shutil.copy(first, root / "sub-01" / f"ses-{number}" / "anat" / f"sub-01_ses-{number}_FLAIR.nii.gz")
    description = root / "dataset_description.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), "Authors": ["A", "B"]}))
    write_mask(tmp_path / "masks", "sub-01_ses-2_FLAIR", lesions=1)
    write_mask(tmp_path / "masks", "sub-01_ses-10_FLAIR")
    assert app(root, "--seg", "lobes", "--lesion-bands", "3", "10") == EXIT_OK
    out = tmp_path / "out"
    anat = out / "sub-01" / "ses-10" / "anat"
    rows = table(anat / "sub-01_ses-10_desc-lesions_lesions.tsv")
    assert [float(row["volume_mm3"]) for row in rows] == [36 * 8, 27 * 8]
    loads = table(anat / "sub-01_ses-10_desc-lesionload_lesions.tsv")
    assert {row["level"] for row in loads} == {"total", "zone", "part", "voxel", "region", "lobe", "band"}
    summary = json.loads((anat / "sub-01_ses-10_desc-lesionsummary_lesions.json").read_text())
    assert summary["Mask"] == "bids:masks:sub-01/ses-10/anat/sub-01_ses-10_label-lesion_mask.nii.gz"
    for name in (
        "space-orig_desc-lesions_dseg",
        "space-orig_desc-lesionparts_dseg",
        "space-orig_seg-regions_desc-lesions_dseg",
    ):
        assert (anat / f"sub-01_ses-10_{name}.nii.gz").exists()
        assert summary["Mask"] in json.loads((anat / f"sub-01_ses-10_{name}.json").read_text())["Sources"]
    assert (out / "sub-01" / "figures" / "sub-01_ses-10_desc-lesions_dseg.png").exists()
    changes = table(out / "sub-01" / "sub-01_desc-lesionchanges_lesions.tsv")
    assert sorted((row["session_before"], row["session_after"], row["status"]) for row in changes) == [
        ("2", "10", "new"), ("2", "10", "stable"),
    ]  # fmt: skip
    links = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]
    assert links["masks"] == (tmp_path / "masks").as_uri()
    told = capsys.readouterr().out
    assert told.count("no mask") >= 2
    if shutil.which("bids-validator-deno"):
        command = ["bids-validator-deno", "--format", "json", str(out)]
        report = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
        assert report["issues"]["issues"] == []


@pytest.mark.parametrize(("mask_of", "warned"), [("sub-01_FLAIR", False), ("sub-03_FLAIR", True)])
def test_derivatives_without_a_mask_for_anybody_are_named(
    mask_of: str, warned: bool, dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset("sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz")
    write_mask(tmp_path / "masks", mask_of)
    assert app(root, "--dry-run") == EXIT_OK
    assert (f"warning: {tmp_path / 'masks'}: no lesion mask of these participants" in capsys.readouterr().err) == warned


def test_a_dry_run_foresees_the_lesions_of_scans_that_are_to_do(
    dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset("sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz")
    for number in (1, 2):
        write_mask(tmp_path / "masks", f"sub-0{number}_FLAIR")
    assert app(root) == EXIT_OK
    quality = tmp_path / "out" / "sub-01" / "anat" / "sub-01_desc-FLAIR_qc.json"
    write_json(quality, {**read_json(quality), "SoftwareVersion": "0"})
    capsys.readouterr()
    assert app(root, "--dry-run") == EXIT_OK
    cells = [line.split("│") for line in capsys.readouterr().out.splitlines() if "FLAIR" in line]
    assert {row[1].strip(): row[2].strip() for row in cells if row[2].strip()} == {
        "sub-01_FLAIR": "to do",
        "sub-01_FLAIR lesions": "to do",
        "sub-02_FLAIR": "complete",
        "sub-02_FLAIR lesions": "complete",
    }


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("given", {"sub-01_FLAIR lesions": "given", "sub-02_FLAIR lesions": "found", "sub-03 lesions": "no mask"}),
        ("found", {"sub-01_FLAIR lesions": "found", "sub-02_FLAIR lesions": "found", "sub-03 lesions": "no mask"}),
        ("none", {"sub-01_FLAIR lesions": "given", "sub-02 lesions": "no mask", "sub-03 lesions": "no mask"}),
    ],
)
def test_a_dry_run_foresees_where_lesions_come_from(
    source: str,
    told: dict[str, str],
    dataset: Dataset,
    tmp_path: Path,
    app: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    root = dataset("sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz", "sub-03_T1w.nii.gz")
    write_mask(tmp_path / "masks", "sub-01_FLAIR")
    assert app(root, "--dry-run", "--lesions", source) == EXIT_OK
    cells = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    sources = {
        "mask sub-01_label-lesion_mask.nii.gz": "given",
        **{f"mask sub-0{n}_space-orig_label-lesion_desc-FLAIR_mask.nii.gz": "found" for n in (1, 2)},
    }
    assert {row[1]: sources.get(row[4], row[2]) for row in cells if len(row) > 4 and "lesions" in row[1]} == told


def test_run_again(dataset: Dataset, tmp_path: Path, app: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Lesions run again when mask or options change, and only then; the segmentation stays as it is."""
    root, out = dataset("sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz"), tmp_path / "out"
    masks = [write_mask(tmp_path / "masks", f"sub-0{n}_FLAIR") for n in (1, 2)]
    tables = [out / f"sub-0{n}" / "anat" / f"sub-0{n}_desc-lesions_lesions.tsv" for n in (1, 2)]

    def times() -> list[int]:
        return [path.stat().st_mtime_ns for path in tables]

    assert app(root, "--dry-run") == EXIT_OK
    assert capsys.readouterr().out.count("to do") >= 4
    assert not out.exists()
    assert app(root) == EXIT_OK
    labels = {path: path.stat().st_mtime_ns for path in out.rglob("*desc-FLAIR_dseg.nii.gz")}
    first = times()
    assert app(root) == EXIT_OK
    assert times() == first
    write_mask(tmp_path / "masks", "sub-01_FLAIR", lesions=1)
    assert app(root) == EXIT_OK
    assert [old == new for old, new in zip(first, times(), strict=True)] == [False, True]
    assert len(table(tables[0])) == 1
    second = times()
    assert app(root, "--lesion-min-volume", "250") == EXIT_OK
    assert not set(second) & set(times())
    assert [row["zone"] for row in table(tables[1])][-1] == "too-small"
    masks[0].unlink()
    assert app(root, "--lesion-min-volume", "250") == EXIT_OK
    assert [path.exists() for path in tables] == [False, True]
    assert not list((out / "sub-01").rglob("*lesion*"))
    assert {path: path.stat().st_mtime_ns for path in labels} == labels


def test_changes_run_with_time(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    """A lesion of ses-pre is there in ses-post, which comes first in the alphabet, and another is new."""
    root, out = dataset(*(f"sub-01_ses-{name}_FLAIR.nii.gz" for name in ("pre", "post"))), tmp_path / "out"
    for name, lesions in (("pre", 1), ("post", 2)):
        write_mask(tmp_path / "masks", f"sub-01_ses-{name}_FLAIR", lesions)
    times = "session_id\tacq_time\nses-post\t2021-01-02T03:04:05\nses-pre\t2020-01-02T03:04:05\n"
    (root / "sub-01" / "sub-01_sessions.tsv").write_text(times)
    assert app(root) == EXIT_OK
    changes = table(out / "sub-01" / "sub-01_desc-lesionchanges_lesions.tsv")
    assert sorted(change["status"] for change in changes) == ["new", "stable"]
    assert {(change["session_before"], change["session_after"]) for change in changes} == {("pre", "post")}
    assert (out / "sub-01" / "sub-01_sessions.tsv").read_text() == times


@pytest.mark.parametrize("left", [1, 0])
def test_nothing_stays_of_masks_that_are_gone(left: int, dataset: Dataset, tmp_path: Path, app: Run) -> None:
    """Neither what was found, nor changes between sessions, nor failures, nor the page that shows them."""
    root, out = dataset(*(f"sub-01_ses-{n}_FLAIR.nii.gz" for n in (1, 2))), tmp_path / "out"
    masks = [write_mask(tmp_path / "masks", f"sub-01_ses-{n}_FLAIR") for n in (1, 2)]
    assert app(root) == EXIT_OK
    assert list(out.rglob("*lesionchange*"))
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    for mask in masks[left:]:
        mask.write_text("no image")
    assert app(root) == EXIT_LESIONS_FAILED
    for mask in masks[left:]:
        mask.unlink()
    assert app(root) == EXIT_OK
    assert not list(out.rglob("*lesionchange*"))
    assert not list((out / "logs").glob("*lesions_error.txt"))
    assert len(list(out.rglob("*_desc-lesionsummary_lesions.json"))) == left
    assert len((out / "sub-01.html").read_text(encoding="utf-8")) < len(page)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("truncated", "damaged or truncated"),
        ("text", "not a readable image"),
        ("brain", "give a mask of lesions only"),
        ("numbers", "give 0/1, probabilities 0-1, or labels"),
        ("two", "choose one with --lesion-pattern"),
    ],
)
def test_a_bad_mask(dataset: Dataset, tmp_path: Path, app: Run, damage: str, expected: str,
                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """One line that names it, an exit code of its own, and the segmentation all the same."""
    root = dataset("sub-01_FLAIR.nii.gz")
    mask = write_mask(tmp_path / "masks", "sub-01_FLAIR")
    image = nib.load(mask)
    if damage == "truncated":
        mask.write_bytes(mask.read_bytes()[:-40])
    elif damage == "text":
        mask.write_text("no image")
    elif damage == "two":
        shutil.copy(mask, mask.with_name("sub-01_rec-a_label-lesion_mask.nii.gz"))
    else:
        data = np.random.default_rng(0).uniform(0, 90, image.shape) if damage == "numbers" else np.ones(image.shape)
        nib.save(nib.Nifti1Image(data.astype(np.float32), image.affine), mask)
    assert app(root) == EXIT_LESIONS_FAILED
    errors = capsys.readouterr().err
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert expected in line
    assert str(mask.parent) in line
    assert "Traceback" not in errors
    assert len(list((tmp_path / "out").rglob("*seg-regions_desc-FLAIR_dseg.nii.gz"))) == 1
    assert not list((tmp_path / "out").rglob("*_lesions.tsv"))


# ---- which mask is whose

NAMES = {
    "sub-01/ses-1/anat/sub-01_ses-1_label-lesion_mask.nii.gz": "1",
    "lst/sub-01/ses-2/space-flair_seg-lst.nii.gz": "2",
    "lst/sub-01/ses-2/space-mni_seg-lst.nii.gz": "-",
    "lst/sub-01/ses-2/space-flair_desc-annotated_seg-lst.nii.gz": "-",
    "sub-01/ses-3/anat/sub-01_ses-3_space-FLAIR_desc-lesion_mask.nii.gz": "3",
    "sub-01/ses-3/anat/sub-01_ses-3_space-T1w_desc-lesion_mask.nii.gz": "-",
    "sub-01/ses-4/anat/sub-01_ses-4_desc-brain_mask.nii.gz": "-",
    "sub-01/ses-5/anat/sub-01_ses-5_run-1_label-lesion_mask.nii.gz": "5, run 1",
    "sub-01/ses-5/anat/sub-01_ses-5_run-2_label-lesion_mask.nii.gz": "5, run 2",
    "sub-02/anat/sub-02_label-lesion_roi.nii.gz": "none",
    "sub-02/anat/odd_name.nii.gz": "pattern",
    "own/sub-03/anat/sub-03_label-lesion_mask.nii.gz": "-",
}


@pytest.fixture
def derivatives(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("scans", "pattern", "expected"),
    [
        ("sub-01_ses-1_FLAIR", None, ("1", "FLAIR")),
        ("sub-01_ses-1_T1w sub-01_ses-1_FLAIR", None, ("1", "FLAIR")),
        ("sub-01_ses-2_FLAIR", None, ("2", "FLAIR")),
        ("sub-01_ses-3_FLAIR sub-01_ses-3_T1w", "*space-FLAIR*", ("3", "FLAIR")),
        ("sub-01_ses-3_FLAIR", None, ("3", "FLAIR")),
        ("sub-01_ses-4_FLAIR", None, None),
        ("sub-01_ses-5_run-2_FLAIR", None, ("5, run 2", "FLAIR")),
        ("sub-01_FLAIR", None, None),
        ("sub-02_T1w", None, ("none", "T1w")),
        ("sub-02_T1w", "odd*", ("pattern", "T1w")),
        ("sub-03_T1w", None, None),
    ],
)
def test_masks_and_scans(derivatives: Path, scans: str, pattern: str | None, expected: tuple[str, str] | None) -> None:
    found = [parse_scan(derivatives / f"{name}.nii.gz") for name in scans.split()]
    search = MaskSearch((derivatives,), pattern, derivatives / "own")
    pair = choose(found, find_masks(search, found[0].subject, found[0].session))
    assert (pair and (NAMES[pair[1].relative_to(derivatives).as_posix()], pair[0].suffix)) == expected


def test_the_grid_decides_where_names_do_not(tmp_path: Path) -> None:
    scans = [parse_scan(write_image(tmp_path / f"sub-01_{name}.nii.gz", shape)) for name, shape in
             (("FLAIR", (9, 8, 7)), ("T1w", (24, 22, 20)))]  # fmt: skip
    mask = write_mask(tmp_path, "sub-01_x")
    assert choose(scans, [mask]) == (scans[1], mask)


def test_several_masks(derivatives: Path) -> None:
    scans = [parse_scan(derivatives / "sub-01_ses-5_T1w.nii.gz")]
    with pytest.raises(UserError, match="2 lesion masks"):
        choose(scans, find_masks(MaskSearch((derivatives,)), "01", "5"))


def test_masks_behind_links_are_found_and_hidden_files_are_none(derivatives: Path, tmp_path: Path) -> None:
    session = derivatives / "sub-01" / "ses-1"
    session.rename(tmp_path / "elsewhere")
    session.symlink_to(tmp_path / "elsewhere")
    (session / "anat" / "._sub-01_ses-1_label-lesion_mask.nii.gz").touch()
    (session / "anat" / "back").symlink_to(session)
    [mask] = find_masks(MaskSearch((derivatives,)), "01", "1")
    assert mask == session / "anat" / "sub-01_ses-1_label-lesion_mask.nii.gz"


def test_names_of_links_and_order_of_sessions() -> None:
    a, b, c = (Path(f"/{name}") for name in "abc")
    assert link_names([a, b, c], {}) == {a: "masks", b: "masks2", c: "masks3"}
    known = {"raw": "file:///data", "masks": b.as_uri()}
    assert link_names([a, b, c], known) == {a: "masks2", b: "masks", c: "masks3"}
    assert sorted(["10", "2", "m12", "m6", "baseline"], key=natural) == ["2", "10", "baseline", "m6", "m12"]


# ---- found lesions


def write_found(outputs: ScanOutputs, probability: float) -> None:
    """A head of white matter alone, and what the network found in it: 27 voxels of 8 mm3 with this probability."""
    image = load(outputs.scan.path)
    nothing = np.zeros(image.data.shape, np.uint8)
    anatomy = Anatomy(np.full_like(nothing, TISSUE["white-matter"]), nothing, nothing, image.affine)
    schemes: tuple[Scheme, ...] = ("regions", "lobes")
    for scheme in schemes:
        save(outputs.labels(scheme), anatomy.labels(scheme), image.affine, image)
    likely = np.zeros(image.data.shape, np.float32)
    likely[BOXES[0]] = probability
    card = read_lesion_card(folder_of(LESION_MODEL))
    threshold, error = card.decided_by(image.spacing_mm, None)
    assert error is not None
    mask = lesion_mask(likely, anatomy, threshold)
    save(outputs.lesion_mask, mask.astype(np.uint8), image.affine, image)
    save(outputs.lesion_probabilities, likely, image.affine, image)
    load_ml = float(mask.sum()) * anatomy.voxel_volume_mm3 / 1000
    about = load_fields(load_ml, (0.0, load_ml), error.of(load_ml))
    about |= {"Threshold": threshold, "LesionWeightsSHA256": card.sha256}
    write_json(sidecar_of(outputs.lesion_mask), about)


def test_a_summary_tells_the_load_of_the_joint_mask(dataset: Dataset, tmp_path: Path) -> None:
    """The second session shows its lesion too faintly by itself, and together with the first one."""
    root, out = dataset(*(f"sub-01_ses-{n}_FLAIR.nii.gz" for n in (1, 2))), tmp_path / "out"
    scans = sorted(str(path) for path in root.rglob("*_FLAIR.nii.gz"))
    shutil.copy(scans[0], scans[1])
    job = LesionJob(str(root), str(out), "0", tuple(scans), (), (), asdict(LesionOptions()))
    masks = tuple(str(outputs.lesion_mask) for outputs in job.all_outputs)
    job = replace(job, masks=masks, mask_uris=masks)
    card = read_lesion_card(folder_of(LESION_MODEL))
    for outputs, share in zip(job.all_outputs, (1.4, 0.5), strict=True):
        write_found(outputs, share * card.thresholds.thin)
    describe_participant(asdict(job))
    second = job.all_outputs[1]
    own, summary = read_json(sidecar_of(second.lesion_mask)), read_json(second.lesions.summary)
    volume_ml = 27 * 8 / 1000
    assert own["LesionLoadMl"] == 0
    assert [float(row["volume_mm3"]) for row in table(second.lesions.table)] == [1000 * volume_ml]
    assert summary["LesionLoadMl"] == volume_ml
    assert summary["LesionLoadRangeMl"] == [volume_ml, volume_ml]
    assert card.load_errors
    assert summary["LesionLoadExpectedErrorMl"] == pytest.approx(card.load_errors.thin.of(volume_ml), abs=1e-3)


def test_all_scans_of_a_session_are_filled(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    """They are written once, belong to the lesions of the scan that has the mask, and go with ``--fill``."""
    root, anat = dataset("sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz", "sub-02_T1w.nii.gz"), Path("sub-01", "anat")
    write_mask(tmp_path / "masks", "sub-01_FLAIR")
    names = [anat / f"sub-01_space-orig_desc-filled_{suffix}.nii.gz" for suffix in ("FLAIR", "T1w")]
    assert app(root, "--fill") == EXIT_OK
    out = tmp_path / "out"
    assert [path.relative_to(out) for path in sorted(out.rglob("*_desc-filled_*.nii.gz"))] == names
    summary = read_json(out / anat / "sub-01_desc-lesionsummary_lesions.json")
    assert {str(name) for name in names} < set(summary["Outputs"])
    written = (out / names[1]).stat().st_mtime_ns
    assert app(root, "--fill") == EXIT_OK
    assert (out / names[1]).stat().st_mtime_ns == written
    assert app(root) == EXIT_OK
    assert not list(out.rglob("*_desc-filled_*"))
