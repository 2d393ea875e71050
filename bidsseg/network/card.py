"""The card beside a model's weights: what they are, learned from, and are worth. No torch: every run reads it first."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bidsseg.errors import FileError
from bidsseg.files import write_text
from bidsseg.labels import TISSUES, gyri
from bidsseg.network.config import UNetConfig

MODELS = Path(__file__).parent.parent / "models"
DEFAULT_MODEL = "anycontrast"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class ModelCard:
    """What a set of weights is, what it learned from, how good it is."""

    name: str
    version: str
    architecture: UNetConfig
    sha256: str
    "Of weights.safetensors."
    tissues: tuple[str, ...] = TISSUES
    parcels: tuple[str, ...] = ()
    "Abbreviations of the gyri, in the order of the parcel head."
    licence: str = "CC-BY-NC-4.0"
    about: dict[str, Any] = field(default_factory=dict)
    "Training data, intended use, hours trained, known failures."
    accuracy: dict[str, Any] = field(default_factory=dict)
    "Written by ``brainseg-cli evaluate --card``."
    quality: dict[str, Any] = field(default_factory=dict)
    "How confidence becomes expected Dice (``bidsseg.quality.assessment.Calibration``); by ``brainseg-cli calibrate``."


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder; raises ``FileError`` where it is missing or malformed."""
    path = folder / "card.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        architecture = fields.pop("architecture")
        config = UNetConfig(**{**architecture, "widths": tuple(architecture["widths"])})
        for name in ("tissues", "parcels"):
            fields[name] = tuple(fields[name])
        return ModelCard(architecture=config, **fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(path, f"not a model card ({error})", "install bidsseg again or check --model") from error


def write_card(folder: Path, card: ModelCard) -> None:
    text = json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n"
    write_text(folder / "card.json", text)


def folder_of(name: str | Path = DEFAULT_MODEL) -> Path:
    """A packaged model's folder by its name, or the folder itself if it is one."""
    return MODELS / name if (MODELS / name).is_dir() else Path(name)


def check_weights(folder: Path, card: ModelCard) -> Path:
    """The weights that belong to a card; raises ``FileError`` if they are missing, not those, or of other labels."""
    path = folder / WEIGHTS
    if not path.exists():
        raise FileError(path, "no such file", "install bidsseg again or check --model")
    if sha256_of(path) != card.sha256:
        raise FileError(path, "the SHA-256 is not that of the card", "install bidsseg again")
    if card.tissues != TISSUES or card.parcels != tuple(gyrus.abbreviation for gyrus in gyri()):
        raise FileError(folder / "card.json", "other labels than this version's", "use the version that made it")
    return path


ACCURACY_MARKS = ("<!-- accuracy -->", "<!-- /accuracy -->")


def accuracy_table(card: ModelCard) -> str:
    """The card's accuracy as a Markdown table: one row per condition, Dice (95 % Hausdorff distance in mm)."""
    schemes = list(dict.fromkeys(scheme for means in card.accuracy.values() for scheme in means))
    lines = [f"| scans | {' | '.join(schemes)} |", "| --- |" + " --- |" * len(schemes)]
    for condition, means in card.accuracy.items():
        cells = [
            f"{means[scheme]['dice']:.3f} ({means[scheme]['hd95_mm']:.1f} mm)" if scheme in means else ""
            for scheme in schemes
        ]
        lines.append(f"| {condition} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_readme(path: Path, card: ModelCard) -> None:
    """Put the accuracy table between the marks of a Markdown file; raises ``FileError`` where there are none."""
    text = path.read_text(encoding="utf-8")
    begin, end = (text.find(mark) for mark in ACCURACY_MARKS)
    if not 0 <= begin < end:
        raise FileError(path, "no accuracy marks", f"add lines {ACCURACY_MARKS[0]} and {ACCURACY_MARKS[1]}")
    head = text[: begin + len(ACCURACY_MARKS[0])]
    write_text(path, f"{head}\n{accuracy_table(card)}\n{text[end:]}")


def add_accuracy(folder: Path, condition: str, means: dict[str, Any]) -> ModelCard:
    """Record what was measured under one condition in the card; returns the new card."""
    card = read_card(folder)
    merged = {**card.accuracy, condition: {**card.accuracy.get(condition, {}), **means}}
    card = replace(card, accuracy=merged)
    write_card(folder, card)
    return card


def set_about(folder: Path, name: str, content: Any) -> None:
    """Record something else about the model in the card."""
    card = read_card(folder)
    write_card(folder, replace(card, about={**card.about, name: content}))


def set_quality(folder: Path, quality: dict[str, Any]) -> None:
    """Record a calibration in the card."""
    write_card(folder, replace(read_card(folder), quality=quality))
