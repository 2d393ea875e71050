"""The card beside a model's weights: what they are, learned from, and are worth. No torch: every run reads it first."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bidsseg.errors import FileError
from bidsseg.files import json_content, sha256_of, write_text
from bidsseg.labels import N_PARCELS, TISSUES, gyri
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
    "Checksum of weights.safetensors."
    tissues: tuple[str, ...] = TISSUES
    parcels: tuple[str, ...] = ()
    "Abbreviations of the gyri, in the order of the parcel head."
    licence: str = "CC-BY-NC-4.0"
    about: dict[str, Any] = field(default_factory=dict)
    "Training data, intended use, hours trained, known failures."
    accuracy: dict[str, Any] = field(default_factory=dict)
    "Written by ``brainseg-cli evaluate --card``."
    quality: dict[str, Any] = field(default_factory=dict)
    "How confidence becomes expected Dice (``bidsseg.quality.expectation.Calibration``); by ``brainseg-cli calibrate``."


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder; raises ``FileError`` where it is missing or malformed."""
    path = folder / "card.json"
    try:
        return _card_from(json_content(path))
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(path, f"not a model card ({error})", "install bidsseg again or check --model") from error


def _card_from(content: Any) -> ModelCard:
    """Raises one of many errors where anything is missing or not what it should be."""
    fields = {**content, "architecture": _architecture_from(content["architecture"])}
    for name in ("tissues", "parcels"):
        fields[name] = tuple(_all_are(str, name, *fields[name]))
    card = ModelCard(**fields)
    _all_are(str, "a text", card.name, card.version, card.sha256, card.licence)
    _all_are(dict, "about, accuracy or quality", card.about, card.accuracy, card.quality)
    return card


def _architecture_from(content: Any) -> UNetConfig:
    sizes = {name: size for name, size in content.items() if name != "widths"}
    widths = _all_are(int, "architecture", *content["widths"])
    _all_are(int, "architecture", *sizes.values())
    return UNetConfig(widths, **sizes)


def _all_are(kind: type, what: str, *values: Any) -> tuple[Any, ...]:
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise TypeError(f"{what} should be {kind.__name__}")
    return values


def write_card(folder: Path, card: ModelCard) -> None:
    text = json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n"
    write_text(folder / "card.json", text)


def folder_of(name: str | Path = DEFAULT_MODEL) -> Path:
    """A packaged model's folder by its name, or the folder itself if it is one."""
    return MODELS / name if (MODELS / name).is_dir() else Path(name)


def check_weights(folder: Path, card: ModelCard) -> Path:
    """The weights that belong to a card; raises ``FileError`` if they are missing, not those, or of other labels."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileError(path, "no such file", "install bidsseg again or check --model")
    if sha256_of(path) != card.sha256:
        raise FileError(path, "the SHA-256 is not that of the card", "install bidsseg again")
    heads = (card.architecture.n_tissues, card.architecture.n_parcels)
    if (
        heads != (len(TISSUES), N_PARCELS)
        or card.tissues != TISSUES
        or card.parcels != tuple(gyrus.abbreviation for gyrus in gyri())
    ):
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


QUALITY_MARKS = ("<!-- quality -->", "<!-- /quality -->")


def quality_table(card: ModelCard) -> str:
    """How well the verdicts do, as a Markdown table; empty without a calibration."""
    about = card.quality.get("about", {})
    studies = {name: rows for name, rows in about.items() if name.endswith("left out")}
    if not studies:
        return ""
    named = [row for row, value in next(iter(studies.values())).items() if isinstance(value, str)]
    lines = [f"| of {about['trials']} trials | {' | '.join(studies)} |", "| --- |" + " --- |" * len(studies)]
    lines += [f"| {row} | {' | '.join(rows[row] for rows in studies.values())} |" for row in named]
    clinical = about.get("clinical scans", {})
    if clinical:
        counts = ", ".join(f"{clinical[verdict]} {verdict}" for verdict in ("pass", "check", "fail"))
        lines += ["", f"Of {clinical['scans']} clinical scans: {counts}."]
    return "\n".join(lines)


PATIENTS = "patients"
"What ``about`` has of them; written by ``brainseg-cli evaluate --patients --card``."
PATIENTS_MARKS = ("<!-- patients -->", "<!-- /patients -->")


def patients_table(measured: dict[str, Any]) -> str:
    """Ventricles of patients against manual masks, and contrasts against FLAIR, as two Markdown tables."""
    lines = (
        ["| patients | Dice of ventricles in FLAIR | mean |", "| --- | --- | --- |"] if measured["ventricles"] else []
    )
    for kind, dice in measured["ventricles"].items():
        each = ", ".join(f"{name} {value:.3f}" for name, value in dice.items() if name != "mean")
        lines.append(f"| {kind} | {each} | {dice['mean']:.3f} |")
    sessions = measured["contrasts"]
    contrasts = list(dict.fromkeys(name for scores in sessions.values() for name in scores))
    if sessions:
        head = " | ".join(f"{name} against FLAIR" for name in contrasts)
        lines += ["", f"| session | {head} |", "| --- |" + " --- |" * len(contrasts)]
    for session, scores in sessions.items():
        cells = [_apart(scores[name]) if name in scores else "" for name in contrasts]
        lines.append(f"| {session} | {' | '.join(cells)} |")
    return "\n".join(lines).strip()


def _apart(score: dict[str, Any]) -> str:
    dice = "" if score["regions_dice"] is None else f" ({score['regions_dice']:.3f})"
    return f"{score['median_percent']:.1f} %{dice}"


def write_readme(path: Path, content: str, marks: tuple[str, str]) -> None:
    """Put a table between the marks of a Markdown file; raises ``FileError`` where there are none."""
    text = path.read_text(encoding="utf-8")
    begin, end = (text.find(mark) for mark in marks)
    if not 0 <= begin < end:
        raise FileError(path, f"no place for the table of {marks[0][5:-4]}", f"add lines {marks[0]} and {marks[1]}")
    head = text[: begin + len(marks[0])]
    write_text(path, f"{head}\n{content}\n{text[end:]}")


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
