"""Which room may import which, and which library belongs to whom: every module is in a table, and every import counts.

The tables are those of ``docs/architecture.md``. An import inside a function counts like one at the top of the file;
only those under ``TYPE_CHECKING`` are free.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import bidsseg

PACKAGE = Path(bidsseg.__file__).parent
FOUNDATIONS = ("errors", "files", "authorship", "spaces", "labels")
"Modules outside the rooms that every room may import; each of them only those before it."
ROOMS = {
    "imaging": set[str](),
    "network": {"imaging"},
    "segmentation": {"imaging", "network"},
    "bids": {"imaging"},
    "quality": {"imaging", "network", "segmentation"},
    "lesions": {"imaging", "segmentation"},
    "report": {"imaging", "segmentation", "lesions", "bids", "quality.verdicts"},
    "api": {"imaging", "network", "segmentation", "quality", "lesions"},
    "workflow": {"imaging", "network", "segmentation", "bids", "quality", "lesions", "report"},
    "train": {"imaging", "network", "segmentation", "quality.reorientation", "quality.usual"},
    "evaluation": {"imaging", "network", "segmentation", "quality", "lesions", "train"},
    "cli": {"imaging", "network", "segmentation", "bids", "quality", "lesions", "report", "workflow", "train"}
    | {"evaluation"},
    "__main__": {"cli"},
}
"""Each room, and the rooms and modules that it may import; from the ground up, so that no arrow runs upwards.

Training makes the tables that ``quality.reorientation`` and ``quality.usual`` read.
"""
OWNERS = {
    "bids": {"bids.dataset"},
    "nipype": {"workflow.nipype_workflow", "workflow.nipype_nodes", "workflow.nipype_plugins"}
    | {"workflow.nipype_interface"},
    "click": {"cli"},
    "SimpleITK": {"imaging.bias", "imaging.registration", "imaging.transforms", "imaging.dicom"},
    "highdicom": {"imaging.dicom_seg"},
    "pydicom": {"imaging.dicom_seg"},
    "nibabel": {"imaging.image", "imaging.grid", "imaging.affines", "imaging.nifti", "imaging.mgh"}
    | {"authorship", "train.data"},
    "jinja2": {"report.html"},
    "PIL": {"report", "segmentation.mosaic"},
    "matplotlib": {"segmentation.figure"},
    "pandas": {"segmentation.volumes"},
}
"The rooms and modules that alone may use a library."
INSIDE_FUNCTIONS_AT_MOST = 79
"Imports of our own modules inside functions: each delays something slow, and hides an arrow from the reader."


def paths() -> dict[str, Path]:
    found = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in found}


MODULES = paths()


@cache
def imports(name: str) -> frozenset[str]:
    """Full names of everything that a module imports, also inside functions, but for types alone."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not _is_for_types(node)]
    return frozenset(of for node in ast.walk(tree) for of in _imported(node))


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _imported(node: ast.AST) -> set[str]:
    """Modules that a statement imports; ``from package import module`` imports the module."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        within = {f"{node.module}.{alias.name}" for alias in node.names}
        return {of for of in within if of.removeprefix("bidsseg.") in MODULES} or {node.module}
    return set()


def ours(name: str) -> set[str]:
    """The modules of the package that a module imports, without the package's name."""
    return {of.removeprefix("bidsseg.") for of in imports(name) if of.startswith("bidsseg.")}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_module_is_in_a_room_or_a_foundation() -> None:
    assert {room(name) for name in MODULES} <= {*ROOMS, *FOUNDATIONS}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    if name in FOUNDATIONS:
        allowed = set(FOUNDATIONS[: FOUNDATIONS.index(name)])
    else:
        allowed = {room(name), *FOUNDATIONS, *ROOMS[room(name)]}
    assert not {of for of in ours(name) if of not in allowed and room(of) not in allowed}


def test_no_arrow_of_the_table_runs_upwards() -> None:
    order = list(ROOMS)
    for name, allowed in ROOMS.items():
        assert all(order.index(room(of)) < order.index(name) for of in allowed), name


@pytest.mark.parametrize("name", MODULES)
def test_each_library_is_used_by_its_owners_alone(name: str) -> None:
    used = {of.partition(".")[0] for of in imports(name) if not of.startswith("bidsseg")}
    foreign = {library for library in used & set(OWNERS) if not {name, room(name)} & OWNERS[library]}
    assert not foreign


def test_nothing_but_its_commands_and_evaluation_imports_training() -> None:
    users = {name for name in MODULES if any(of.startswith("train") for of in ours(name))}
    assert {name for name in users if room(name) not in ("train", "evaluation")} <= {
        "cli.training",
        "cli.scores",
        "cli.lesion_training",
    }


def test_few_imports_hide_inside_functions() -> None:
    hidden = 0
    for path in MODULES.values():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
        hidden += sum(any(of.startswith("bidsseg") for of in _imported(node)) for node in inside)
    assert hidden <= INSIDE_FUNCTIONS_AT_MOST


RESULT_NAME = re.compile(r"_desc-|^_?(qc|lesions|volumes|error|dseg|probseg)\.(json|tsv|txt|nii|png)")
NAMING = {
    "bids.outputs": "results in a dataset",
    "bids.root_files": "what validators pass over",
    "bids.lesion_masks": "masks of other programs",
    "evaluation.lesion_scores": "scans of a public data set",
    "cli.bids_app": "the same, in the help",
    "cli.main": "results beside a scan",
    "workflow.single_reading": "results beside a scan",
    "workflow.nipype_interface": "results beside a scan",
}
"The modules that may spell names of images and of results, and which."


@pytest.mark.parametrize("name", MODULES)
def test_names_of_results_are_spelled_in_one_module(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told]
    spelled = [text for text in texts if isinstance(text, str) and RESULT_NAME.search(text)]
    assert not spelled or name in NAMING


def test_a_run_starts_without_torch() -> None:
    """Its import takes longer than finding the scans; the workers need it, the process that leads them does not."""
    names = "bidsseg.cli.bids_app, bidsseg.workflow.participant_level, bidsseg.workflow.nipype_workflow"
    leading = f"import sys, {names}; sys.exit('torch' in sys.modules or 'SimpleITK' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", leading], check=False).returncode == 0


def test_a_scan_is_read_without_torch() -> None:
    """``predict`` reads its first scan in a thread while it imports torch."""
    reading = "import sys, bidsseg.cli.main, bidsseg.workflow.single_reading; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", reading], check=False).returncode == 0


def test_imports_have_no_cycle() -> None:
    graph = {name: ours(name) & set(MODULES) for name in MODULES}
    while leaves := [name for name, needs in graph.items() if not needs]:
        for leaf in leaves:
            del graph[leaf]
        graph = {name: needs - set(leaves) for name, needs in graph.items()}
    assert not graph, f"cycle among {sorted(graph)}"
