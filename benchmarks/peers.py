"""Other tools beside this one: the same scans, the same labels, one table.

    python benchmarks/peers.py DATA WORK [--tools bidsseg samseg] [--scans sub-1015-1mm] [--threads 1] [--write]

DATA is the folder that docs/training.md describes. Each other tool is installed from PyPI, in the version named here,
into an environment of its own under WORK; it then labels the validation scans at 1 mm and in simulated slices of 5 mm,
and the FLAIR of a validation patient. WORK keeps the labels of every tool, and ``measured.tsv`` has one row for each
scan and tool: what was measured is not measured again, so the command may be stopped and go on later. A tool that
cannot be installed or fails is kept in the table with its reason.

Prints Dice of the labels that all tools have, and of all that each has, then seconds and memory, over the scans that
all tools labelled. ``--write`` puts this into docs/peers.md. ``peer_labels.tsv`` says which label of the other tools is
which structure.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from run import Used, used_by

from bidsseg import __version__
from bidsseg.evaluation.patients import MASKED, VENTRICLES, ventricle_dice
from bidsseg.evaluation.scores import AXES, Condition, dice_by_label, majority, reference_codes, simulate
from bidsseg.files import NA, read_tsv, table, write_text
from bidsseg.imaging.image import is_same_grid, read_geometry, save
from bidsseg.labels import LOBAR_TISSUES, MIDLINE_TISSUES, Codes, label_table, structures_of
from bidsseg.network.card import write_readme
from bidsseg.train.data import brain_folders
from bidsseg.train.held_out import case_in

Level = Literal["structures", "sides", "regions"]
LEVELS: tuple[Level, ...] = ("structures", "sides", "regions")
"From coarse to fine: tissues and nuclei, both sides together; with their side; cortex and white matter also by lobe."
SLICES_MM = (1, 5)
PATIENT = "sub-07"
"A validation patient."
SEVERAL = 5
"Atlases of joint label fusion: the first of the training brains; the first of these is the single atlas, too."
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "peers.md"
MARKS = ("<!-- peers -->", "<!-- /peers -->")
MEASURED = "measured"
TEXTS = ("tool", "scan", "version", "outcome", "reason")
COSTS = ("seconds", "cpu_seconds", "peak_gib")


@dataclass(frozen=True)
class Place:
    """What a label means; what it does not say is empty."""

    tissue: str
    hemisphere: str
    "L, R, or empty."
    lobe: str

    def name(self, level: Level) -> str:
        """For instance "L cortex frontal"; empty where the label does not say that much."""
        if level == "structures":
            return self.tissue
        if self.tissue not in MIDLINE_TISSUES and not self.hemisphere:
            return ""
        sided = f"{self.hemisphere} {self.tissue}".strip()
        if level == "sides" or self.tissue not in LOBAR_TISSUES:
            return sided
        return f"{sided} {self.lobe}" if self.lobe else ""


@dataclass(frozen=True)
class Scan:
    """One scan of the comparison."""

    name: str
    subject: str
    slice_mm: int
    "0 for a clinical scan as it comes."


@dataclass(frozen=True)
class Job:
    """What a tool needs to label a scan."""

    scan: Path
    contrast: str
    folder: Path
    "For what it writes."
    programs: Path
    "Of its environment."
    threads: int
    data: Path
    work: Path


@dataclass(frozen=True)
class Tool:
    """A tool, and how its documentation says that a scan is labelled."""

    name: str
    requirement: str
    "What pip installs; empty for this repository's own."
    python: str
    "Version of Python; empty for the one that runs this script."
    level: Level
    "The finest that its labels allow."
    output: str
    "Name of its labels in the folder of the job."
    command: Callable[[Job], list[str]]
    settings: str
    own_labels: bool = False
    "Whether its labels are those of the scheme *regions*."

    @property
    def version(self) -> str:
        return self.requirement or f"bidsseg=={__version__}"


@dataclass(frozen=True)
class Row:
    """What came of one tool on one scan."""

    tool: str
    scan: str
    version: str
    outcome: str
    "measured, not installed or failed."
    reason: str = ""
    seconds: float = float("nan")
    cpu_seconds: float = float("nan")
    peak_gib: float = float("nan")


def run_ours(job: Job) -> list[str]:
    out, threads = str(job.folder / "labels.nii.gz"), str(job.threads)
    return [sys.executable, "-m", "bidsseg.cli.main", "predict", str(job.scan), "-o", out, "--threads", threads]


def run_samseg(job: Job) -> list[str]:
    command = [str(job.programs / "run_samseg"), "-i", str(job.scan), "-o", str(job.folder)]
    flair = ["--pallidum-separate"] if job.contrast == "FLAIR" else []
    return [*command, "--threads", str(job.threads), *flair]


def run_ants(job: Job, atlases: int) -> list[str]:
    command = [str(job.programs / "python"), str(HERE / "peers_ants.py"), str(job.scan)]
    return [*command, str(job.folder / "labels.nii.gz"), *map(str, atlas_folders(job.data, job.work, atlases))]


def run_brainchop(job: Job) -> list[str]:
    command = [str(job.programs / "brainchop"), str(job.scan), "-m", "subcortical", "--inverse-conform"]
    return [*command, "--no-optimize", "-o", str(job.folder / "labels.nii.gz")]


ANTS = "antspyx==0.6.3"
TOOLS = (
    Tool("bidsseg", "", "", "regions", "labels.nii.gz", run_ours, "`brainseg-cli predict`, with N4", True),
    Tool(
        "samseg",
        "samseg==0.4a0",
        "3.10",
        "sides",
        "seg.mgz",
        run_samseg,
        "`run_samseg` with its own atlas; `--pallidum-separate` for FLAIR, as its help asks; without its lesion model",
    ),
    Tool(
        "ANTs, one atlas",
        ANTS,
        "",
        "regions",
        "labels.nii.gz",
        lambda job: run_ants(job, 1),
        '`ants.registration(type_of_transform="SyN")` of the first training brain, labels by `genericLabel`',
        True,
    ),
    Tool(
        f"ANTs, {SEVERAL} atlases",
        ANTS,
        "",
        "regions",
        "labels.nii.gz",
        lambda job: run_ants(job, SEVERAL),
        f"the same with the first {SEVERAL} training brains, then `ants.joint_label_fusion(usecor=True)`",
        True,
    ),
    Tool(
        "brainchop",
        "brainchop==0.2.5",
        "",
        "structures",
        "labels.nii.gz",
        run_brainchop,
        "`brainchop -m subcortical --inverse-conform`",
    ),
)


@cache
def places(tool: Tool) -> Mapping[int, Place]:
    """What each of a tool's labels means."""
    if tool.own_labels:
        tissues = structures_of("regions")
        labels = label_table("regions")
        return {one.index: Place(tissues[one.index], one.hemisphere, one.mapping) for one in labels}
    rows = [row for row in read_tsv(HERE / "peer_labels.tsv") if row["tool"] == tool.name]
    return {int(row["index"]): Place(row["tissue"], row["hemisphere"], "") for row in rows}


def names_of(tool: Tool, level: Level) -> set[str]:
    """What a tool can be scored on; fluid outside the ventricles was not outlined by hand."""
    return {place.name(level) for place in places(tool).values()} - {"", "csf"}


def common(tools: Sequence[Tool]) -> tuple[Level, list[str]]:
    """The finest level that all tools have, and the names that all have there, in order."""
    level = LEVELS[min(LEVELS.index(tool.level) for tool in tools)]
    return level, sorted(set.intersection(*(names_of(tool, level) for tool in tools)))


def merged(codes: NDArray[np.integer], tool: Tool, level: Level, names: Sequence[str]) -> Codes:
    """A tool's labels, numbered from 1 in the order of ``names``; all others 0."""
    lookup = np.zeros(max(int(codes.max()), *places(tool)) + 1, np.uint16)
    for code, place in places(tool).items():
        if place.name(level) in names:
            lookup[code] = 1 + names.index(place.name(level))
    found: Codes = lookup[codes]
    return found


def dice_by_name(
    reference: Codes, found: NDArray[np.integer], tool: Tool, level: Level, names: Sequence[str]
) -> dict[str, float]:
    """Dice of each name that the reference, in the scheme *regions*, has."""
    pair = merged(reference, TOOLS[0], level, names), merged(found, tool, level, names)
    return {names[code - 1]: dice for code, dice in dice_by_label(*pair).items()}


def all_scans(data: Path) -> list[Scan]:
    """The clinical scan, then brain by brain, thick slices first, which take the least time."""
    subjects = [folder.name for folder in brain_folders(data, validation=True)]
    slices = [Scan(f"{name}-{mm}mm", name, mm) for name in subjects for mm in sorted(SLICES_MM, reverse=True)]
    return [Scan(f"{PATIENT}-FLAIR", PATIENT, 0), *slices]


def scan_path(scan: Scan, data: Path, work: Path) -> Path:
    """The scan's file; simulated slices and their manual labels are written once."""
    if not scan.slice_mm:
        return data / MASKED / scan.subject / "anat" / f"{scan.subject}_FLAIR.nii.gz"
    path = work / "scans" / f"{scan.name}_T1w.nii.gz"
    if not path.exists():
        case, condition = case_in(data / "miccai2012-train" / scan.subject), Condition(scan.slice_mm)
        image, matrix = simulate(case, condition)
        reference = majority(reference_codes(case.anatomy, "regions"), matrix, AXES[condition.axis])
        save(truth_path(scan, work), reference, image.affine)
        save(path, image.data, image.affine)
    return path


def truth_path(scan: Scan, work: Path) -> Path:
    return work / "scans" / f"{scan.name}_labels.nii.gz"


def atlas_folders(data: Path, work: Path, atlases: int) -> list[Path]:
    """The first training brains and their labels in the scheme *regions*."""
    made = []
    for folder in brain_folders(data, validation=False)[:atlases]:
        atlas = work / "atlases" / folder.name
        if not (atlas / "T1w.nii.gz").exists():
            case = case_in(folder)
            save(atlas / "labels.nii.gz", reference_codes(case.anatomy, "regions"), case.image.affine)
            save(atlas / "T1w.nii.gz", case.image.data, case.image.affine)
        made.append(atlas)
    return made


def last_line(text: str) -> str:
    """Where programs say what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return textwrap.shorten(lines[-1].replace("|", "/"), 160, placeholder=" ...") if lines else "no message"


def environment(tool: Tool, work: Path) -> Path:
    """The programs of the tool's environment, which is made where it is not there; raises ``OSError`` with a reason."""
    if not tool.requirement:
        return Path(sys.executable).parent
    folder = work / "environments" / tool.requirement
    if (folder / "made").exists():
        return folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    python = f"python{tool.python}" if tool.python else sys.executable
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    for command in ([python, "-m", "venv", str(folder)], [*install, tool.requirement]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(last_line(done.stderr))
    (folder / "made").touch()
    return folder / "bin"


def job_folder(tool: Tool, scan: Scan, work: Path) -> Path:
    return work / "labels" / scan.name / tool.name.replace(", ", "-").replace(" ", "-")


def attempt(tool: Tool, scan: Scan, data: Path, work: Path, threads: int) -> Row:
    """Install the tool where needed and label the scan."""
    try:
        programs = environment(tool, work)
    except OSError as error:
        return Row(tool.name, scan.name, tool.version, "not installed", str(error))
    folder, path = job_folder(tool, scan, work), scan_path(scan, data, work)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contrast = path.name.split(".")[0].rpartition("_")[2]
    command = tool.command(Job(path, contrast, folder, programs, threads, data, work))
    try:
        with (folder / "log.txt").open("wb") as log:
            used: Used = used_by(command, log)
        labels_of(tool, scan, data, work)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        reason = last_line(said) if isinstance(error, subprocess.CalledProcessError) else str(error)
        return Row(tool.name, scan.name, tool.version, "failed", reason)
    return Row(tool.name, scan.name, tool.version, MEASURED, "", *used)


def labels_of(tool: Tool, scan: Scan, data: Path, work: Path) -> NDArray[np.int64]:
    """A tool's own labels on the scan's grid; raises ``OSError`` without them, ``ValueError`` on another grid."""
    image = nib.load(job_folder(tool, scan, work) / tool.output)
    grid = read_geometry(scan_path(scan, data, work))
    if grid is None or not is_same_grid((image.shape, image.affine), grid):
        raise ValueError(f"labels of shape {image.shape} are not on the grid of the scan")
    return np.asarray(image.dataobj).astype(np.int64)


def read_rows(path: Path) -> list[Row]:
    """The rows of ``measured.tsv``; none where it is not there."""
    return [
        Row(
            row["tool"],
            row["scan"],
            row["version"],
            row["outcome"],
            "" if row["reason"] == NA else row["reason"],
            *(float("nan" if row[name] == NA else row[name]) for name in COSTS),
        )
        for row in (read_tsv(path) if path.exists() else [])
    ]


@dataclass(frozen=True)
class Results:
    """All rows, and how to get at the labels behind them."""

    rows: tuple[Row, ...]
    data: Path
    work: Path

    def row(self, tool: Tool, scan: Scan) -> Row | None:
        """The measurement of this version of the tool; none where its labels are no longer there."""
        wanted = (tool.name, scan.name, tool.version, MEASURED)
        if not (job_folder(tool, scan, self.work) / tool.output).exists():
            return None
        return next((row for row in self.rows if (row.tool, row.scan, row.version, row.outcome) == wanted), None)

    def tools(self) -> list[Tool]:
        """Those that labelled at least one scan."""
        return [tool for tool in TOOLS if any(self.row(tool, scan) for scan in all_scans(self.data))]

    def scans(self, slice_mm: int) -> list[Scan]:
        """Those of this kind that all tools labelled which labelled one of this kind."""
        kind = [scan for scan in all_scans(self.data) if scan.slice_mm == slice_mm]
        tools = [tool for tool in TOOLS if any(self.row(tool, scan) for scan in kind)]
        return [scan for scan in kind if tools and all(self.row(tool, scan) for tool in tools)]

    def scans_of(self, tool: Tool, slice_mm: int) -> list[Scan]:
        """The same, none for a tool that labelled none of this kind."""
        return [scan for scan in self.scans(slice_mm) if self.row(tool, scan)]

    def dice(self, tool: Tool, slice_mm: int, level: Level, names: Sequence[str]) -> dict[str, float]:
        """Mean over the scans of each name that their manual labels have."""
        by_name: dict[str, list[float]] = {}
        for scan in self.scans_of(tool, slice_mm):
            reference = np.asarray(nib.load(truth_path(scan, self.work)).dataobj).astype(np.uint16)
            found = labels_of(tool, scan, self.data, self.work)
            for name, dice in dice_by_name(reference, found, tool, level, names).items():
                by_name.setdefault(name, []).append(dice)
        return {name: float(np.mean(values)) for name, values in by_name.items()}

    def ventricles(self, tool: Tool, scan: Scan) -> float:
        """Dice of the four ventricles together with the manual mask."""
        wanted = {structures_of("regions")[code] for code in VENTRICLES}
        codes = [code for code, place in places(tool).items() if place.tissue in wanted]
        found = np.isin(labels_of(tool, scan, self.data, self.work), codes)
        dice = ventricle_dice(self.data, scan_path(scan, self.data, self.work), found * np.uint16(VENTRICLES[0]))
        return float("nan") if dice is None else dice

    def mean_cost(self, tool: Tool, slice_mm: int, cost: str) -> float:
        rows = [self.row(tool, scan) for scan in self.scans_of(tool, slice_mm)]
        return float(np.mean([getattr(row, cost) for row in rows])) if rows else float("nan")


def measure(tools: Sequence[Tool], scans: Sequence[Scan], data: Path, work: Path, threads: int) -> None:
    """Add what is missing to ``measured.tsv``; what could not be measured is tried again."""
    path = work / "measured.tsv"
    for scan, tool in ((scan, tool) for scan in scans for tool in tools):
        if Results(tuple(read_rows(path)), data, work).row(tool, scan):
            continue
        row = attempt(tool, scan, data, work, threads)
        kept = [old for old in read_rows(path) if (old.tool, old.scan) != (tool.name, scan.name)]
        write_text(path, table((*TEXTS, *COSTS), [*map(astuple, kept), astuple(row)]))
        said = row.reason or f"{row.cpu_seconds:.0f} s of CPU"
        print(f"{scan.name}, {tool.name}: {row.outcome}, {said}", flush=True)


def cell(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracy_table(results: Results) -> str:
    """Mean Dice of all that the tools share, of all that each has, and of the ventricles of the patient."""
    tools = results.tools()
    level, shared = common(tools)
    kinds = [f"{mm} mm" for mm in SLICES_MM]
    head = ["tool", *(f"{len(shared)} shared, {kind}" for kind in kinds)]
    head += [*(f"all its own, {kind}" for kind in kinds), "ventricles, FLAIR"]
    rows = []
    for tool in tools:
        own = sorted(names_of(tool, tool.level))
        cells = [mean(results.dice(tool, mm, level, shared)) for mm in SLICES_MM]
        of_own = [results.dice(tool, mm, tool.level, own) for mm in SLICES_MM]
        cells += [f"{mean(dice)} (of {len(dice)})" if dice else "" for dice in of_own]
        rows.append(
            [tool.name, *cells, ", ".join(cell(results.ventricles(tool, s), 3) for s in results.scans_of(tool, 0))]
        )
    return markdown(head, rows)


def mean(dice: Mapping[str, float]) -> str:
    return cell(float(np.mean([*dice.values()])), 3) if dice else ""


def cost_table(results: Results) -> str:
    """Seconds and memory of a scan."""
    kinds = {"1 mm": 1, "5 mm": 5, "FLAIR": 0}
    head = ["tool", *(f"CPU s, {kind}" for kind in kinds), *(f"wall s, {kind}" for kind in kinds)]
    head += [f"GiB, {kind}" for kind in kinds]
    wanted = (("cpu_seconds", 0), ("seconds", 0), ("peak_gib", 1))
    return markdown(
        head,
        [
            [tool.name, *(cell(results.mean_cost(tool, mm, cost), n) for cost, n in wanted for mm in kinds.values())]
            for tool in results.tools()
        ],
    )


def structure_table(results: Results) -> str:
    """Dice of each shared structure, the mean of its sides."""
    tools = results.tools()
    level, shared = common(tools)
    by_tool = {(tool, mm): results.dice(tool, mm, level, shared) for tool in tools for mm in SLICES_MM}
    structures = list(dict.fromkeys(name.removeprefix("L ").removeprefix("R ") for name in shared))
    rows = []
    for structure in structures:
        sides = {f"L {structure}", f"R {structure}", structure}
        found = [[dice[name] for name in sides & dice.keys()] for dice in by_tool.values()]
        rows.append([structure, *(cell(float(np.mean(dice)), 2) if dice else "" for dice in found)])
    return markdown(["structure", *(f"{tool.name}, {mm} mm" for tool, mm in by_tool)], rows)


def settings_table(results: Results) -> str:
    """Versions, how each tool was run, and why some were not."""
    failures = {row.tool: f"{row.outcome}: `{row.reason}`" for row in results.rows if row.outcome != MEASURED}
    tools = results.tools()
    rows = [
        (
            tool.name,
            f"`{tool.version}`",
            tool.settings,
            MEASURED if tool in tools else failures.get(tool.name, "not measured yet"),
        )
        for tool in TOOLS
    ]
    return markdown(("tool", "version", "how it was run", "outcome"), rows)


def report(results: Results, threads: int) -> str:
    """All tables."""
    scans = [scan.name for mm in (*SLICES_MM, 0) for scan in results.scans(mm)]
    of_each = "one thread" if threads == 1 else f"{threads} threads"
    where = f"On {os.cpu_count()} CPU cores, each tool with {of_each}. Scans: {', '.join(scans)}."
    parts = (settings_table, accuracy_table, cost_table, structure_table) if results.tools() else (settings_table,)
    return "\n\n".join([where, *(part(results) for part in parts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tools", nargs="+", choices=[tool.name for tool in TOOLS], help="Default: all.")
    parser.add_argument("--scans", nargs="*", help="Default: all; none to print what is there.")
    parser.add_argument("--threads", type=int, default=1, help="of each tool, one tool after the other")
    parser.add_argument("--write", action="store_true", help="Put the tables into docs/peers.md.")
    args = parser.parse_args()
    data, work = args.data.resolve(), args.work.resolve()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[variable] = str(args.threads)
    tools = [tool for tool in TOOLS if args.tools is None or tool.name in args.tools]
    scans = [scan for scan in all_scans(data) if args.scans is None or scan.name in args.scans]
    measure(tools, scans, data, work, args.threads)
    text = report(Results(tuple(read_rows(work / "measured.tsv")), data, work), args.threads)
    print(text)
    if args.write:
        write_readme(PAGE, text, MARKS)


if __name__ == "__main__":
    main()
