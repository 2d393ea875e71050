"""Packaged weights: float16 safetensors with a card beside them, checked by SHA-256 before use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, float16, nn

from bidsseg.errors import FileError
from bidsseg.files import sha256_of, whole
from bidsseg.labels import TISSUES, gyri
from bidsseg.network.card import (
    DEFAULT_MODEL,
    WEIGHTS,
    ModelCard,
    check_weights,
    folder_of,
    read_card,
    write_card,
)
from bidsseg.network.config import UNetConfig
from bidsseg.network.unet import UNet

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Model:
    """A network with its weights, ready for inference, and its card."""

    net: UNet
    card: ModelCard


@cache
def load_model(name: str | Path = DEFAULT_MODEL) -> Model:
    """Load a model, once per process.

    Parameters
    ----------
    name : path-like, default: "anycontrast"
        Name of a packaged model, or a folder with weights and card.

    Returns
    -------
    Model
        The network, and its card: training data, licence, accuracy.

    Raises
    ------
    bidsseg.errors.FileError
        If card or weights are missing, damaged, or do not belong together.

    Examples
    --------
    >>> import bidsseg
    >>> bidsseg.load_model("anycontrast").card.name
    'anycontrast'
    """
    folder = folder_of(name)
    card = read_card(folder)
    path = check_weights(folder, card)
    return Model(with_weights(lambda: UNet(card.architecture), path), card)


def with_weights(make: Callable[[], Net], path: Path) -> Net:
    """A network with the weights of a file, ready for inference; raises ``FileError`` where they do not fit."""
    try:
        net = make()
        net.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise FileError(path, "the weights do not fit the card's architecture", "install bidsseg again") from error
    return net.eval().requires_grad_(False)


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write weights in half precision."""
    with whole(path) as temporary:
        save_file({key: value.detach().to(float16).contiguous() for key, value in weights.items()}, temporary)
        temporary.chmod(0o644)  # safetensors writes for the owner alone, but any user may run an installation


def save_model(
    folder: Path, weights: dict[str, Tensor], config: UNetConfig, version: str, about: dict[str, Any]
) -> None:
    """Write float16 weights and a card without accuracy."""
    path = folder / WEIGHTS
    write_weights(path, weights)
    parcels = tuple(gyrus.abbreviation for gyrus in gyri())
    card = ModelCard(folder.name, version, config, sha256_of(path), TISSUES, parcels, about=about)
    write_card(folder, card)
