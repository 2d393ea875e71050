import codecs
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from bidsseg.errors import FileError, UserError
from bidsseg.files import sha256_of
from bidsseg.network.card import (
    ACCURACY_MARKS,
    DEFAULT_MODEL,
    MODELS,
    accuracy_table,
    add_accuracy,
    quality_table,
    read_card,
    write_readme,
)
from bidsseg.network.weights import load_model
from bidsseg.quality.expectation import FEATURES, calibration_from


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


def test_accuracy_goes_into_the_readme_between_its_marks(tiny_model: Path, tmp_path: Path) -> None:
    folder, readme = copytree(tiny_model, tmp_path / "model"), tmp_path / "README.md"
    readme.write_text(f"before\n{ACCURACY_MARKS[0]}\nold\n{ACCURACY_MARKS[1]}\nafter\n")
    card = add_accuracy(folder, "1 mm", {"regions": {"dice": 0.9123, "hd95_mm": 2.34}})
    for _ in range(2):
        write_readme(readme, accuracy_table(card), ACCURACY_MARKS)
    text = readme.read_text()
    assert "| 1 mm | 0.912 (2.3 mm) |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    (tmp_path / "bare.md").write_text("no marks")
    with pytest.raises(FileError, match="no place for the table of accuracy"):
        write_readme(tmp_path / "bare.md", accuracy_table(card), ACCURACY_MARKS)


def test_the_packaged_model_loads_and_is_small() -> None:
    model = load_model()
    assert (MODELS / DEFAULT_MODEL / "weights.safetensors").stat().st_size <= 30e6
    assert {"1 mm", "5 mm axial slices"} <= set(model.card.accuracy)
    assert model.card.licence == "CC-BY-NC-4.0"


def test_verdicts_as_a_table() -> None:
    card = read_card(MODELS / DEFAULT_MODEL)
    assert quality_table(replace(card, quality={})) == ""
    left_out = {"correlation": {"scan": 0.9}, "fail": "9 of 10 bad found (90%)"}
    about = {"trials": 20, "scan left out": left_out, "clinical scans": {"scans": 3, "pass": 2, "check": 1, "fail": 0}}
    table = quality_table(replace(card, quality={"about": about})).splitlines()
    assert table[2:] == [
        "| fail | 9 of 10 bad found (90%) |",
        "",
        "Of 3 clinical scans: 2 pass, 1 check, 0 fail.",
    ]


def changed(**fields: object) -> Callable[[Path], None]:
    """Replaces fields of the card."""

    def change(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, **fields}))

    return change


def resized(**sizes: object) -> Callable[[Path], None]:
    """Replaces sizes of the network."""

    def change(folder: Path) -> None:
        card = json.loads((folder / "card.json").read_text())
        changed(architecture={**card["architecture"], **sizes})(folder)

    return change


def with_weights(content: bytes) -> Callable[[Path], None]:
    """Replaces the weights, and says so in the card."""

    def change(folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(content)
        changed(sha256=sha256_of(folder / "weights.safetensors"))(folder)

    return change


def as_folder(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "card.json").write_text("[" * 100_000),
        lambda folder: (folder / "card.json").write_text("[]"),
        lambda folder: (folder / "card.json").write_text("null"),
        lambda folder: (folder / "card.json").write_bytes(b"\xff\xfe{}"),
        as_folder("card.json"),
        as_folder("weights.safetensors"),
        changed(architecture=None),
        changed(architecture={"widths": 5}),
        changed(tissues=5),
        changed(tissues=[1, 2]),
        changed(name=5),
        changed(sha256=["a"]),
        changed(about=[]),
        changed(quality="good"),
        changed(nonsense=1),
        resized(widths=[4] * 40),
        resized(widths=[0, 4]),
        resized(widths=[4.0, 4]),
        resized(widths=[]),
        resized(widths=[10**9, 4]),
        resized(head_width=-1),
        resized(n_tissues=3),
        resized(n_parcels=1),
        resized(widths=[4, 8]),
        resized(unknown=1),
        with_weights(b""),
        with_weights(b"not safetensors at all"),
        with_weights((2**62).to_bytes(8, "little") + b"{}"),
        with_weights((2).to_bytes(8, "little") + b"{}"),
    ],
)
def test_a_damaged_model_folder_is_one_line(damage: Callable[[Path], None], tiny_model: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_model, tmp_path / "model")
    damage(folder)
    with pytest.raises(FileError) as caught:
        load_model(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_in_the_card_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    folder = copytree(tiny_model, tmp_path / "model")
    (folder / "card.json").write_bytes(codecs.BOM_UTF8 + (folder / "card.json").read_bytes())
    assert read_card(folder) == read_card(tiny_model)


@pytest.mark.parametrize(
    "quality",
    [
        {"features": 5},
        {"features": FEATURES},
        {"features": FEATURES, "expected": {"regions": 1}, "reachable": {}},
        {"features": FEATURES, "expected": {}, "reachable": {}, "unknown": 1},
    ],
)
def test_a_damaged_calibration_is_one_line(quality: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the quality in the model's card is damaged"):
        calibration_from(quality)
