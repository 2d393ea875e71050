"""Packaged weights of the lesion network, and their card."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidsseg.errors import FileError
from bidsseg.files import json_content, sha256_of, whole, write_text
from bidsseg.network.card import MODELS, WEIGHTS
from bidsseg.network.lesion_config import LesionNetConfig, Thresholds

if TYPE_CHECKING:
    from torch import Tensor

    from bidsseg.network.lesion_net import LesionNet

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


@dataclass(frozen=True)
class LesionModel:
    """The lesion network with its weights, and its card."""

    net: LesionNet
    card: LesionCard


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


def lesion_model_folder(name: str | Path = LESION_MODEL) -> Path:
    """A packaged lesion model's folder by its name, or the folder itself if it is one."""
    return MODELS / name if (MODELS / name).is_dir() else Path(name)


@cache
def load_lesion_model(name: str | Path = LESION_MODEL) -> LesionModel:
    """A packaged lesion model by its name, or that of a folder, once per process; raises ``FileError`` if damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from bidsseg.network.lesion_net import LesionNet

    folder = lesion_model_folder(name)
    card = read_lesion_card(folder)
    path = folder / WEIGHTS
    if not path.is_file() or sha256_of(path) != card.sha256:
        raise FileError(path, "missing, or not the weights of the card", "install bidsseg again")
    net = LesionNet(card.architecture)
    try:
        net.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise FileError(path, "the weights do not fit the card's architecture", "install bidsseg again") from error
    return LesionModel(net.eval().requires_grad_(False), card)


def save_lesion_model(folder: Path, weights: dict[str, Tensor], card: LesionCard) -> None:
    """Write float16 weights and their card; its checksum becomes theirs."""
    from dataclasses import replace

    from safetensors.torch import save_file
    from torch import float16

    path = folder / WEIGHTS
    with whole(path) as temporary:
        save_file({key: value.detach().to(float16).contiguous() for key, value in weights.items()}, temporary)
        temporary.chmod(0o644)  # safetensors writes for the owner alone, but any user may run an installation
    write_lesion_card(folder, replace(card, sha256=sha256_of(path)))
