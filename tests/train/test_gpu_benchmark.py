"""The script for GPUs, tried on the CPU with a tiny network."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from bidsseg.labels import TISSUE
from bidsseg.network.weights import load_model
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.train.data import LabelledPatient, Patient, Subject, TrainingSet, brain_box, pack
from bidsseg.train.packing import pack_training_set

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of white matter in cortex, as a head and as a brain with a scan; a patient who is that scan in slices."""
    axes = np.meshgrid(*(np.arange(42) - 20.5,) * 3, indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    tissue = np.select([radius < 6, radius < 10], [TISSUE["white-matter"], TISSUE["cortex"]], 0).astype(np.uint8)
    side, parcel = ((axes[0] > 0) & (tissue > 0)).astype(np.uint8), np.zeros_like(tissue)
    kind = ((radius >= 10) & (radius < 15)).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 0.02, radius.shape)
    scan = np.where(tissue > 0, 0.5 + 0.2 * (tissue == TISSUE["white-matter"]) + noise, 0).astype(np.float16)
    box = brain_box(tissue)
    head = Subject("head", pack(Anatomy(tissue, side, parcel), kind), None, box)
    brain = Subject("brain", pack(Anatomy(tissue, side, parcel)), scan, box)
    slices = scan[:, :, ::6].astype(np.float32)
    patient = LabelledPatient(Patient("sub-01", {"FLAIR": slices}, {}, np.diag((1.0, 1, 6, 1))), head.packed)
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    pack_training_set(TrainingSet([head], [brain], [(radius < 5).astype(np.uint8)], [patient]), path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments), "--tiny", "--device", "cpu"])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_measure_leaves_a_row_for_everything(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "measure", packed, tmp_path)
    rows = dict(line.split("\t") for line in (tmp_path / "measure.tsv").read_text().splitlines())
    assert not [f"{what}: {value}" for what, value in rows.items() if "failed" in value or "not measured" in value]
    for what in ("training, batch 1", "training, batch 2", "predict, 2 scans, 1 processes of", "two runs of one seed"):
        assert any(row.startswith(what) for row in rows), what
    assert rows["two runs of one seed"] == "the same weights"
    assert rows["samples against the CPU's"] == "0.00e+00 of labels differ at most"


def test_train_leaves_weights_that_can_go_on(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(
        monkeypatch, "train", packed, tmp_path / "one", "--minutes", 0.05, "--set", "batch=2", "--recipe", "p_moved=0.5"
    )
    model = tmp_path / "one" / "model"
    first = load_model(model).card.about["training"]["runs"]
    assert [one["options"]["batch"] for one in first] == [2]
    assert json.loads((model / "card.json").read_text())["sha256"]
    rows = dict(line.split("\t") for line in (tmp_path / "one" / "train.tsv").read_text().splitlines())
    assert float(rows["loss, tissue"]) > 0
    run(monkeypatch, "train", packed, tmp_path / "two", "--minutes", 0.02, "--init", model, "--widths", "4,6")
    again = load_model(tmp_path / "two" / "model").card
    assert again.architecture.widths == (4, 6)
    assert again.about["training"]["runs"][0] == first[0]
    assert len(again.about["training"]["runs"]) == 2


def test_an_unknown_setting_is_named(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="batches: no field of TrainOptions"):
        run(monkeypatch, "train", packed, tmp_path, "--minutes", 1, "--set", "batches=2")
