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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidsseg.bids import Scan, derivative_path, participant_folder
from bidsseg.files import write_text
from bidsseg.labels import SCHEMES, Label, Scheme, label_table

if TYPE_CHECKING:
    from bidsseg.evidence import Evidence
    from bidsseg.image import Image
    from bidsseg.quality import Assessment
    from bidsseg.segmentation import Segmentation

NAME = "bidsseg"
FUSED = "fused"
"Ends desc- of what was made from several contrasts."
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
PROBABILITIES_ABOUT = "Probability of each label of the {0}, one volume for each row of seg-{0}_dseg.tsv."
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
    probseg: bool = False
    "Also the probability of every label."

    def metadata(self) -> dict[str, Any]:
        """For sidecars."""
        return {
            "SoftwareVersion": self.version,
            "Model": self.model,
            "WeightsSHA256": self.weights_sha256,
            "BiasFieldCorrection": self.bias_correction,
            "LabelSchemes": list(self.schemes),
            "OutputSpaces": list(self.spaces),
            "Probabilities": self.probseg,
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
    probabilities: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    "By space and scheme, .npy files (labels, I, J, K) of 255 times the probability."
    judged: tuple[Evidence, Assessment] | None = None
    "What the network's probabilities tell about its answer, and what is thought of it."


@dataclass(frozen=True)
class Place:
    """A scan, where it comes from and where its derivatives go."""

    scan: Scan
    dataset: Path
    out: Path
    partners: tuple[Path, ...] = ()
    "Other contrasts whose probabilities are averaged with the scan's; its suffix then ends in ``FUSED``."

    @property
    def sources(self) -> tuple[Path, ...]:
        return (self.scan.path, *self.partners)

    @property
    def source_uri(self) -> str:
        """BIDS URI of the scan."""
        return self.source_uris[0]

    @property
    def source_uris(self) -> list[str]:
        """BIDS URIs of the scan, and of its partners."""
        return [f"bids:raw:{path.relative_to(self.dataset).as_posix()}" for path in self.sources]

    @property
    def source_bytes(self) -> int:
        """Size of the scan, and of its partners."""
        return sum(path.stat().st_size for path in self.sources)

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
        unchanged = marker["SourceBytes"] == place.source_bytes
        return same and unchanged and all((place.out / name).exists() for name in marker["Outputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_scan(place: Place, recipe: Recipe, result: Result, threads: int = 1) -> Path:
    """Write all derivatives of a scan and return its marker, which is written last."""
    place.marker.unlink(missing_ok=True)
    _remove_leftovers(place.marker.parent)
    writer = _Writer(place, recipe, [])
    with ThreadPoolExecutor(threads) as pool:  # most of the time goes into compression, which threads share well
        pictures = pool.submit(_write_figures, writer, result)
        others = [
            pool.submit(_write_labels, writer, result, space, segmentation)
            for space, segmentation in (("orig", result.native), ("1mm", result.one_mm))
            if space in recipe.spaces and segmentation is not None
        ]
        if not place.partners:  # else it is there already, from the scan by itself
            others.append(pool.submit(_write_preprocessed, writer, result))
        others.append(pool.submit(_write_volumes, writer, result))
    for done in others:
        done.result()
    _write_marker(writer, result, [*result.image.warnings, *pictures.result()])
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
        provenance = {"Sources": self.place.source_uris, **self.recipe.metadata()}
        return {**more, **provenance}

    def image(self, path: Path, data: Any, like: Image, sidecar: dict[str, Any], slope: float | None = None) -> None:
        from bidsseg.image import save

        save(path, data, like.affine, like, slope)
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
        if (space, scheme) in result.probabilities:
            _write_probabilities(writer, result.probabilities[space, scheme], space, scheme, like)
    path = place.file("mask.nii.gz", label=MASK_LABEL, desc=place.scan.suffix, **entities)
    sidecar = writer.metadata(
        Type="Brain", Description="Brain and the cerebrospinal fluid around it.", **_reference(space)
    )
    writer.image(path, brain_mask(segmentation), like, sidecar)


def _write_probabilities(writer: _Writer, stored: Path, space: str, scheme: Scheme, like: Image) -> None:
    """The probability of each label as one volume of a 4D image, in the order of the label table."""
    import numpy as np

    place = writer.place
    path = place.file("probseg.nii.gz", seg=scheme, desc=place.scan.suffix, **_space_entities(space))
    sidecar = writer.metadata(
        Description=PROBABILITIES_ABOUT.format(scheme),
        LabelMap=[label.abbreviation for label in label_table(scheme)],
        **_reference(space),
    )
    volumes = np.moveaxis(np.load(stored, mmap_mode="r"), 0, -1)
    writer.image(path, volumes, like, sidecar, slope=1 / 255)


def _on_grid_of(result: Result, space: str) -> Image:
    """An image whose affine and header fit a space; its voxels don't matter."""
    from bidsseg.grid import grid_of

    if space == "orig":
        return result.image
    return replace(result.image, affine=grid_of(result.image.data.shape, result.image.affine).affine)


def _write_preprocessed(writer: _Writer, result: Result) -> None:
    """The scan as the network saw it: bias corrected, at 1 mm."""
    from bidsseg.grid import conform

    volume, _ = conform(result.corrected)
    path = writer.place.file(f"{writer.place.scan.suffix}.nii.gz", desc="preproc", **_space_entities("1mm"))
    sidecar = writer.metadata(SkullStripped=False, Description=PREPROCESSED, **_reference("1mm"))
    writer.image(path, volume, _on_grid_of(result, "1mm"), sidecar)


def _write_volumes(writer: _Writer, result: Result) -> None:
    from bidsseg.segmentation import VOLUME_COLUMNS, write_volumes

    path = writer.place.file("volumes.tsv", desc=writer.place.scan.suffix)
    expected = result.judged[1].expected if result.judged else None
    write_volumes(path, result.native, writer.recipe.schemes, expected)
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
            mosaic(path, result.image, labels(result.native, scheme), scheme)
            writer.written.append(path)
    except Exception as error:
        return [f"no picture ({type(error).__name__}: {error})"]
    return []


def _write_marker(writer: _Writer, result: Result, warnings: Sequence[str]) -> None:
    from bidsseg.quality import quality_json
    from bidsseg.segmentation import quality

    place = writer.place
    outputs = sorted(path.relative_to(place.out).as_posix() for path in writer.written)
    content = {
        **(quality_json(*result.judged) if result.judged else {}),
        **quality(result.native),
        "Warnings": list(warnings),
        **writer.metadata(),
        "SourceBytes": place.source_bytes,
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
    rows += [(f"desc-{name}", _made_from(name)) for name in modalities]
    write_text(out / "descriptions.tsv", table(("desc_id", "description"), rows))
    write_json(out / "descriptions.json", {"Description": "What desc- means in the file names."})
    for scheme in recipe.schemes:
        labels = [(*astuple(label)[:5], bids_tissue(label, scheme), label.mapping) for label in label_table(scheme)]
        write_text(out / f"seg-{scheme}_dseg.tsv", table(LABEL_COLUMNS, labels))
        about = {"Description": LABELS_ABOUT.format(scheme), "SpatialReference": "orig"}
        write_json(out / f"seg-{scheme}_dseg.json", {**about, **OWN_COLUMNS})


def _made_from(name: str) -> str:
    if name.endswith(FUSED):
        return f"on the grid of the {name.removesuffix(FUSED)} image with the same entities, from all of its session"
    return f"made from the {name} image with the same entities"


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
