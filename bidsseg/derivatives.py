"""BIDS out: everything written for one scan, and the files at the root of the output dataset.

Every file appears under its name only when whole. The quality file of a scan is written last, and removed first when
the scan is done again: it is there, with the recipe of this run, if and only if the scan is complete.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidsseg.bids import Scan, derivative_path, participant_folder
from bidsseg.files import whole, write_text
from bidsseg.labels import SCHEMES, Label, Scheme, label_table

if TYPE_CHECKING:
    from bidsseg.image import Image
    from bidsseg.segmentation import Segmentation

NAME = "bidsseg"
BIDS_VERSION = "1.10.0"
SPACES = ("orig", "1mm")
ONE_MM = "1 mm isotropic, in the orientation of the scan's own axes"
BIDSIGNORE = (
    "*.html",
    "logs/",
    "work/",
    "figures",
    "group_*",
    "*_volumes.*",
    "*_qc.json",
    "*_lesion*",
)
MASK_LABEL = "brain"
README = """Brain regions by bidsseg.

The label images of each scan lie on the scan's own grid (space-orig); the seg-*_dseg.tsv tables name their labels.
Volumes are in *_volumes.tsv, what may be wrong with a scan in *_qc.json, the methods text in logs/CITATION.md.
"""
LABEL_COLUMNS = ("index", "name", "abbreviation", "color", "hemisphere", "mapping", "lobe")
"mapping is the tissue in the standard BIDS table of labels."
OWN_COLUMNS = {
    "hemisphere": {"Description": "L or R; n/a on the midline."},
    "lobe": {"Description": "Lobe that the label is a part of; n/a outside the lobes."},
}
LABELS_ABOUT = "Label image of the {0}; seg-{0}_dseg.tsv holds their names and colours."
PREPROCESSED = "The scan, bias field corrected unless switched off, resampled to 1 mm."
LEFTOVER_SECONDS = 24 * 3600
CORTEX = 8
BIDS_TISSUES = (
    (r"cerebell", 11),
    (r"brain-stem", 10),
    (r"csf|ventricle|inf-lat-vent", 3),
    (r"^wm-|white-matter", 2),
    (r"^ctx-", CORTEX),
    (r"thalamus|caudate|putamen|pallidum|accumbens|ventraldc|deep-grey|hippocampus|amygdala", 9),
)
"Patterns in label names, and codes of the BIDS specification's table of image-derived labels; the first match counts."


@dataclass(frozen=True)
class Recipe:
    """What the outputs of a scan depend on besides the scan: a scan made with another recipe is done again."""

    version: str
    "Of bidsseg."
    model: str
    weights_sha256: str
    bias_correction: bool = True
    schemes: tuple[Scheme, ...] = SCHEMES
    spaces: tuple[str, ...] = ("orig",)
    "Grids of the label images: orig (the scan's own) and 1mm."

    def metadata(self) -> dict[str, Any]:
        """For sidecars."""
        return {
            "SoftwareVersion": self.version,
            "Model": self.model,
            "WeightsSHA256": self.weights_sha256,
            "BiasFieldCorrection": self.bias_correction,
            "LabelSchemes": list(self.schemes),
            "OutputSpaces": list(self.spaces),
        }


@dataclass(frozen=True)
class Result:
    """What was computed for one scan."""

    image: Image
    "As stored."
    corrected: Image
    "After bias field correction, on the same grid."
    native: Segmentation
    "On the scan's own grid."
    one_mm: Segmentation | None = None
    "On the 1 mm grid, where asked for."


@dataclass(frozen=True)
class Place:
    """A scan, where it comes from and where its derivatives go."""

    scan: Scan
    dataset: Path
    out: Path

    @property
    def source_uri(self) -> str:
        """BIDS URI of the scan."""
        return f"bids:raw:{self.scan.path.relative_to(self.dataset).as_posix()}"

    def file(self, ending: str, **extra: str) -> Path:
        return derivative_path(self.out, self.scan, ending, **extra)

    @property
    def marker(self) -> Path:
        """The file that tells that the scan is complete."""
        return self.file("qc.json", desc=self.scan.suffix)

    def figure(self, scheme: str) -> Path:
        """The picture of a label scheme: OUT/sub-<label>/figures/<entities>_seg-<scheme>_desc-<suffix>_dseg.png."""
        name = self.file("dseg.png", seg=scheme, desc=self.scan.suffix).name
        return participant_folder(self.out, self.scan) / "figures" / name


def is_complete(place: Place, recipe: Recipe) -> bool:
    """Whether all outputs of the scan are there, made with this recipe from a scan of this size."""
    try:
        marker = json.loads(place.marker.read_text(encoding="utf-8"))
        same = all(marker[key] == value for key, value in recipe.metadata().items())
        unchanged = marker["SourceBytes"] == place.scan.path.stat().st_size
        return same and unchanged and all((place.out / name).exists() for name in marker["Outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_scan(place: Place, recipe: Recipe, result: Result) -> Path:
    """Write all derivatives of a scan and return its marker, which is written last."""
    place.marker.unlink(missing_ok=True)
    _remove_leftovers(place.marker.parent)
    writer = _Writer(place, recipe, [])
    for space, segmentation in (("orig", result.native), ("1mm", result.one_mm)):
        if space in recipe.spaces and segmentation is not None:
            _write_labels(writer, result, space, segmentation)
    _write_preprocessed(writer, result)
    _write_volumes(writer, result.native)
    warnings = [*result.image.warnings, *_write_figures(writer, result)]
    _write_marker(writer, result.native, warnings)
    return place.marker


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of runs that were killed; young ones may belong to a run that goes on."""
    for path in folder.glob(".????????.*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


@dataclass(frozen=True)
class _Writer:
    """Where to write, with which provenance, and what has been written."""

    place: Place
    recipe: Recipe
    written: list[Path]

    def metadata(self, **more: Any) -> dict[str, Any]:
        provenance = {"Sources": [self.place.source_uri], **self.recipe.metadata()}
        return {**more, **provenance}

    def image(self, path: Path, data: Any, like: Image, sidecar: dict[str, Any]) -> None:
        from bidsseg.image import save

        save(path, data, like.affine, like)
        self.json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), sidecar)
        self.written.append(path)

    def json(self, path: Path, content: dict[str, Any]) -> None:
        write_json(path, content)
        self.written.append(path)


def _space_entities(space: str) -> dict[str, str]:
    return {"space": "orig"} if space == "orig" else {"space": "individual", "res": "1mm"}


def _reference(space: str) -> dict[str, Any]:
    """Sidecar fields of the grid an image lies on; in the world all are aligned with the scan itself."""
    return {"SpatialReference": "orig", **({"Resolution": {"1mm": ONE_MM}} if space == "1mm" else {})}


def _write_labels(writer: _Writer, result: Result, space: str, segmentation: Segmentation) -> None:
    """Label images of all schemes, and the brain mask, in one space."""
    from bidsseg.segmentation import brain_mask, labels

    place, like = writer.place, _on_grid_of(result, space)
    entities = _space_entities(space)
    for scheme in writer.recipe.schemes:
        path = place.file("dseg.nii.gz", seg=scheme, desc=place.scan.suffix, **entities)
        sidecar = writer.metadata(
            Description=LABELS_ABOUT.format(scheme),
            **_reference(space),
        )
        writer.image(path, labels(segmentation, scheme), like, sidecar)
    path = place.file("mask.nii.gz", label=MASK_LABEL, desc=place.scan.suffix, **entities)
    sidecar = writer.metadata(
        Type="Brain", Description="Brain and the cerebrospinal fluid around it.", **_reference(space)
    )
    writer.image(path, brain_mask(segmentation), like, sidecar)


def _on_grid_of(result: Result, space: str) -> Image:
    """An image whose affine and header fit a space; its voxels don't matter."""
    from bidsseg.image import grid_of

    if space == "orig":
        return result.image
    return replace(result.image, affine=grid_of(result.image.data.shape, result.image.affine).affine)


def _write_preprocessed(writer: _Writer, result: Result) -> None:
    """The scan as the network saw it: bias corrected, at 1 mm."""
    from bidsseg.image import conform

    volume, _ = conform(result.corrected)
    path = writer.place.file(f"{writer.place.scan.suffix}.nii.gz", desc="preproc", **_space_entities("1mm"))
    sidecar = writer.metadata(SkullStripped=False, Description=PREPROCESSED, **_reference("1mm"))
    writer.image(path, volume, _on_grid_of(result, "1mm"), sidecar)


def _write_volumes(writer: _Writer, segmentation: Segmentation) -> None:
    from bidsseg.segmentation import VOLUME_COLUMNS, write_volumes

    path = writer.place.file("volumes.tsv", desc=writer.place.scan.suffix)
    write_volumes(path, segmentation, writer.recipe.schemes)
    writer.written.append(path)
    columns = {name: {"Description": description} for name, description in VOLUME_COLUMNS.items()}
    writer.json(path.with_suffix(".json"), {**columns, **writer.metadata()})


def _write_figures(writer: _Writer, result: Result) -> list[str]:
    """Pictures of all schemes; returns what went wrong, since a scan without a picture is still segmented."""
    try:
        from bidsseg.pictures import mosaic
        from bidsseg.segmentation import labels

        for scheme in writer.recipe.schemes:
            path = writer.place.figure(scheme)
            with whole(path) as temporary:
                mosaic(temporary, result.image, labels(result.native, scheme), scheme)
            writer.written.append(path)
    except Exception as error:
        return [f"no picture ({type(error).__name__}: {error})"]
    return []


def _write_marker(writer: _Writer, segmentation: Segmentation, warnings: Sequence[str]) -> None:
    from bidsseg.segmentation import quality

    place = writer.place
    outputs = [path.relative_to(place.out).as_posix() for path in writer.written]
    content = {
        **quality(segmentation),
        "Warnings": list(warnings),
        **writer.metadata(),
        "SourceBytes": place.scan.path.stat().st_size,
        "Outputs": outputs,
    }
    write_json(place.marker, content)


def write_root(
    out: Path, dataset: Path, recipe: Recipe, modalities: Iterable[str], links: Mapping[str, Path] | None = None
) -> None:
    """The files that describe the output dataset; ``links`` names other datasets it rests on, for BIDS URIs.

    Safe while other processes write theirs.
    """
    write_json(out / "dataset_description.json", _description(dataset, recipe, links or {}))
    write_text(out / "README", README)
    write_text(out / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")
    rows = [("desc-preproc", "bias field corrected and resampled to 1 mm; not skull-stripped")]
    rows += [("desc-lesions", "numbers of lesions, and regions with lesions; not made from the image's values alone")]
    rows += [(f"desc-{modality}", f"made from the {modality} image with the same entities") for modality in modalities]
    write_text(out / "descriptions.tsv", table(("desc_id", "description"), rows))
    write_json(out / "descriptions.json", {"Description": "What desc- means in the file names."})
    for scheme in recipe.schemes:
        labels = [(*astuple(label)[:5], bids_tissue(label, scheme), label.mapping) for label in label_table(scheme)]
        write_text(out / f"seg-{scheme}_dseg.tsv", table(LABEL_COLUMNS, labels))
        about = {"Description": LABELS_ABOUT.format(scheme), "SpatialReference": "orig"}
        write_json(out / f"seg-{scheme}_dseg.json", {**about, **OWN_COLUMNS})


def bids_tissue(label: Label, scheme: Scheme) -> int | None:
    """The label's tissue in BIDS' own table of tissues; None where it holds several."""
    for pattern, code in BIDS_TISSUES:
        if re.search(pattern, label.name, re.IGNORECASE):
            return code
    return CORTEX if scheme == "gyri" else None


def _description(dataset: Path, recipe: Recipe, links: Mapping[str, Path]) -> dict[str, Any]:
    authors = _authors(dataset)
    model = {"Name": f"{NAME} model {recipe.model}", "Description": f"weights SHA-256 {recipe.weights_sha256}"}
    return {
        "Name": "Brain regions by bidsseg",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": recipe.version, "Description": "segmentation"}, model],
        "DatasetLinks": {"raw": dataset.as_uri(), **{name: path.as_uri() for name, path in links.items()}},
        "SourceDatasets": [{"URL": dataset.as_uri()}],
        "HowToAcknowledge": "See logs/CITATION.md.",
        **({"Authors": authors} if authors else {}),
    }


def _authors(dataset: Path) -> list[str]:
    """Those of the input dataset, whose work this rests on."""
    try:
        authors = json.loads((dataset / "dataset_description.json").read_text(encoding="utf-8")).get("Authors", [])
    except (OSError, ValueError, AttributeError):
        return []
    return [str(author) for author in authors] if isinstance(authors, list) else []


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Tab-separated text; NaN and the empty string become n/a."""
    handle = io.StringIO()
    writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return handle.getvalue()


def _cell(value: Any) -> Any:
    missing = value in ("", None) or (isinstance(value, float) and math.isnan(value))
    return "n/a" if missing else value


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
