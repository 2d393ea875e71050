"""The steps of one scan, file in, file out: what a workflow's nodes call. No nipype here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.bids import parse_scan
from bidsseg.derivatives import Place, Recipe, Result, write_scan
from bidsseg.errors import FileError, one_line_errors
from bidsseg.image import Image, conform, correct_bias, grid_of, load, normalise, save
from bidsseg.predict import PredictOptions, infer, to_native
from bidsseg.segmentation import Segmentation
from bidsseg.weights import load_model

VOLUMES = ("tissue", "side", "parcel", "confidence")


@dataclass(frozen=True)
class Job:
    """One scan to segment and how; plain values, so that it can travel between processes as a dict."""

    scan: str
    dataset: str
    out: str
    model: str
    "Name or folder."
    recipe: dict[str, Any]
    "Fields of ``Recipe``."
    device: str = "auto"
    threads: int = 1

    @property
    def place(self) -> Place:
        return Place(parse_scan(Path(self.scan)), Path(self.dataset), Path(self.out))

    def made_with(self) -> Recipe:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in self.recipe.items()}
        return Recipe(**fields)


def job_for(place: Place, recipe: Recipe, model: str, device: str, threads: int) -> Job:
    return Job(str(place.scan.path), str(place.dataset), str(place.out), model, asdict(recipe), device, threads)


def prepare(job: dict[str, Any], folder: Path) -> str:
    """Read the scan and correct its bias field; returns the path of the corrected image."""
    with one_line_errors(job["scan"]):
        path = Path(job["scan"])
        if path.is_symlink() and not path.exists():
            raise FileError(path, "a link to content that is not here", "fetch it, for instance by datalad get")
        image = load(path)
        if job["recipe"]["bias_correction"]:
            image = correct_bias(image, job["threads"])
        corrected = folder / "corrected.nii"
        save(corrected, image.data, image.affine, image)
        return str(corrected)


def segment(job: dict[str, Any], corrected: str, folder: Path) -> str:
    """Segment the corrected image in all spaces asked for; returns the path of the voxels' anatomy (.npz)."""
    with one_line_errors(job["scan"]):
        recipe = job["recipe"]
        gyri = "gyri" in recipe["schemes"]
        options = PredictOptions(job["device"], job["threads"], gyri)
        _limit_threads(job["threads"])
        volume, grid = conform(load(corrected))
        found = infer(normalise(volume), load_model(job["model"]), options)
        answers = {"orig": to_native(found, grid, gyri)}
        if "1mm" in recipe["spaces"]:
            answers["1mm"] = to_native(found, grid_of(volume.shape, grid.affine), gyri)
        path = folder / "segmentation.npz"
        save_segmentations(path, answers)
        return str(path)


def write(job: dict[str, Any], corrected: str, segmentation: str) -> str:
    """Write all derivatives; returns the path of the file that marks the scan as complete."""
    with one_line_errors(job["scan"]):
        answers = load_segmentations(Path(segmentation))
        image = load(job["scan"])
        smooth = load(corrected)
        result = Result(image, Image(smooth.data, image.affine, image.header), answers["orig"], answers.get("1mm"))
        work = Job(**job)
        return str(write_scan(work.place, work.made_with(), result))


def _limit_threads(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def save_segmentations(path: Path, answers: dict[str, Segmentation]) -> None:
    """Segmentations by name, in one .npz."""
    arrays: dict[str, Any] = {}
    for name, answer in answers.items():
        arrays |= {f"{name}_{volume}": getattr(answer, volume) for volume in VOLUMES}
        arrays |= {f"{name}_affine": answer.affine}
        arrays |= {f"{name}_rest": np.array([answer.has_gyri, answer.edge_fraction])}
    np.savez(path, **arrays)


def load_segmentations(path: Path) -> dict[str, Segmentation]:
    """What ``save_segmentations`` wrote."""
    with np.load(path) as arrays:
        names = sorted({key.partition("_")[0] for key in arrays.files})
        return {name: _segmentation_from(arrays, name) for name in names}


def _segmentation_from(arrays: Any, name: str) -> Segmentation:
    tissue, side, parcel, confidence = (arrays[f"{name}_{volume}"] for volume in VOLUMES)
    has_gyri, edge = arrays[f"{name}_rest"]
    return Segmentation(tissue, side, parcel, confidence, arrays[f"{name}_affine"], bool(has_gyri), float(edge))
