"""The card beside the weights of the lesion network. No torch: every run reads it first."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bidsseg.errors import FileError
from bidsseg.files import json_content, write_text
from bidsseg.network.lesion_config import LesionNetConfig, Thresholds

LESION_MODEL = "flair-lesions"
WIDEST = 256


@dataclass(frozen=True)
class LesionCard:
    """What the lesion network is, learned from, and is worth; ``card.json`` beside its weights."""

    name: str
    version: str
    architecture: LesionNetConfig
    sha256: str
    "Of weights.safetensors."
    thresholds: Thresholds = field(default_factory=Thresholds)
    "Chosen on validation patients."
    licence: str = "CC-BY-NC-4.0"
    about: dict[str, Any] = field(default_factory=dict)
    "Training data, intended use, known failures."
    accuracy: dict[str, Any] = field(default_factory=dict)
    "Written by ``brainseg-cli evaluate --lesions --card``."


def read_lesion_card(folder: Path) -> LesionCard:
    """The card of a lesion model's folder, without torch; raises ``FileError`` where it is missing or malformed."""
    path = folder / "card.json"
    try:
        content = json_content(path)
        card = LesionCard(
            **{
                **content,
                "architecture": LesionNetConfig(**content["architecture"]),
                "thresholds": Thresholds(*map(float, content["thresholds"])),
            }
        )
        sizes = asdict(card.architecture).values()
        if not all(isinstance(size, int) and 1 <= size <= WIDEST for size in sizes) or not all(
            0 < t < 1 for t in card.thresholds
        ):
            raise ValueError("its numbers are out of bounds")
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(path, f"not the card of a lesion model ({error})", "install bidsseg again") from error
    return card


def write_lesion_card(folder: Path, card: LesionCard) -> None:
    write_text(folder / "card.json", json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n")


LESION_MARKS = ("<!-- lesions -->", "<!-- /lesions -->")


def lesion_table(card: LesionCard) -> str:
    """How well lesions are found, as a Markdown table with one row per validation scan."""
    accuracy = card.accuracy
    lines = [
        "| scan | Dice (rule of one line) | lesions found | false ones | mL found | mL by hand |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in accuracy["validation patients"].items():
        of_rule = accuracy["rule of one line"][name]["dice"]
        lines.append(
            f"| {name} | {row['dice']:.2f} ({of_rule:.2f}) | {row['sensitivity']:.0%} of {row['lesions']}"
            f" | {row['false_positives']} | {row['found_ml']:.1f} | {row['manual_ml']:.1f} |"
        )
    free = accuracy["lesion-free brains, mL found"]
    lines += ["", f"In {len(free)} brains without lesions, shown as FLAIR: at most {max(free.values()):.2f} mL found."]
    return "\n".join(lines)
