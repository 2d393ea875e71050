"""Charts of volumes: left beside right, with the ranges of healthy people where these are known."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from bidsseg.files import read_tsv
from bidsseg.labels import SCHEMES, Label, label_table
from bidsseg.segmentation.mosaic import readable_name

UNKNOWN_COLOR = "#888888"


@dataclass(frozen=True)
class Side:
    """A structure's volume on one side, or on the midline."""

    code: int
    volume_ml: float
    percent_of_intracranial: float
    confidence: float | None
    "Expected Dice where the model is calibrated, else the mean probability."
    reference_ml: tuple[float, float] | None
    "Ends of the range of 90 % of the training population at this intracranial volume, where the package has them."


@dataclass(frozen=True)
class Structure:
    """One row of the volume chart."""

    name: str
    color: str
    left: Side | None
    right: Side | None
    midline: Side | None

    @property
    def sides(self) -> list[Side]:
        return [side for side in (self.left, self.right, self.midline) if side is not None]

    @property
    def asymmetry_percent(self) -> float | None:
        """Left less right over their mean."""
        if self.left is None or self.right is None or not self.left.volume_ml + self.right.volume_ml:
            return None
        return 200 * (self.left.volume_ml - self.right.volume_ml) / (self.left.volume_ml + self.right.volume_ml)


@dataclass(frozen=True)
class Chart:
    """The volumes of one label scheme."""

    scheme: str
    structures: list[Structure]

    @property
    def has_references(self) -> bool:
        return any(side.reference_ml for row in self.structures for side in row.sides)

    @property
    def largest_ml(self) -> float:
        return max((side.volume_ml for row in self.structures for side in row.sides), default=0.0) or 1.0

    def length(self, volume_ml: float) -> float:
        """Of a bar, 0-96: the square root of the volume, so that small structures show."""
        return round(96 * min(1.0, math.sqrt(volume_ml / self.largest_ml)), 2)


def read_charts(table: Path, intracranial_ml: float) -> list[Chart]:
    """The volumes of every scheme in a volumes table, left and right of a structure in one row."""
    rows = read_tsv(table)
    charts = []
    for scheme in SCHEMES:
        labels = {label.index: label for label in label_table(scheme)}
        sides: dict[str, dict[str, Side]] = {}
        colors: dict[str, str] = {}
        for row in (row for row in rows if row["scheme"] == scheme):
            label = labels.get(int(row["index"]))
            name = readable_name(row["name"])
            colors.setdefault(name, label.color if label else UNKNOWN_COLOR)
            sides.setdefault(name, {})[row["hemisphere"]] = side_of(row, reference_fractions(), intracranial_ml)
        structures = [
            Structure(name, colors[name], by_side.get("L"), by_side.get("R"), by_side.get("n/a"))
            for name, by_side in sides.items()
        ]
        charts += [Chart(scheme, structures)] if structures else []
    return charts


def side_of(
    row: Mapping[str, str], fractions: Mapping[tuple[str, int], tuple[float, float]], intracranial_ml: float
) -> Side:
    """One row of a volumes table."""
    reference = fractions.get((row["scheme"], int(row["index"])))
    expected = row.get("expected_dice", "n/a")
    cell = row["confidence"] if expected == "n/a" else expected
    confidence = None if cell == "n/a" else float(cell)
    return Side(
        code=int(row["index"]),
        volume_ml=float(row["volume_mm3"]) / 1000,
        percent_of_intracranial=100 * float(row["fraction_of_intracranial"]),
        confidence=confidence,
        reference_ml=(reference[0] * intracranial_ml, reference[1] * intracranial_ml) if reference else None,
    )


@cache
def reference_fractions() -> dict[tuple[str, int], tuple[float, float]]:
    """Range of volume over intracranial volume that holds 90 % of people, by scheme and code.

    From ``tables/reference_volumes.tsv`` (scheme, index, low, high) if the package has it; the charts show no range
    where it has none.
    """
    table = files("bidsseg") / "tables" / "reference_volumes.tsv"
    if not table.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")), delimiter="\t")
    return {(row["scheme"], int(row["index"])): (float(row["low"]), float(row["high"])) for row in rows}


def label_title(label: Label) -> str:
    """The label in words, with its side: ``Left frontal cortex``."""
    name = readable_name(label.name)
    side = {"L": "Left ", "R": "Right "}.get(label.hemisphere, "")
    keeps_capital = not side or name[1:2].isupper() or name[:1].isdigit()
    return side + (name if keeps_capital else name[:1].lower() + name[1:])
