"""The pages name every file, column and key that the commands write, every room, and the command of the tests."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from bidsseg.cli.bids_app import run
from bidsseg.cli.main import main
from bidsseg.network.card import folder_of, read_card, set_quality
from tests.conftest import Dataset, Run
from tests.report.test_lesion_frequency import HERE, add_mask
from tests.workflow.test_lesion_stages import write_mask

ROOT = Path(__file__).parent.parent
OUTPUTS = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
STANDARD_KEYS = {"Description", "Levels", "Units", "Term URL"}
"Keys inside the descriptions of columns, which BIDS defines."


@pytest.fixture
def written(dataset: Dataset, tmp_path: Path, tiny_model: Path, app: Run) -> Path:
    """A folder with all outputs there are: of two sessions, two contrasts, lesions, the group, and single scans."""
    model = shutil.copytree(tiny_model, tmp_path / "calibrated")
    set_quality(model, read_card(folder_of()).quality)
    root = dataset("sub-01_ses-1_T1w.nii.gz", "sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-2_FLAIR.nii.gz")
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tacq_time\nses-1\t2020-01-01\nses-2\t2021-01-01\n")
    for session in (1, 2):
        write_mask(tmp_path / "masks", f"sub-01_ses-{session}_FLAIR", lesions=session)
    asked = ("--fuse", "--probseg", "--output-spaces", "orig", "1mm", "--write-graph", "--lesion-bands", "3", "--fill")
    lesions = ("--derivatives", str(tmp_path / "masks"), "--seg", "regions", "lobes")
    assert app(root, "--model", str(model), *asked, *lesions) == 0
    add_mask(tmp_path / "out", "02", HERE)
    (root / "participants.tsv").write_text("participant_id\tsex\nsub-02\tF\n")
    assert run([str(root), str(tmp_path / "out"), "group", "--group-by", "sex"]) == 0

    scan, single = root / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_FLAIR.nii.gz", tmp_path / "out" / "single"
    mask = next((tmp_path / "masks").rglob("*ses-1*_mask.nii.gz"))
    single.mkdir()
    for arguments in (["predict", str(scan)], ["lesions", str(scan), "--mask", str(mask)]):
        options = ["-o", str(single), "--model", str(model), "--threads", "1"]
        assert CliRunner().invoke(main, [*arguments, *options]).exit_code == 0
    return tmp_path / "out"


def template(path: Path) -> str:
    """A file's name as the page writes it: without the entities of its source, scheme, space and kind of image."""
    name = path.name
    for pattern, placeholder in (
        (r"^sub-01_ses-\d_FLAIR(?=[_.])", "<scan>"),
        (r"^sub-(01_ses-\d|02)", "<source>"),
        ("desc-sexF", "desc-<column><value>"),
        (r"^sub-01", "sub-<label>"),
        (r"seg-(regions|lobes|gyri)(?=_dseg\.(tsv|json|png)|_desc-(T1w|FLAIR)|_res)", "seg-<scheme>"),
        (r"_space-(orig|individual)", "_space-<space>"),
        (r"_res-1mm", ""),
        (r"desc-(T1w|FLAIR)(fused)?", "desc-<suffix>"),
        (r"(preproc|filled)_(T1w|FLAIR)", r"\1_<suffix>"),
    ):
        name = re.sub(pattern, placeholder, name)
    return name


def keys_of(path: Path) -> set[str]:
    """The columns of a table, or the keys of a JSON object; what data dictionaries hold below a column is BIDS' own."""
    if path.suffix == ".tsv":
        return set(path.read_text(encoding="utf-8").split("\n", 1)[0].split("\t"))
    content = json.loads(path.read_text(encoding="utf-8"))
    inner = {key for entry in content.get("Intervals", []) for key in entry}
    return {*content, *inner, *content.get("Origin", {})} - STANDARD_KEYS


def test_every_file_column_and_key_is_described(written: Path) -> None:
    files = [path for path in written.rglob("*") if path.is_file()]
    assert len(files) > 60
    named = {template(path) for path in files}
    assert sorted(name for name in named if f"`{name}`" not in OUTPUTS) == []
    tables = [path for path in files if path.suffix in (".tsv", ".json")]
    keys = {key for path in tables for key in keys_of(path)}
    assert {"volume_mm3", "ExpectedDice", "ContrastAgreementWith", "Sources", "change_fraction"} <= keys
    assert sorted(key for key in keys if f"`{key}`" not in OUTPUTS) == []


@pytest.mark.usefixtures("balls_are_heads")
def test_every_key_of_sessions_together_is_described(dataset: Dataset, tmp_path: Path, app: Run) -> None:
    root = dataset("sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-2_FLAIR.nii.gz")
    assert app(root, "--longitudinal", "--seg", "regions") == 0
    keys = {key for path in (tmp_path / "out").rglob("anat/*.json") for key in keys_of(path)}
    assert "SegmentedWith" in keys
    assert sorted(key for key in keys if f"`{key}`" not in OUTPUTS) == []


def test_readme_names_the_command_that_runs_the_tests() -> None:
    command = re.search(r'^step "(python3 -m venv .*pytest)"$', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert command is not None
    assert f"```bash\n{command[1]}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_architecture_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = sorted(path.parent.name for path in (ROOT / "bidsseg").glob("*/__init__.py"))
    assert sorted(re.findall(r"^\| `(\w+)` \|", page.partition("## Arrows")[0], re.MULTILINE)) == ["api", *rooms]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_that_the_pages_name_exists() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(r"(?<!entrypoint )brainseg-cli ([a-z-]+)", page.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= set(main.commands)
