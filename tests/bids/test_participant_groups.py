"""Groups of participants, by a column of participants.tsv."""

from pathlib import Path

import pytest

from bidsseg.bids.participant_groups import Groups, groups_by
from bidsseg.errors import FileError


def write(folder: Path, *lines: str) -> Path:
    text = "\n".join(lines) + "\n"
    (folder / "participants.tsv").write_text(text.replace(" ", "\t"), encoding="utf-8")
    return folder


def test_groups_by_a_column(tmp_path: Path) -> None:
    write(
        tmp_path, "\ufeffparticipant_id age type", "sub-01 30 RR", "02 40 SP", "sub-03 50 n/a", "sub-04", "sub-05 9 RR"
    )
    groups = groups_by(tmp_path, "type")
    assert groups == Groups("type", {"sub-01": "RR", "sub-02": "SP", "sub-05": "RR"})
    assert groups.values == ["RR", "SP"]


@pytest.mark.parametrize(
    ("column", "values", "names"),
    [
        ("sex", ["F", "M"], ["sexF", "sexM"]),
        ("edss_group", ["0-2", "10", "3"], ["edssgroup02", "edssgroup3", "edssgroup10"]),
        ("bands", ["+", "-"], ["bandsGroup1", "bandsGroup2"]),
        ("site", ["a", "A"], ["siteGroup1", "siteGroup2"]),
        ("a", ["ll", "x"], ["aGroup1", "aGroup2"]),
    ],
)
def test_names_of_groups_are_letters_and_digits_and_differ(column: str, values: list[str], names: list[str]) -> None:
    groups = Groups(column, {f"sub-{number}": value for number, value in enumerate(values)})
    assert sorted(groups.names.values()) == sorted(names)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((), "no such file; --group-by needs its columns"),
        (("participant_id sex", "sub-01 F"), "has no column type; its columns are participant_id, sex"),
        (("id type", "sub-01 RR"), "has no column participant_id; its columns are id, type"),
        (("participant_id type",), "has no column participant_id; its columns are none"),
        (
            ("participant_id type", "sub-01 n/a"),
            "column type has 0 different values; --group-by takes a column with 1 to 10",
        ),
        (("participant_id type", *(f"sub-{n} {n}" for n in range(11))), "column type has 11 different values"),
    ],
)
def test_what_gives_no_groups_is_told_in_one_line(lines: tuple[str, ...], told: str, tmp_path: Path) -> None:
    if lines:
        write(tmp_path, *lines)
    with pytest.raises(FileError) as failed:
        groups_by(tmp_path, "type")
    assert str(failed.value).startswith(f"{tmp_path / 'participants.tsv'}: {told}")
    assert "\n" not in str(failed.value)


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_bytes(b"participant_id\ttype\nsub-01\t\xff\n")
    with pytest.raises(FileError, match="not readable as a table"):
        groups_by(tmp_path, "type")
