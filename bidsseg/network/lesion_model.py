"""Packaged weights of the lesion network, with their card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from torch import Tensor

from bidsseg.errors import FileError
from bidsseg.files import sha256_of
from bidsseg.network.card import WEIGHTS, folder_of
from bidsseg.network.lesion_card import LESION_MODEL, LesionCard, read_lesion_card, write_lesion_card
from bidsseg.network.lesion_net import LesionNet
from bidsseg.network.weights import with_weights, write_weights


@dataclass(frozen=True)
class LesionModel:
    """The lesion network with its weights, and its card."""

    net: LesionNet
    card: LesionCard


@cache
def load_lesion_model(name: str | Path = LESION_MODEL) -> LesionModel:
    """A packaged lesion model by its name, or that of a folder, once per process; raises ``FileError`` if damaged."""
    folder = folder_of(name)
    card = read_lesion_card(folder)
    path = folder / WEIGHTS
    if not path.is_file() or sha256_of(path) != card.sha256:
        raise FileError(path, "missing, or not the weights of the card", "install bidsseg again")
    return LesionModel(with_weights(lambda: LesionNet(card.architecture), path), card)


def save_lesion_model(folder: Path, weights: dict[str, Tensor], card: LesionCard) -> None:
    """Write float16 weights and their card; its checksum becomes theirs."""
    path = folder / WEIGHTS
    write_weights(path, weights)
    write_lesion_card(folder, replace(card, sha256=sha256_of(path)))
