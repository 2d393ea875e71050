"""Groups of participants, by a column of participants.tsv."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from bidsseg.bids.session_order import natural
from bidsseg.errors import FileError, some_of
from bidsseg.files import NA, read_tsv

ID = "participant_id"
MOST_GROUPS = 10
ALL = "all"
"Name of what is made from all participants."


@dataclass(frozen=True)
class Groups:
    """Who belongs to which group."""

    column: str = ""
    "Of participants.tsv; empty without groups."
    group_of: dict[str, str] = field(default_factory=dict)
    "By participant, with sub-; those without a value are left out."

    @property
    def values(self) -> list[str]:
        return sorted(set(self.group_of.values()), key=natural)

    @property
    def names(self) -> dict[str, str]:
        """By value, letters and digits for file names: column and value, or numbers where some would be alike."""
        start = _letters(self.column)
        plain = {value: start + _letters(value) for value in self.values}
        known = [ALL, *(name.casefold() for name in plain.values())]
        if all(_letters(value) for value in plain) and len(set(known)) == len(known):
            return plain
        return {value: f"{start}Group{number}" for number, value in enumerate(plain, 1)}


def _letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isascii() and letter.isalnum())


def groups_by(dataset: Path, column: str) -> Groups:
    """The participants by the values of a column; raises ``FileError`` where it gives no few groups."""
    path = dataset / "participants.tsv"
    try:
        rows = read_tsv(path)
    except FileNotFoundError:
        raise FileError(path, "no such file", "--group-by needs its columns") from None
    except (OSError, ValueError, csv.Error) as error:
        raise FileError(path, f"not readable as a table ({error})", "save it as tab-separated UTF-8") from error
    columns = [name for name in rows[0] if name] if rows else []
    for wanted in (ID, column):
        if wanted not in columns:
            raise FileError(path, f"has no column {wanted}", f"its columns are {some_of(columns) or 'none'}")
    groups = Groups(column, {_subject(row[ID]): row[column].strip() for row in rows if _is_value(row[ID], row[column])})
    if not 1 <= len(groups.values) <= MOST_GROUPS:
        found = f"column {column} has {len(groups.values)} different values"
        raise FileError(path, found, f"--group-by takes a column with 1 to {MOST_GROUPS}")
    return groups


def _is_value(*cells: str | None) -> bool:
    return not any(cell is None or cell.strip() in ("", NA) for cell in cells)


def _subject(cell: str) -> str:
    return f"sub-{cell.strip().removeprefix('sub-')}"
