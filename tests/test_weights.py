import json
from pathlib import Path
from shutil import copytree

import pytest

from bidsseg.errors import FileError
from bidsseg.weights import DEFAULT_MODEL, MODELS, add_accuracy, load_model, read_card, sha256_of


def test_weights_and_card_come_back(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    assert model.card.architecture.widths == (4, 4)
    assert model.card.sha256 == sha256_of(tiny_model / "weights.safetensors")
    assert not model.net.training
    assert load_model(tiny_model) is model


def spoil_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def other_labels(folder: Path) -> None:
    fields = json.loads((folder / "card.json").read_text())
    fields["tissues"] = fields["tissues"][::-1]
    (folder / "card.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_weights, "SHA-256"),
        (other_labels, "other labels"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "no such file"),
        (lambda folder: (folder / "card.json").unlink(), "not a model card"),
        (lambda folder: (folder / "card.json").write_text("{}"), "not a model card"),
    ],
)
def test_a_spoilt_model_is_refused(spoil, says: str, tiny_model: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = copytree(tiny_model, tmp_path / "model")
    spoil(folder)
    with pytest.raises(FileError, match=says):
        load_model(folder)


def test_accuracy_of_several_conditions_gathers_in_the_card(tiny_model: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_model, tmp_path / "model")
    add_accuracy(folder, "1 mm", {"regions": {"dice": 0.9}})
    add_accuracy(folder, "1 mm", {"gyri": {"dice": 0.7}})
    add_accuracy(folder, "5 mm", {"regions": {"dice": 0.8}})
    accuracy = read_card(folder).accuracy
    assert accuracy == {"1 mm": {"regions": {"dice": 0.9}, "gyri": {"dice": 0.7}}, "5 mm": {"regions": {"dice": 0.8}}}
    load_model(folder)


def test_the_packaged_model_loads_and_is_small() -> None:
    model = load_model()
    assert (MODELS / DEFAULT_MODEL / "weights.safetensors").stat().st_size <= 12e6
    assert {"1 mm", "5 mm axial slices"} <= set(model.card.accuracy)
    assert model.card.licence == "CC-BY-NC-4.0"
