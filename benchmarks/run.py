"""Time and memory of one scan, stage by stage, and of a plain U-Net at 1 mm on the same volume.

    python benchmarks/run.py [SCAN] [--clinical DATA] [--threads 2] [--device cpu] [--without-plain] [--two]
        [--fuse ANAT] [--lesions]

Without SCAN, the MNI152 T1 that nilearn ships. ``--clinical`` adds a patient's FLAIR of 19 thick slices, which
``bidsseg participant`` is to label within 12 s on two idle cores; DATA is the folder that docs/training.md describes.
``--fuse`` adds the scans of one session, which ``bidsseg participant --fuse`` is to label within 1.3 times what
it takes without; ANAT is a session's folder with one NIfTI file per contrast, named by BIDS, for instance a FLAIR and
a T1w.
``--lesions`` adds what the lesion network costs beside the one that labels regions, in CPU time, since it is short.
The plain network has the shape of SynthSeg's (Billot et al. 2023: five levels, 24 features that double at each level,
two convolutions a level, 33 labels) and random weights, which take the time and memory that trained ones take. Every
measurement is a process of its own, so that peaks of memory are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from bidsseg.workflow.threads import waiting

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

FEATURES, LEVELS, LABELS = 24, 5, 33
CLINICAL_SCAN = "ms-clinical-lesions/sub-09/anat/sub-09_FLAIR.nii.gz"
CLINICAL_SECONDS = 12.0
"What a participant with this scan alone is to take, with N4, gyri and report, on two idle cores."
FUSED_TIMES = 1.3
"How many times as long a session of two contrasts is to take with ``--fuse`` at most."
GIB = 1 << 30


class Used(NamedTuple):
    """What a command took, its processes together."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    "Of its largest process."


class Stages:
    """Seconds by stage, in the order in which they ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def report(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
        return {"seconds": self.seconds, "peak_gib": peak}


def ours(dataset: Path, out: Path, threads: int, device: str) -> dict[str, Any]:  # noqa: PLR0915, imports are timed
    """What a scan goes through in ``bidsseg participant``, and the network's share of memory."""
    run = Stages()
    with run.stage("imports"):
        from bidsseg import __version__
        from bidsseg.bids.names import parse_scan
        from bidsseg.bids.outputs import OutputSettings, ScanOutputs
        from bidsseg.bids.root_files import write_root
        from bidsseg.imaging.image import load
        from bidsseg.imaging.preparation import conformed, prepare
        from bidsseg.network.inference import PredictOptions
        from bidsseg.network.weights import load_model
        from bidsseg.quality.assessment import assess
        from bidsseg.quality.coverage import field_of_view
        from bidsseg.quality.expectation import calibration_from
        from bidsseg.quality.judgement import examine
        from bidsseg.report.participant import participant_report
        from bidsseg.segmentation.decision import decide_on_native_grid
        from bidsseg.segmentation.pipeline import answer_conformed
        from bidsseg.workflow.derivatives import ScanResult, write_scan
    outputs = ScanOutputs(parse_scan(next(dataset.glob("sub-*/anat/*.nii.gz"))), dataset, out)
    set_threads(threads)
    with run.stage("model"):
        model = load_model()
    with run.stage("read"):
        image = load(outputs.scan.path)
    with run.stage("N4"):
        corrected = prepare(image, True, threads)
    with run.stage("conform"):
        seen = conformed(corrected)
    with run.stage("forward"):
        options = PredictOptions(device, threads, gyri=True)
        found = answer_conformed(seen, model, options)
    with run.stage("restore"):
        native = decide_on_native_grid(found.probabilities, found.grid, gyri=True)
    with run.stage("evidence"):
        evidence = examine(found, model, options)
    del found  # as at the end of the step that segments
    judged = evidence, assess(evidence, field_of_view(image), calibration_from(model.card.quality))
    recipe = OutputSettings(__version__, model.card.name, model.card.sha256)
    with run.stage("write"):
        write_root(out, dataset, recipe, (outputs.scan.suffix,))
        write_scan(outputs, recipe, ScanResult(image, native, seen.volume, judged=judged), threads)
    with run.stage("report"):
        participant_report(out, outputs.scan.subject)
    return run.report()


def our_network(dataset: Path, threads: int, device: str) -> dict[str, Any]:
    """The forward pass alone, from a conformed volume to probabilities."""
    from bidsseg.network.inference import PredictOptions, infer
    from bidsseg.network.weights import load_model

    set_threads(threads)
    volume, model = head_of(dataset), load_model()
    run = Stages()
    with run.stage("forward"):
        infer(volume, model, PredictOptions(device, threads))
    return run.report()


def lesions_beside_regions(dataset: Path, threads: int) -> dict[str, Any]:
    """CPU seconds, the least of three runs, of labelling regions and of finding lesions in what that gives."""
    from bidsseg.imaging.image import load
    from bidsseg.network.inference import PredictOptions
    from bidsseg.network.lesion_model import load_lesion_model
    from bidsseg.network.weights import load_model
    from bidsseg.segmentation.lesion_probability import lesion_answer
    from bidsseg.segmentation.pipeline import answer

    set_threads(threads)
    image, model, of_lesions = load(next(dataset.glob("sub-*/anat/*.nii.gz"))), load_model(), load_lesion_model()
    taken: dict[str, list[float]] = {"regions": [], "lesions": []}
    for _ in range(3):
        start = time.process_time()
        found = answer(image, model, PredictOptions("cpu", threads))
        between = time.process_time()
        lesion_answer(found, of_lesions, "cpu")
        taken["regions"].append(between - start)
        taken["lesions"].append(time.process_time() - between)
    return {name: min(seconds) for name, seconds in taken.items()}


def half_precision(dataset: Path, threads: int) -> dict[str, Any]:
    """Share of voxels that bfloat16 gives another region than float32 does: of the brain's, and of the scan's."""
    import numpy as np

    from bidsseg.imaging.image import load
    from bidsseg.network import device, inference
    from bidsseg.network.weights import load_model
    from bidsseg.segmentation.pipeline import segment

    image, model = load(next(dataset.glob("sub-*/anat/*.nii.gz"))), load_model()
    answers = []
    for half in (True, False):
        device.cpu_has_bfloat16 = lambda half=half: half
        answers.append(segment(image, model, inference.PredictOptions("cpu", threads)).labels("regions"))
    changed = answers[0] != answers[1]
    return {"of_brain": float(changed[(answers[0] > 0) | (answers[1] > 0)].mean()), "of_scan": float(np.mean(changed))}


def plain_network(dataset: Path, threads: int, device: str) -> dict[str, Any]:
    """The plain network's forward pass on the same volume, from volume to probabilities; float32, as SynthSeg's."""
    import numpy as np
    import torch

    set_threads(threads)
    net, volume = plain_unet().to(device), head_of(dataset)
    multiple = 2 ** (LEVELS - 1)
    padded = np.pad(volume, [(0, -n % multiple) for n in volume.shape])
    run = Stages()
    with run.stage("forward"), torch.inference_mode():
        net(torch.from_numpy(padded)[None, None].to(device)).cpu()
    return run.report()


def plain_unet() -> nn.Module:
    """A U-Net of SynthSeg's shape: two convolutions with ELU and a batch norm a level, max pooling, nearest up."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [FEATURES * 2**level for level in range(LEVELS)]
            self.down = nn.ModuleList(block(i, o) for i, o in zip([1, *widths[:-1]], widths, strict=True))
            self.up = nn.ModuleList(block(i + o, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True))
            self.head = nn.Conv3d(FEATURES, LABELS, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skips = []
            for level, layers in enumerate(self.down):
                x = layers(x if level == 0 else F.max_pool3d(x, 2))
                skips.append(x)
            skips.pop()
            for layers in self.up:
                x = layers(torch.cat((F.interpolate(x, scale_factor=2.0), skips.pop()), 1))
            return torch.softmax(self.head(x), 1)

    def block(n_in: int, n_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv3d(n_in, n_out, 3, padding=1),
            nn.ELU(inplace=True),
            nn.Conv3d(n_out, n_out, 3, padding=1),
            nn.ELU(inplace=True),
            nn.BatchNorm3d(n_out),
        )

    return UNet().eval()


def head_of(dataset: Path) -> NDArray[np.float32]:
    """The scan at 1 mm, cropped to the head: what both networks get."""
    from bidsseg.imaging.arrays import box_around
    from bidsseg.imaging.grey import normalise
    from bidsseg.imaging.grid import conform
    from bidsseg.imaging.image import load
    from bidsseg.network.looks import HEAD_THRESHOLD

    volume = normalise(conform(load(next(dataset.glob("sub-*/anat/*.nii.gz"))))[0])
    cropped: NDArray[np.float32] = volume[box_around(volume > HEAD_THRESHOLD)]
    return cropped


def set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def measure(name: str, arguments: argparse.Namespace, dataset: Path, out: Path) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--threads", str(arguments.threads), "--device"]
    as_the_programs = {**os.environ, **waiting()}
    command += [arguments.device, str(dataset), str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=as_the_programs)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def used_by(command: list[str], output: int | IO[bytes] = subprocess.DEVNULL) -> Used:
    """Run a command; ``output`` gets what it prints, errors included."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Used(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / GIB)


def make_dataset(folder: Path, scan: Path | None) -> Path:
    """One participant's scan: a FLAIR if it is named so, else a T1w."""
    from bidsseg.cli.demo import make_dataset as demo

    demo(folder)
    first = folder / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    (folder / "sub-02" / "anat" / "sub-02_T1w.nii.gz").unlink()
    if scan is not None:
        first.unlink()
        first = first.with_name(f"sub-01_{'FLAIR' if '_FLAIR' in scan.name else 'T1w'}.nii.gz")
        first.symlink_to(scan.resolve())
    return first


def bidsseg(dataset: Path, out: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "bidsseg.cli.bids_app",
        str(dataset),
        str(out),
        "participant",
        "--overwrite",
        *options,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", nargs="?", type=Path, help="NIfTI, .nii.gz")
    parser.add_argument("--clinical", type=Path, metavar="DATA", help="Also a patient's FLAIR of thick slices.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--without-plain", action="store_true", help="Leave out the plain network.")
    parser.add_argument("--two", action="store_true", help="Also time two scans after one another and at once.")
    parser.add_argument(
        "--fuse", type=one_scan_per_contrast, metavar="ANAT", help="Also time a session's contrasts with --fuse."
    )
    parser.add_argument("--lesions", action="store_true", help="Also time the lesion network.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    if "--child" in sys.argv:
        parser.add_argument("out", type=Path)
        child(parser.parse_args())
        return
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        benchmark(arguments, Path(folder))


def child(arguments: argparse.Namespace) -> None:
    given = arguments.scan, arguments.threads, arguments.device
    if arguments.child == "ours":
        print(json.dumps(ours(given[0], arguments.out, *given[1:])))
    elif arguments.child == "half":
        print(json.dumps(half_precision(*given[:2])))
    elif arguments.child == "lesions":
        print(json.dumps(lesions_beside_regions(*given[:2])))
    else:
        print(json.dumps({"our": our_network, "plain": plain_network}[arguments.child](*given)))


def benchmark(arguments: argparse.Namespace, folder: Path) -> None:
    """Print everything, slowest last."""
    dataset, out = folder / "data", folder / "out"
    scan = make_dataset(dataset, arguments.scan)
    one_scan(str(arguments.scan or "MNI152 T1"), arguments, dataset, out)
    if arguments.clinical:
        make_dataset(folder / "clinical", arguments.clinical / CLINICAL_SCAN)
        seconds = one_scan(CLINICAL_SCAN, arguments, folder / "clinical", folder / "clinical-out")
        done = "yes" if seconds <= CLINICAL_SECONDS else "no"
        print(f"  done within {CLINICAL_SECONDS:.0f} s: {done}", flush=True)
    if arguments.two:
        two_scans(dataset, out, scan)
    if arguments.fuse:
        fused_session(arguments, folder / "session", folder / "session-out")
    changed = measure("half", arguments, dataset, out)
    print(f"bfloat16 on the CPU changes the region of {changed['of_scan']:.3%} of the scan's voxels, ", end="")
    print(f"{changed['of_brain']:.3%} of the brain's", flush=True)
    if not arguments.without_plain:
        compare(arguments, dataset, out)


def one_scan(name: str, arguments: argparse.Namespace, dataset: Path, out: Path) -> float:
    """Print the stages of a dataset's only scan, and both commands; returns the seconds of ``bidsseg participant``."""
    print(f"{name}: {' x '.join(map(str, head_of(dataset).shape))} mm head, ", end="")
    print(f"{arguments.threads} threads, {arguments.device}")
    stages = measure("ours", arguments, dataset, out)
    for stage, seconds in stages["seconds"].items():
        print(f"  {stage:<12}{seconds:8.2f} s")
    print(f"  {'in all':<12}{sum(stages['seconds'].values()):8.2f} s, peak {stages['peak_gib']:.2f} GiB", flush=True)
    threads, scan = str(arguments.threads), str(next(dataset.glob("sub-*/anat/*.nii.gz")))
    labels = str(dataset.with_name(f"{dataset.name}-labels.nii.gz"))
    predict = [sys.executable, "-m", "bidsseg.cli.main", "predict", scan, "-o", labels]
    seconds, _, peak = used_by([*predict, "--threads", threads, "--device", arguments.device])
    print(f"brainseg-cli predict: {seconds:.2f} s, peak {peak:.2f} GiB", flush=True)
    options = ("--omp-nthreads", threads, "--nprocs", threads, "--device", arguments.device)
    seconds, _, peak = used_by(bidsseg(dataset, out, *options))
    print(f"bidsseg participant, one scan: {seconds:.2f} s, peak of its largest process {peak:.2f} GiB", flush=True)
    if arguments.lesions:
        cost = measure("lesions", arguments, dataset, out)
        print(f"regions: {cost['regions']:.2f} s of CPU; lesions: {cost['lesions']:.2f} s", end="")
        print(f", {cost['lesions'] / cost['regions']:.1%} of it", flush=True)
    return seconds


def two_scans(dataset: Path, out: Path, scan: Path) -> None:
    """One CPU each, after one another and side by side."""
    second = dataset / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    second.symlink_to(scan.resolve())
    after, beside = (used_by(bidsseg(dataset, out, "--omp-nthreads", "1", "--nprocs", n)).seconds for n in ("1", "2"))
    second.unlink()
    print(
        f"two scans, one CPU each: {after:.2f} s after one another, {beside:.2f} s at once: {after / beside:.2f} times"
    )


def one_scan_per_contrast(folder: str) -> dict[str, Path]:
    """The scans of a session's folder by contrast, for instance T1w."""
    scans: dict[str, Path] = {}
    for scan in sorted(Path(folder).resolve().glob("*.nii.gz")):
        contrast = scan.name.split(".")[0].rpartition("_")[2]
        if contrast in scans:
            names = " and ".join(sorted((scans[contrast].name, scan.name)))
            raise argparse.ArgumentTypeError(f"{folder}: one scan per contrast is fused, and it has {names}")
        scans[contrast] = scan
    if len(scans) < 2:
        raise argparse.ArgumentTypeError(f"{folder}: has no two scans (*_<contrast>.nii.gz) to fuse")
    return scans


def fused_session(arguments: argparse.Namespace, dataset: Path, out: Path) -> None:
    """A session's contrasts without ``--fuse`` and, one run after the other, with it."""
    make_dataset(dataset, None).unlink()
    for contrast, scan in arguments.fuse.items():
        (dataset / "sub-01" / "anat" / f"sub-01_{contrast}.nii.gz").symlink_to(scan)
    threads = str(arguments.threads)
    options = ("--omp-nthreads", threads, "--nprocs", threads, "--device", arguments.device)
    alone, fused = (used_by(bidsseg(dataset, out, *options, *more)) for more in ((), ("--fuse",)))
    for name, used in (("without", alone), ("with", fused)):
        print(f"a session {name} --fuse: {used.seconds:.2f} s, {used.cpu_seconds:.2f} s of CPU, ", end="")
        print(f"peak of its largest process {used.peak_gib:.2f} GiB")
    times = fused.seconds / alone.seconds
    print(f"  {times:.2f} times as long, {fused.cpu_seconds / alone.cpu_seconds:.2f} times the CPU; ", end="")
    print(f"within {FUSED_TIMES} times as long: {'yes' if times <= FUSED_TIMES else 'no'}", flush=True)


def compare(arguments: argparse.Namespace, dataset: Path, out: Path) -> None:
    """The two networks on one volume, one run after the other."""
    our, plain = (measure(name, arguments, dataset, out) for name in ("our", "plain"))
    for name, result in (("our network", our), ("plain U-Net", plain)):
        print(f"{name}: {result['seconds']['forward']:.2f} s, peak {result['peak_gib']:.2f} GiB")
    faster = plain["seconds"]["forward"] / our["seconds"]["forward"]
    print(f"ours: {faster:.1f} times as fast, {our['peak_gib'] / plain['peak_gib']:.2f} of the memory")


if __name__ == "__main__":
    main()
