"""BIDS out: everything written for one scan, and the files at the root of the output dataset.

Every file appears under its name only when whole. The quality file of a scan is written last, and removed first when
the scan is done again: it is there, with the recipe of this run, if and only if the scan is complete.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidsseg.bids import Scan, derivative_path, participant_folder
from bidsseg.files import whole, write_text
from bidsseg.labels import SCHEMES, Scheme, label_table

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
    "figures/",
    "sub-*/figures/",
    "group_*",
    "*_volumes.*",
    "*_qc.json",
    "*_lesion*",
)
MASK_LABEL = "brain"


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
    writer = _Writer(place, recipe, [])
    for space, segmentation in (("orig", result.native), ("1mm", result.one_mm)):
        if space in recipe.spaces and segmentation is not None:
            _write_labels(writer, result, space, segmentation)
    _write_preprocessed(writer, result)
    _write_volumes(writer, result.native)
    warnings = [*result.image.warnings, *_write_figures(writer, result)]
    _write_marker(writer, result.native, warnings)
    return place.marker


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


def _reference(place: Place, space: str) -> dict[str, Any]:
    """Sidecar fields of the grid an image lies on."""
    fields: dict[str, Any] = {"SpatialReference": place.source_uri}
    if space == "1mm":
        fields["Resolution"] = {"1mm": ONE_MM}
    return fields


def _write_labels(writer: _Writer, result: Result, space: str, segmentation: Segmentation) -> None:
    """Label images of all schemes, and the brain mask, in one space."""
    from bidsseg.segmentation import brain_mask, labels

    place, like = writer.place, _on_grid_of(result, space)
    entities = _space_entities(space)
    for scheme in writer.recipe.schemes:
        path = place.file("dseg.nii.gz", seg=scheme, desc=place.scan.suffix, **entities)
        sidecar = writer.metadata(
            Description=f"Label image of the {scheme}; names and colours are in seg-{scheme}_dseg.tsv.",
            **_reference(place, space),
        )
        writer.image(path, labels(segmentation, scheme), like, sidecar)
    path = place.file("mask.nii.gz", label=MASK_LABEL, desc=place.scan.suffix, **entities)
    sidecar = writer.metadata(
        Type="Brain", Description="Brain and the cerebrospinal fluid around it.", **_reference(place, space)
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
    sidecar = writer.metadata(SkullStripped=False, **_reference(writer.place, "1mm"))
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


def write_root(out: Path, dataset: Path, recipe: Recipe, modalities: Iterable[str]) -> None:
    """The files that describe the output dataset. Safe while other processes write theirs."""
    write_json(out / "dataset_description.json", _description(dataset, recipe))
    write_text(out / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")
    made_from = [(modality, f"made from the {modality} image of these entities") for modality in modalities]
    rows = [("preproc", "bias field corrected (N4) and resampled to 1 mm; not skull-stripped"), *made_from]
    write_text(out / "descriptions.tsv", table(("desc_id", "description"), rows))
    for scheme in recipe.schemes:
        labels = [tuple(value or "n/a" for value in asdict(label).values()) for label in label_table(scheme)]
        header = ("index", "name", "abbreviation", "color", "hemisphere", "mapping")
        write_text(out / f"seg-{scheme}_dseg.tsv", table(header, labels))


def _description(dataset: Path, recipe: Recipe) -> dict[str, Any]:
    model = {"Name": f"{NAME} model {recipe.model}", "Description": f"weights SHA-256 {recipe.weights_sha256}"}
    return {
        "Name": "Brain regions by bidsseg",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": recipe.version, "Description": "segmentation"}, model],
        "DatasetLinks": {"raw": dataset.as_uri()},
        "SourceDatasets": [{"URL": dataset.as_uri()}],
        "HowToAcknowledge": "See logs/CITATION.md.",
    }


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
