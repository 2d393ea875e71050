"""All that a network learns from, loaded from a folder as docs/training.md describes it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from bidsseg.network.card import DEFAULT_MODEL, folder_of, read_card
from bidsseg.train.data import (
    Subject,
    TrainingSet,
    load_brains,
    load_lesions,
    together,
)
from bidsseg.train.pseudo_labels import load_labelled, load_parcelled_heads

logger = logging.getLogger(__name__)

FORMAT = 3
"Of the cache: another one is made anew."


def load_training_set(data: Path) -> TrainingSet:
    """All of it, with pseudo-labels by the packaged model."""
    return TrainingSet(load_parcelled_heads(data), load_brains(data), load_lesions(data), load_labelled(data))


def subjects_of(known: TrainingSet) -> list[Subject]:
    """Heads, brains within them and labelled patients, by name."""
    clinical = [subject for labelled in known.pseudo for subject in labelled.subjects()]
    return sorted((*together(known.heads, known.brains), *clinical), key=lambda subject: subject.name)


def load_subjects(data: Path, cache: Path) -> list[Subject]:
    """All training subjects of a folder; built once for it and for the packaged weights, kept in ``cache`` as .npz."""
    cache.mkdir(parents=True, exist_ok=True)
    made, made_from = cache / "complete", f"{FORMAT}\n{data.resolve()}\n{read_card(folder_of(DEFAULT_MODEL)).sha256}\n"
    if not made.exists() or made.read_text(encoding="utf-8") != made_from:
        for old in (made, *cache.glob("*.npz")):
            old.unlink(missing_ok=True)
        for subject in subjects_of(load_training_set(data)):
            logger.info("prepared %s", subject.name)
            _write(cache / f"{subject.name}.npz", subject)
        made.write_text(made_from, encoding="utf-8")
    return [_read(path) for path in sorted(cache.glob("*.npz"))]


def _write(path: Path, subject: Subject) -> None:
    none = np.zeros(0, np.float16)
    np.savez(
        path,
        packed=subject.packed,
        image=none if subject.image is None else subject.image,
        clipped=none if subject.clipped is None else subject.clipped,
        box=subject.box,
        slice_axis=-1 if subject.slice_axis is None else subject.slice_axis,
        whole_head=subject.whole_head,
    )


def _read(path: Path) -> Subject:
    with np.load(path, allow_pickle=False) as stored:
        image, clipped = (stored[name] if stored[name].size else None for name in ("image", "clipped"))
        axis = int(stored["slice_axis"])
        return Subject(
            path.stem,
            stored["packed"],
            image,
            stored["box"],
            slice_axis=None if axis < 0 else axis,
            whole_head=bool(stored["whole_head"]),
            clipped=clipped,
        )
