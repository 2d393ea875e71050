"""Fixtures shared by the tests: a model without training, and small BIDS datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

Dataset = Callable[..., Path]
Run = Callable[..., int]
"Runs the app in this process and returns its exit code."


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="Try 10,000 damaged inputs in place of 300.")


@pytest.fixture
def app(tmp_path: Path, tiny_model: Path) -> Run:
    """Runs the participant level in this process: ``app(dataset, '--seg', 'lobes')``; outputs go to tmp_path/out."""
    plugin = tmp_path / "plugin.json"
    plugin.write_text('{"plugin": "Linear"}')
    quick = (
        "--model",
        str(tiny_model),
        "--use-plugin",
        str(plugin),
        "--no-bias-correction",
        "--nprocs",
        "1",
        "--lesions",
        "none",
    )

    from bidsseg.cli.bids_app import run

    def call(dataset: Path, *options: str) -> int:
        return run([str(dataset), str(tmp_path / "out"), "participant", *quick, *options])

    return call


@pytest.fixture
def balls_are_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else quality control says that there is hardly any brain in them, and no session has a say in another's."""
    from bidsseg.quality import assessment

    monkeypatch.setattr(assessment, "LEAST_BRAIN_MM3", 0)
    monkeypatch.setattr(assessment, "IMPOSSIBLE_MM3", (-1, float("inf")))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights, too small to be of use but quick."""
    import torch

    from bidsseg.network.config import UNetConfig
    from bidsseg.network.unet import UNet
    from bidsseg.network.weights import save_model

    torch.manual_seed(0)
    config = UNetConfig(widths=(4, 4), head_width=8)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, UNet(config).state_dict(), config, "0", {})
    return folder


def write_scan(path: Path, shape: tuple[int, int, int] = (24, 22, 20), seed: int = 0) -> Path:
    """A bright ball in noise, 2 mm voxels."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    data = 100 * (np.linalg.norm(grid, axis=0) < 0.8) + generator.normal(10, 2, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag((-2.0, 2.0, 2.0, 1.0))
    affine[:3, 3] = (20, -20, -20)
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Makes a BIDS dataset of the given images, ``dataset('sub-01_T1w.nii.gz', ...)``, in folders by their names."""

    def make(*names: str) -> Path:
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        description = {"Name": "test", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        (root / "dataset_description.json").write_text(json.dumps(description))
        (root / "README").write_text("For tests.\n")
        for seed, name in enumerate(names):
            folders = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
            write_scan(root.joinpath(*folders, "anat", name), seed=seed)
        return root

    return make
