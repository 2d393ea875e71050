"""The files at the root of the output dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from bidsseg.authorship import is_ours
from bidsseg.bids.outputs import FUSED, OutputSettings, label_table_file, sidecar_of
from bidsseg.bids.session_order import session_times, sessions_table
from bidsseg.errors import UserError
from bidsseg.files import read_json, table, write_json, write_text
from bidsseg.labels import DEEP_TISSUES, FLUID, Label, Scheme, label_table, structures_of

NAME = "bidsseg"
BIDS_VERSION = "1.10.0"
BIDSIGNORE = (
    "*.html",
    "logs/",
    "work/",
    "figures",
    "group_*",
    "*_volumes.*",
    "*_qc.json",
    "*_agreement.json",
    "*_lesion*",
    "*_xfm.h5",
)
README = """Brain regions by bidsseg.

The label images of each scan are on the scan's own grid (space-orig); the seg-*_dseg.tsv tables name their labels.
Volumes are in *_volumes.tsv, possible problems of a scan in *_qc.json, and the methods text in logs/CITATION.md.
"""
LABEL_COLUMNS = ("index", "name", "abbreviation", "color", "hemisphere", "mapping", "lobe")
"mapping is the tissue in the standard BIDS table of labels."
SESSION_COLUMNS = ("session_id", "acq_time")
OWN_COLUMNS = {
    "hemisphere": {"Description": "L or R; n/a on the midline."},
    "lobe": {"Description": "Lobe that the label is a part of; n/a outside the lobes."},
}
BIDS_TISSUES = {
    "white-matter": 2,
    "cortex": 8,
    "brainstem": 10,
    **dict.fromkeys((*FLUID, "ventricles"), 3),
    **dict.fromkeys((*DEEP_TISSUES, "deep-grey"), 9),
    **dict.fromkeys(("cerebellum-white-matter", "cerebellum-cortex", "cerebellum"), 11),
}
"Codes of tissues, and of groups of them, in the BIDS specification's table of image-derived labels."

LABELS_ABOUT = "Label image of the {0}; seg-{0}_dseg.tsv holds their names and colours."


def write_root(
    out: Path, dataset: Path, recipe: OutputSettings, modalities: Iterable[str], links: Mapping[str, str] | None = None
) -> None:
    """The files that describe the output dataset; ``links`` names other datasets it rests on, for BIDS URIs.

    What earlier runs linked to and made stays described. Safe while other processes write theirs.
    """
    write_json(out / "dataset_description.json", _description(dataset, recipe, {**links_in(out), **(links or {})}))
    if not (out / "README").exists():  # users write about their data in it
        write_text(out / "README", README)
    _add_to_bidsignore(out / ".bidsignore")
    rows = [("desc-preproc", "bias field corrected and resampled to 1 mm; not skull-stripped")]
    rows += [("desc-lesions", "numbers of lesions, and regions with lesions; not made from the image's values alone")]
    rows += [("desc-lesionparts", "numbers of the parts that confluent lesions are split into")]
    rows += [("desc-filled", "lesions redrawn as normal-appearing white matter")]
    rows += [(f"desc-{name}", _made_from(name)) for name in modalities]
    write_text(out / "descriptions.tsv", table(("desc_id", "description"), {**_described(out), **dict(rows)}.items()))
    write_json(out / "descriptions.json", {"Description": "What desc- means in the file names."})
    for scheme in recipe.schemes:
        labels = [(*astuple(label)[:5], bids_tissue(label, scheme), label.mapping) for label in label_table(scheme)]
        names = label_table_file(out, scheme)
        write_text(names, table(LABEL_COLUMNS, labels))
        about = {"Description": LABELS_ABOUT.format(scheme), "SpatialReference": "orig"}
        write_json(sidecar_of(names), {**about, **OWN_COLUMNS})


def copy_session_times(dataset: Path, out: Path, subjects: Iterable[str]) -> None:
    """Labels and times of sessions, which tell readers of the output alone in which order they were."""
    for subject in subjects:
        times, target = session_times(sessions_table(dataset, subject)), sessions_table(out, subject)
        replaceable = not target.exists() or is_ours(target, [SESSION_COLUMNS])
        if times and replaceable and times != session_times(target):
            rows = sorted((f"ses-{label}", time) for label, time in times.items())
            write_text(target, table(SESSION_COLUMNS, rows))


def refuse_other_dataset(out: Path) -> None:
    """Raise ``UserError`` for a folder that holds the dataset of another program."""
    path = out / "dataset_description.json"
    if not path.exists():
        return
    makers = read_json(path).get("GeneratedBy")
    names = [maker.get("Name") for maker in makers if isinstance(maker, dict)] if isinstance(makers, list) else []
    if NAME not in names:
        whose = ", ".join(filter(None, map(str, names))) or "somebody else"
        raise UserError(f"{out}: contains a dataset of {whose}; choose another OUT_DIR, or give --overwrite")


def _add_to_bidsignore(path: Path) -> None:
    """What validators are to pass over, after what the user had them pass over."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    missing = [line for line in BIDSIGNORE if line not in lines]
    if missing:
        write_text(path, "\n".join([*lines, *missing]) + "\n")


def links_in(out: Path) -> dict[str, str]:
    """URIs of the datasets that an output dataset rests on, by their names in BIDS URIs."""
    links = read_json(out / "dataset_description.json").get("DatasetLinks", {})
    return links if isinstance(links, dict) else {}


def _described(out: Path) -> dict[str, str]:
    """What earlier runs said of desc- entities."""
    try:
        lines = (out / "descriptions.tsv").read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, ValueError):
        return {}
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def _made_from(name: str) -> str:
    if name.endswith(FUSED):
        image = name.removesuffix(FUSED)
        return f"on the grid of the {image} image with the same entities, from all contrasts of its session"
    return f"made from the {name} image with the same entities"


def bids_tissue(label: Label, scheme: Scheme) -> int | None:
    """The label's tissue in BIDS' own table of tissues; None where it holds several."""
    return BIDS_TISSUES.get(structures_of(scheme)[label.index])


def _description(dataset: Path, recipe: OutputSettings, links: Mapping[str, str]) -> dict[str, Any]:
    authors = _authors(dataset)
    model = {"Name": f"{NAME} model {recipe.model}", "Description": f"weights SHA-256 {recipe.weights_sha256}"}
    return {
        "Name": "Brain regions by bidsseg",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": recipe.version, "Description": "segmentation"}, model],
        "DatasetLinks": {**links, "raw": dataset.as_uri()},
        "SourceDatasets": [{"URL": dataset.as_uri()}],
        "HowToAcknowledge": "See logs/CITATION.md.",
        **({"Authors": authors} if authors else {}),
    }


def _authors(dataset: Path) -> list[str]:
    """Those of the input dataset, whose work this rests on."""
    authors = read_json(dataset / "dataset_description.json").get("Authors", [])
    return [str(author) for author in authors] if isinstance(authors, list) else []
