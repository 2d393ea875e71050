"""The import table: who may use what."""

import ast
import subprocess
import sys
from pathlib import Path

import bidsseg

PACKAGE = Path(bidsseg.__file__).parent
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "labels": set(),
    "imaging.arrays": set(),
    "authorship": {"errors", "files"},
    "imaging.formats": {"errors"},
    "imaging.affines": set(),
    "imaging.image": {"authorship", "imaging.affines", "errors", "files", "imaging.formats", "imaging.arrays"},
    "imaging.grid": {"imaging.affines", "imaging.image", "imaging.arrays"},
    "imaging.bias": {"imaging.image", "imaging.arrays"},
    "workflow.workers": {"workflow.claims", "workflow.scan_stages"},
    "workflow.claims": {"files"},
    "cli.signals": set(),
    "network.config": {"labels"},
    "network.unet": {"labels", "network.config"},
    "network.card": {"errors", "files", "labels", "network.config"},
    "lesions.masks": {"errors", "imaging.grid", "imaging.image", "imaging.arrays"},
    "lesions.options": set(),
    "lesions.zones": {"labels", "lesions.masks", "lesions.options"},
    "lesions.records": {"lesions.masks", "lesions.options", "lesions.zones", "segmentation.result"},
    "lesions.correction": {"imaging.affines", "labels", "lesions.zones", "segmentation.result"},
    "bids.lesion_masks": {"bids.names", "errors", "imaging.image"},
    "imaging.registration": {"imaging.grid", "imaging.image"},
}
OWNERS = {
    "bids": {"bids.names"},
    "nipype": {"workflow.nipype_workflow", "workflow.nipype_plugins"},
    "SimpleITK": {"imaging.bias", "imaging.registration"},
    "nibabel": {"authorship", "imaging.formats", "imaging.affines", "imaging.image", "imaging.grid", "train.data"},
    "click": {"cli.main", "cli.options", "cli.training", "cli.bids_app"},
}


def modules() -> dict[str, Path]:
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


OURS = {f"bidsseg.{name}" for name in modules()}


def imports(path: Path) -> set[str]:
    """Full names of everything imported anywhere in a module, also inside functions, but for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & OURS
    return found


def test_foundations_import_nothing_above_them() -> None:
    for name, allowed in MAY_IMPORT.items():
        ours = {i.removeprefix("bidsseg.") for i in imports(modules()[name]) if i.startswith("bidsseg.")}
        assert ours <= allowed, name


def test_each_library_has_its_owner() -> None:
    for name, path in modules().items():
        for library, owners in OWNERS.items():
            used = any(i == library or i.startswith(f"{library}.") for i in imports(path))
            assert not used or name in owners, f"{name} uses {library}"


def test_nothing_but_its_commands_imports_training() -> None:
    allowed = {"cli.training", "evaluation.scores"}
    for name, path in modules().items():
        if not name.startswith("train") and name not in allowed:
            assert not any(i.startswith("bidsseg.train") for i in imports(path)), name


def test_a_run_starts_without_torch() -> None:
    """Its import takes longer than finding the scans; the workers need it, the process that leads them does not."""
    names = "bidsseg.cli.bids_app, bidsseg.workflow.participant_level, bidsseg.workflow.nipype_workflow"
    leading = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", leading], check=False).returncode == 0


def test_imports_have_no_cycle() -> None:
    graph = {
        name: {i.removeprefix("bidsseg.") for i in imports(path) if i.startswith("bidsseg.")} & set(modules())
        for name, path in modules().items()
    }
    while leaves := [name for name, needs in graph.items() if not needs]:
        for leaf in leaves:
            del graph[leaf]
        graph = {name: needs - set(leaves) for name, needs in graph.items()}
    assert not graph, f"cycle among {sorted(graph)}"
