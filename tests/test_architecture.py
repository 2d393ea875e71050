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
    "volume": set(),
    "formats": {"errors"},
    "affines": set(),
    "image": {"affines", "errors", "files", "formats", "volume"},
    "grid": {"affines", "image", "volume"},
    "bias": {"image", "volume"},
    "workers": {"steps"},
    "unet_config": {"labels"},
    "network": {"labels", "unet_config"},
    "card": {"errors", "files", "labels", "unet_config"},
    "lesion_masks": {"errors", "grid", "image", "volume"},
    "lesion_options": set(),
    "lesion_zones": {"labels", "lesion_masks", "lesion_options"},
    "lesion_report": {"lesion_masks", "lesion_options", "lesion_zones", "segmentation"},
    "lesion_correction": {"affines", "labels", "lesion_zones", "segmentation"},
    "lesion_finding": {"bids", "errors", "image"},
    "registration": {"grid", "image"},
}
OWNERS = {
    "bids": {"bids"},
    "nipype": {"workflow", "plugins"},
    "SimpleITK": {"bias", "registration"},
    "nibabel": {"formats", "affines", "image", "grid", "train.data"},
    "click": {"cli", "cli_options", "cli_training", "app"},
}


def modules() -> dict[str, Path]:
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


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
            if node.module == "bidsseg":  # its modules, and its version
                found |= {f"bidsseg.{alias.name}" for alias in node.names if alias.name != "__version__"}
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
    allowed = {"cli_training", "evaluate"}
    for name, path in modules().items():
        if not name.startswith("train") and name not in allowed:
            assert not any(i.startswith("bidsseg.train") for i in imports(path)), name


def test_a_run_starts_without_torch() -> None:
    """Its import takes longer than finding the scans; the workers need it, the process that leads them does not."""
    leading = "import sys, bidsseg.app, bidsseg.participants, bidsseg.workflow; sys.exit('torch' in sys.modules)"
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
