"""The participant's page: complete, safe, small, and in a real browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from bidsseg.bids.names import Scan
from bidsseg.bids.outputs import OutputSettings, ScanOutputs
from bidsseg.errors import Failure, Kind
from bidsseg.files import write_text
from bidsseg.imaging.grid import conform, grid_of
from bidsseg.imaging.image import Image
from bidsseg.imaging.image import save as save_image
from bidsseg.labels import TISSUE, label_table
from bidsseg.lesions.records import FOUND, GIVEN
from bidsseg.report.charts import label_title, read_charts
from bidsseg.report.html import NIIVUE, packed
from bidsseg.report.lesions import lesion_table
from bidsseg.report.participant import MARGIN_BYTES, measure, participant_report
from bidsseg.report.viewer import as_text, embed, rows_and_codes, shown_axis
from bidsseg.segmentation.result import Segmentation
from bidsseg.workflow.derivatives import ScanResult, write_scan
from bidsseg.workflow.failures import write_log
from tests.browser import CHROMIUM, browser

RECIPE = OutputSettings("0.1.0", "small", "0" * 64, schemes=("regions", "lobes"))
RIGHT = 100
LESION_CENTRES = ((16, 25, 4), (30, 25, 4))
NASTY = "<script>alert('&\"')</script>"
SHAPE, SPACING_MM = (44, 50, 9), (1.5, 1.5, 5.0)


def phantom(seed: int = 0) -> tuple[Image, Segmentation]:
    """A ball of cortex around white matter around a ventricle, left and right, in thick slices."""
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    radius = np.sqrt(i**2 + j**2 + k**2)
    tissue = np.zeros(SHAPE, np.uint8)
    for limit, name in ((0.85, "cortex"), (0.65, "white-matter"), (0.3, "lateral-ventricle")):
        tissue[radius < limit] = TISSUE[name]
    noise = np.random.default_rng(seed).normal(0, 2, SHAPE)
    data = (np.array([5, 80, 120, 30] + [0] * 20)[tissue] + noise).astype(np.float32)
    side = (i > 0).astype(np.uint8)
    parcel = np.where(j > 0, 30, 5).astype(np.uint8)
    confidence = np.where(tissue > 0, 0.9, 0).astype(np.float16)
    affine = np.diag((*SPACING_MM, 1.0))
    image = Image(data, affine)
    return image, Segmentation(tissue, side, parcel, affine, confidence=confidence)


def add_scan(
    out: Path, session: str | None = "1", suffix: str = "FLAIR", warnings: tuple[str, ...] = ()
) -> ScanOutputs:
    """Write the derivatives of a phantom."""
    image, segmentation = phantom()
    entities = (("sub", "01"), *((("ses", session),) if session else ()))
    name = "_".join([*(f"{key}-{value}" for key, value in entities), f"{suffix}.nii.gz"])
    source = out.parent / "raw" / name
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(b"scan")
    outputs = ScanOutputs(Scan(source, entities, suffix), out.parent / "raw", out)
    image = Image(image.data, image.affine, image.header, warnings)
    write_scan(outputs, RECIPE, ScanResult(image, segmentation, conform(image)[0]))
    return outputs


def add_lesions(outputs: ScanOutputs, name: str = "deep-white-matter") -> Path:
    """A table of two lesions and their image."""
    found = outputs.lesions
    centres = [centre_mm(index) for index in LESION_CENTRES]
    columns = ("lesion", "volume_mm3", *(f"centroid_{axis}_mm" for axis in "xyz"), "zone", "main_region")
    rows = [columns, ("1", "33.75", *centres[0], name, "wm-lh-frontal-lobe")]
    rows.append(("2", "11.25", *centres[1], "periventricular", "n/a"))
    path = found.table
    write_table(path, rows)
    image, _ = phantom()
    lesions = np.zeros(SHAPE, np.uint16)
    lesions[15:18, 25, 4], lesions[30, 25, 4] = 1, 2
    save_image(found.image, lesions, image.affine)
    return path


def centre_mm(index: tuple[int, int, int]) -> list[str]:
    return [f"{i * mm:g}" for i, mm in zip(index, SPACING_MM, strict=True)]


def write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    write_text(path, "\n".join("\t".join(row) for row in rows) + "\n")


def add_parts(place: ScanOutputs) -> None:
    """The first lesion of ``add_lesions`` in two parts; its last voxel is the second, in another zone."""
    found = place.lesions
    rows = [("part", "lesion", "zone"), ("1", "1", "deep-white-matter"), ("2", "1", "juxtacortical")]
    write_table(found.parts_table, [*rows, ("3", "2", "periventricular")])
    image, _ = phantom()
    parts = np.zeros(SHAPE, np.uint16)
    parts[15:17, 25, 4], parts[17, 25, 4], parts[30, 25, 4] = 1, 2, 3
    save_image(found.parts_image, parts, image.affine)


def add_probability(place: ScanOutputs, source: str) -> None:
    """Of lesion, 0.8 in the lesions and 0.25 beside one; ``source`` is where the summary says that they come from."""
    image, _ = phantom()
    probability = np.zeros(SHAPE, np.uint8)
    probability[15:18, 25, 4] = probability[30, 25, 4] = 204
    probability[18, 25, 4] = 64
    save_image(place.lesion_probabilities, probability, image.affine, slope=1 / 255)
    write_text(place.lesions.summary, json.dumps({"Scan": "sub-01_ses-1_FLAIR", "LesionsFrom": source}))


def data_in(text: str, kind: str, anchor: str = "sub-01_ses-1_desc-FLAIR") -> str:
    """The content of a script element of a page; empty where there is none."""
    found = re.search(f'id="{kind}-{anchor}">(.*?)</script>', text, re.DOTALL)
    return found[1] if found else ""


def test_lesions_are_a_layer_of_the_viewer(tmp_path: Path) -> None:
    out = tmp_path / "out"
    place = add_scan(out)
    add_scan(out, suffix="T1w")
    add_lesions(place)
    add_parts(place)
    add_probability(place, FOUND)
    text = participant_report(out, "01").read_text(encoding="utf-8")
    for anchor in ("sub-01_ses-1_desc-FLAIR", "sub-01_ses-1_desc-T1w"):  # one grid
        data = json.loads(data_in(text, "data", anchor))
        about, codes = data["lesions"], data["codes"]
        zones = [zone["name"] for zone in about["zones"]]
        assert [zones[at - 1] for at in about["zone_of"][1:]] == ["deep white matter", "periventricular"]
        assert about["ml_of"][1:] == [0.0338, 0.0112]
        named = [zones[at - 1] for at in about["zone_of_part"][1:]]
        assert named == ["deep white matter", "juxtacortical", "periventricular"]
        assert {(x, y) for x, y in zip(codes["lesions"], codes["parts"], strict=True) if x or y} == {
            (1, 1), (1, 2), (2, 3),
        }  # fmt: skip
        percent, rows = unpacked(data_in(text, "percent", anchor)), unpacked(data_in(text, "rows", anchor))
        assert np.unique(percent[np.array(codes["lesions"])[rows.astype(int)] > 0]).tolist() == [80]
        assert np.unique(percent).tolist() == [0, 25, 80]
    assert "not a diagnosis" in text[text.index('id="lesions"') :][:300]


def test_rows_of_lesions_lead_to_their_voxels(tmp_path: Path) -> None:
    out = tmp_path / "out"
    place = add_scan(out)
    add_lesions(place)
    add_summary(place)
    text = participant_report(out, "01").read_text(encoding="utf-8")
    data, rows = json.loads(data_in(text, "data")), nifti(data_in(text, "rows"))
    places = re.findall(r'<tr class="place" data-base="(.*?)" data-lesion="(\d+)" data-mm="(.*?)"', text)
    assert [number for _, number, _ in places] == ["1", "2"]
    for base, number, mm in places:
        assert base == data["lesions"]["base"]
        index = np.linalg.solve(rows.affine, [*map(float, mm.split()), 1])[:3].round().astype(int)
        assert data["codes"]["lesions"][int(rows.dataobj[tuple(index)])] == int(number)


@pytest.mark.parametrize("missing", ["lesions off the grid", "no volumes"])
def test_rows_lead_nowhere_without_a_layer(tmp_path: Path, missing: str) -> None:
    out = tmp_path / "out"
    place = add_scan(out)
    add_lesions(place)
    add_summary(place)
    if missing == "no volumes":
        place.preprocessed.unlink()
    else:
        image, _ = phantom()
        save_image(place.lesions.image, np.ones((5, 5, 5), np.uint16), image.affine)
    text = participant_report(out, "01").read_text(encoding="utf-8")
    assert "<td>wm-lh-frontal-lobe</td>" in text
    assert '<tr class="place"' not in text


def test_probabilities_are_shown_of_found_lesions_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    place = add_scan(out)
    add_lesions(place)
    add_probability(place, GIVEN)
    text = participant_report(out, "01").read_text(encoding="utf-8")
    assert json.loads(data_in(text, "data"))["lesions"]["zone_of"][1:] == [5, 1]
    assert not data_in(text, "percent")


def test_a_page_tells_what_was_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outputs = add_scan(out, warnings=("sform and qform disagree",))
    add_scan(out, "2", "T1w")
    add_lesions(outputs)
    write_text(out / "logs" / "CITATION.md", "# Methods\n\nSegmented with bidsseg.\n\n- Billot B et al.\n")
    text = participant_report(out, "01").read_text(encoding="utf-8")
    for expected in (
        *("Session 1 · FLAIR", "Session 2 · T1w", "sform and qform disagree", "Intracranial volume"),
        *("Frontal white matter", "deep-white-matter", "Segmented with bidsseg.", ">Billot B et al.<", "0" * 64),
        *("data:image/jpeg;base64,", "sub-01/figures/sub-01_ses-1_seg-regions_desc-FLAIR_dseg.png"),
    ):
        assert expected in text, expected
    assert "Probabilities" not in text  # an option, no measure
    assert [path.name for path in out.glob("*.html")] == ["sub-01.html"]
    assert not list(out.glob(".*html"))


def test_the_subject_may_have_its_prefix(tmp_path: Path) -> None:
    add_scan(tmp_path / "out", None)
    assert participant_report(tmp_path / "out", "sub-01").name == "sub-01.html"


def test_nothing_of_the_user_becomes_markup(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outputs = add_scan(out, warnings=(NASTY,))
    add_lesions(outputs, NASTY)
    quality = json.loads(outputs.quality.read_text(encoding="utf-8"))
    write_text(outputs.quality, json.dumps({**quality, "Model": NASTY, "Verdict": "check", "Reasons": [NASTY + "2"]}))
    write_text(out / "logs" / "CITATION.md", NASTY)
    write_text(out / "logs" / "sub-01_ses-9_T1w_error.txt", f"ValueError: {NASTY}\n")
    text = participant_report(out, "01").read_text(encoding="utf-8")
    assert NASTY not in text
    assert text.count("&lt;script&gt;alert(") >= 6
    assert 'class="badge check"' in text


def test_failed_scans_are_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    log = "Traceback ...\nFileError: x.nii.gz: of the traceback\n"
    write_log(out / "logs" / "sub-01_T1w_error.txt", Failure("x.nii.gz: truncated; export it again", Kind.USER, log))
    write_text(out / "logs" / "sub-011_T1w_error.txt", "ValueError: of another participant\n")
    text = participant_report(out, "01").read_text(encoding="utf-8")
    assert "x.nii.gz: truncated; export it again" in text
    assert "x.nii.gz: of the traceback" in text
    assert "another participant" not in text
    assert "No scan of this participant has been segmented" in text


def add_summary(outputs: ScanOutputs) -> None:
    """What goes with the lesions of ``add_lesions``, and the changes since another session."""
    folder = outputs.quality.parent
    columns = (
        *("level", "name", "index", "count", "count_touching", "volume_mm3", "fraction_of_region"),
        *("fraction_of_lesions", "largest_mm3"),
    )
    rows = [("zone", "periventricular", "n/a", "1", "2", "11.25", "n/a", "0.25", "11.25")]
    rows += [("zone", "outside", "n/a", "0", "0", "0", "n/a", "0", "0")]
    text = "\n".join("\t".join(row) for row in (columns, *rows)) + "\n"
    write_text(folder / "sub-01_ses-1_desc-lesionload_lesions.tsv", text)
    summary = {"Findings": "periventricular: 1", "Mask": "bids:masks:sub-01/x_mask.nii.gz", "MaskKind": "binary"}
    more = {"Scan": "sub-01_ses-1_FLAIR", "Warnings": ["only 70% of the lesion mask lies in the brain"]}
    write_text(folder / "sub-01_ses-1_desc-lesionsummary_lesions.json", json.dumps({**summary, **more}))
    counts = {"new": 2, "enlarged": 1, "stable": 40, "shrunken": 0, "vanished": 3, "not-covered": 0}
    changes = {"Intervals": [{"Before": "1", "After": "2", **counts}]}
    path = outputs.out / "sub-01" / "sub-01_desc-lesionchangesummary_lesions.json"
    write_text(path, json.dumps(changes))


def test_lesions_are_told_with_their_mask(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outputs = add_scan(out)
    add_scan(out, "2")
    assert "No lesions were given or looked for." in participant_report(out, "01").read_text(encoding="utf-8")
    add_lesions(outputs)
    add_summary(outputs)
    text = participant_report(out, "01").read_text(encoding="utf-8")
    for expected in (
        *("periventricular: 1", "bids:masks:sub-01/x_mask.nii.gz (binary;", "only 70% of the lesion mask"),
        *("No lesions were given or found for session 2.", "Change over sessions", "<td>1 to 2</td><td>2</td>"),
        '</i>periventricular</td><td class="number">1</td><td class="number">2</td>'
        '<td class="number"></td><td class="number">0.01</td>',
    ):
        assert expected in text, expected
    assert "</i>outside" not in text


@pytest.mark.parametrize("damage", ["volumes.tsv", "qc.json", "dseg.nii.gz", "FLAIR.nii.gz", "png"])
def test_damaged_derivatives_leave_a_page_that_says_so(tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    add_scan(out)
    for path in (out / "sub-01").rglob(f"*{damage}"):
        path.write_bytes(b"\xff\x00damaged")
    text = participant_report(out, "01").read_text(encoding="utf-8")
    assert "Session 1 · FLAIR" in text
    if damage != "png":
        assert re.search("could not be read|not in the viewer", text)


def test_missing_volumes_and_pictures_are_no_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    add_scan(out)
    for path in [p for p in (out / "sub-01").rglob("*") if p.is_file() and not p.name.endswith("_qc.json")]:
        path.unlink()
    assert "Session 1 · FLAIR" in participant_report(out, "01").read_text(encoding="utf-8")


def test_many_scans_stay_under_15_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    for session in range(3):
        add_scan(out, str(session))
    whole = participant_report(out, "01").stat().st_size
    limit = MARGIN_BYTES + len(packed(NIIVUE)) + 600_000  # for smaller pictures, and no viewer
    monkeypatch.setattr("bidsseg.report.participant.PAGE_BYTES", limit)
    page = participant_report(out, "01")
    assert page.stat().st_size < min(whole, limit)
    assert "data:image/jpeg" in page.read_text(encoding="utf-8")


def nifti(text: str) -> Nifti1Image:
    return Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def unpacked(text: str) -> NDArray[np.generic]:
    return np.asarray(nifti(text).dataobj)


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_the_viewer_shows_the_labels_where_they_are(flip: tuple[int, int, int]) -> None:
    image, segmentation = phantom()
    stored = tuple(slice(None, None, sign) for sign in flip)
    affine = image.affine @ np.diag((*flip, 1.0))
    affine[:3, 3] = [(n - 1) * mm if sign < 0 else 0 for n, mm, sign in zip(SHAPE, SPACING_MM, flip, strict=True)]
    scan = Image(image.data[stored], affine, image.header)
    one_mm, grid = conform(scan)
    anatomy = np.where(segmentation.tissue > 0, segmentation.tissue + RIGHT * segmentation.side, 0)
    labels = Image(anatomy[stored].astype(np.float32), affine, image.header)
    found = embed(Image(one_mm, grid.affine, image.header), {"regions": labels}, 10_000_000)
    assert found is not None
    assert found.spacing_mm == SPACING_MM  # never finer than the scan
    codes = np.array(found.codes["regions"])[unpacked(found.rows).astype(int)]
    assert np.array_equal(np.bincount(codes[codes > 0]), np.bincount(anatomy[anatomy > 0]))
    middle = codes.shape[0] // 2
    assert codes[:middle].max() < RIGHT
    assert codes[middle:][codes[middle:] > 0].min() > RIGHT
    grey, tissue = unpacked(found.grey).astype(float), codes % RIGHT
    assert grey[tissue == TISSUE["white-matter"]].mean() > grey[tissue == TISSUE["cortex"]].mean() + 20
    centre = nifti(found.rows).affine @ [*((np.array(codes.shape) - 1) / 2), 1]
    assert centre[:3] == pytest.approx((np.array(SHAPE) - 1) / 2 * SPACING_MM, abs=0.6)


def test_the_viewer_knows_where_in_mm_voxels_of_an_oblique_scan_lie() -> None:
    image, segmentation = phantom()
    cos, sin = np.cos(0.35), np.sin(0.35)
    turned = np.array([[1, 0, 0, -30], [0, cos, -sin, 12], [0, sin, cos, 7], [0, 0, 0, 1]]) @ image.affine
    one_mm, grid = conform(Image(image.data, turned, image.header))
    lesions = np.zeros(SHAPE, np.float32)
    lesions[15, 30, 6] = 1
    labels = {
        "regions": Image(segmentation.tissue.astype(np.float32), turned, image.header),
        "lesions": Image(lesions, turned, image.header),
    }
    found = embed(Image(one_mm, grid.affine, image.header), labels, 10_000_000)
    assert found is not None
    shown = nifti(found.rows)
    at = np.argwhere(np.array(found.codes["lesions"])[np.asarray(shown.dataobj).astype(int)] == 1)
    assert len(at) == 1
    assert (shown.affine @ [*at[0], 1])[:3] == pytest.approx((turned @ [15, 30, 6, 1])[:3], abs=0.01)


def test_a_tight_limit_lowers_the_quality_and_then_leaves_out() -> None:
    image, segmentation = phantom()
    one_mm, grid = conform(image)
    scan = Image(one_mm, grid.affine, image.header)
    labels = {"regions": Image(segmentation.tissue.astype(np.float32), image.affine, image.header)}
    best = embed(scan, labels, 10_000_000)
    assert best is not None
    worse = embed(scan, labels, best.size - 1)
    assert worse is not None
    assert worse.size < best.size
    assert embed(scan, labels, 100) is None


def test_scans_and_labels_of_different_grids_are_refused() -> None:
    image, segmentation = phantom()
    labels = {"regions": Image(segmentation.tissue.astype(np.float32), image.affine, image.header)}
    with pytest.raises(ValueError, match="not on matching grids"):
        embed(image, labels, 10_000_000)


def test_rows_give_back_every_scheme() -> None:
    random = np.random.default_rng(0)
    shown = {
        name: random.integers(0, 4208, (5, 6, 7)).astype(np.uint16) for name in ("regions", "lobes", "gyri", "lesions")
    }
    rows, codes = rows_and_codes(shown)
    for name, expected in shown.items():
        assert np.array_equal(np.array(codes[name])[rows], expected)


def test_fine_axes_are_shown_at_1_mm() -> None:
    axis = shown_axis(slice(10, 30), 0.5, 1.0)
    assert len(axis.centres) == 10
    assert axis.centres[:2].tolist() == [10.5, 12.5]
    assert shown_axis(slice(2, 5), 6.0, 1.0).centres.tolist() == [2, 3, 4]


def test_volumes_pair_left_and_right(tmp_path: Path) -> None:
    outputs = add_scan(tmp_path / "out")
    charts = read_charts(outputs.file("volumes.tsv", desc="FLAIR"), 100.0)
    assert [chart.scheme for chart in charts] == ["regions", "lobes"]
    rows = {row.name: row for row in charts[0].structures}
    ventricle = rows["Lateral ventricle"]
    assert ventricle.left is not None
    assert ventricle.right is not None
    assert ventricle.asymmetry_percent == pytest.approx(0)
    assert rows["Brain stem"].midline is not None
    assert charts[0].length(charts[0].largest_ml) == 96


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("IntracranialVolumeMm3", 1_386_400, "1,386 mL"),
        ("CerebralAsymmetry", 0.0123, "1.2 %"),
        ("CerebralAsymmetry", -0.0123, "-1.2 %"),
        ("CerebralAsymmetry", -0.0004, "0.0 %"),
        ("SomethingNewOfTheFuture", 0.12345, "0.123"),
        ("ExpectedDice", 0.8, "0.800"),
        ("SomethingLarge", 104.0, "104"),
        ("Count", 3, "3"),
    ],
)
def test_measures_in_words(name: str, value: float, shown: str) -> None:
    assert measure(name, value).value == shown


def test_labels_in_words() -> None:
    titles = {label.name: label_title(label) for label in label_table("regions")}
    assert titles["ctx-lh-frontal-lobe"] == "Left frontal cortex"
    assert titles["3rd-Ventricle"] == "3rd ventricle"
    assert titles["CSF"] == "CSF"


def test_empty_lesion_tables_are_left_out(tmp_path: Path) -> None:
    write_text(tmp_path / "x_lesions.tsv", "lesion\tvolume_mm3\n")
    assert lesion_table(tmp_path, tmp_path / "x_lesions.tsv") is None


def test_embedded_volumes_are_nifti() -> None:
    grid = grid_of((3, 4, 5), np.eye(4))
    data = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    assert np.array_equal(unpacked(as_text(data, grid.affine)), data)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which is not installed")
def test_the_viewer_works_in_a_browser(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outputs = add_scan(out)
    add_lesions(outputs)
    add_parts(outputs)
    add_summary(outputs)
    add_probability(outputs, FOUND)
    add_scan(out, "2", "T1w")
    page = participant_report(out, "01")
    with browser() as tab:
        tab.open(page)
        tab.wait_for("document.getElementById('canvas')?.dataset.state !== undefined", 240)
        assert tab.evaluate("document.getElementById('message').textContent") == ""
        tab.evaluate("document.querySelector('[data-scheme=regions][data-code=\"4\"]').click()")
        tab.wait_for("document.getElementById('readout').textContent.includes('Left lateral ventricle')", 60)
        assert tab.evaluate(f"({COLORS})(0.99)") > 50
        assert tab.evaluate("[1, 2].map((number) => viewer.scan.lesions.zones[viewer.zoneOf(number) - 1].name)") == [
            "deep white matter", "periventricular",
        ]  # fmt: skip
        assert sorted(set(tab.evaluate("[...viewer.nv.volumes[2].img]"))) == [0, 1, 2, 5]
        assert tab.evaluate("document.getElementById('zones').textContent") == (
            "periventricularjuxtacorticaldeep white matter"
        )
        assert not tab.evaluate("document.getElementById('lesions-choice').hidden")
        tab.evaluate("document.getElementById('lesions-shown').click()")
        assert tab.evaluate("viewer.nv.volumes[2].opacity") == 0
        tab.evaluate("document.querySelector('tr.place[data-lesion=\"2\"]').click()")
        assert tab.evaluate("viewer.nv.volumes[2].opacity") > 0
        told = tab.evaluate("document.getElementById('readout').textContent")
        assert told.endswith("Lesion 2periventricular · 0.01 mL · probability of lesion 0.80")
        tab.evaluate("document.querySelector('tr.place[data-lesion=\"1\"] button').focus()")
        tab.press_enter()
        tab.wait_for("document.getElementById('readout').textContent.includes('Lesion 1')", 60)
        tab.evaluate("document.querySelector('#choose-scheme [data-value=lobes]').click()")
        assert tab.evaluate("viewer.scheme") == "lobes"
        tab.evaluate("document.querySelector('#choose-scan [data-value=sub-01_ses-2_desc-T1w]').click()")
        tab.wait_for("viewer.anchor === 'sub-01_ses-2_desc-T1w' && viewer.nv.volumes.length === 2", 60)
        assert tab.errors == []
        assert tab.outside_requests == []


COLORS = """opacity => {
  viewer.style(opacity, 0);
  viewer.nv.drawScene();
  const gl = viewer.nv.gl, width = gl.drawingBufferWidth, height = gl.drawingBufferHeight;
  const pixels = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  let colored = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    const rgb = pixels.slice(at, at + 3);
    if (Math.max(...rgb) - Math.min(...rgb) > 60) colored += 1;
  }
  return colored;
}"""
