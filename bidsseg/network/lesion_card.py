"""The card beside the weights of the lesion network. No torch: every run reads it first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bidsseg.errors import FileError
from bidsseg.files import json_content, write_text
from bidsseg.network.lesion_config import LesionNetConfig, LoadError, LoadErrors, Thresholds

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
    load_errors: LoadErrors | None = None
    "Written by ``brainseg-cli evaluate --lesions --card``; not known before."
    licence: str = "CC-BY-NC-4.0"
    about: dict[str, Any] = field(default_factory=dict)
    "Training data, intended use, known failures."
    accuracy: dict[str, Any] = field(default_factory=dict)
    "Written by ``brainseg-cli evaluate --lesions --card``."

    def decided_by(self, spacing_mm: Iterable[float], asked: float | None) -> tuple[float, LoadError | None]:
        """The threshold for a scan, and the error of loads at it: of a threshold that the user asks for, none."""
        if asked is not None:
            return asked, None
        spacing = tuple(spacing_mm)
        return self.thresholds.of(spacing), self.load_errors.of(spacing) if self.load_errors else None


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
                "load_errors": LoadErrors.read(content.get("load_errors")),
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
    return "\n".join([*lines, *_more_lines(card)])


def _more_lines(card: LesionCard) -> list[str]:
    """What cards of earlier versions do not tell."""
    accuracy, lines = card.accuracy, []
    if again := accuracy.get("scanned again without a change"):
        new = ", ".join(f"{changes['new']} in {name}" for name, changes in again.items())
        lines += ["", f"Scanned again without a change, lesions called new: {new}."]
    for contrast, scores in accuracy.get("not offered", {}).items():
        dice = ", ".join(f"{row['dice']:.2f} ({name})" for name, row in scores.items())
        lines += ["", f"In {contrast}, which is not offered: Dice {dice}."]
    if card.load_errors:
        thick, thin = (f"{error.floor_ml:.2f} mL + {error.share:.0%} of it" for error in card.load_errors)
        load = accuracy["lesion load"]
        within = load["patients within twice the expected error"]
        count = len(load["error in patients over the expected one, each left out"])
        expected = f"Expected error of a load: {thick} in thick slices, {thin} in thin ones"
        checked = f"of {count} patients with others in such slices, {within} are within twice what these let expect"
        lines += ["", f"{expected}; {checked}."]
    return lines
