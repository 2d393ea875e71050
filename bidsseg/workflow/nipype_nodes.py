"""The workflows of nipype: which nodes a scan, a session's contrasts, sessions and lesions have, and what each runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from nipype.interfaces.utility import Function
from nipype.pipeline.engine import Node, Workflow

from bidsseg.workflow.jobs import Job, LesionJob, SessionsJob, Stage
from bidsseg.workflow.workers import MEMORY_GB, Resources

ROOT = "bidsseg"
FUSION_GB = 2.0
"More, for a scan whose probabilities are averaged with others'."


def together(workflows: Sequence[Workflow], how: Resources) -> Workflow:
    """One workflow that holds others."""
    workflow = Workflow(name=ROOT, base_dir=str(how.nodes))
    workflow.add_nodes(list(workflows))
    return workflow


def build_workflow(jobs: Sequence[Job], how: Resources) -> Workflow:
    """One workflow that holds one of three nodes for each scan, and one for the contrasts of each session to fuse."""
    sessions: dict[str, list[Job]] = {}
    for job in jobs:
        if job.partners:
            sessions.setdefault(fusion_name(job), []).append(job)
    asked = {scan: job.alone(scan) for session in sessions.values() for job in session for scan in job.sources}
    scans = {job.scan: scan_workflow(asked.get(job.scan, job), how) for job in jobs if not job.partners}
    scans |= {scan: scan_workflow(job, how, outputs=False) for scan, job in asked.items() if scan not in scans}
    workflow = together(list(scans.values()), how)
    for name, session in sessions.items():
        _add_session(workflow, name, session, scans, how)
    return workflow


def _add_session(
    workflow: Workflow, name: str, session: Sequence[Job], scans: Mapping[str, Workflow], how: Resources
) -> None:
    """Fuse the contrasts of a session: a node that has the answers to all of them, and one that writes for each job."""
    sources = list(dict.fromkeys(scan for job in session for scan in job.sources))
    answers = [f"answer{number}" for number in range(len(sources))]
    function = Function(input_names=["jobs", "scans", *answers], output_names=["out"], function=_fusion)
    fusion = Node(function, name=Stage.FUSION.value, **_share(how, FUSION_GB))
    fusion.inputs.jobs = [asdict(job) for job in session]
    fusion.inputs.scans = sources
    fusing = Workflow(name=name)
    fusing.add_nodes([fusion])
    for scan, answer in zip(sources, answers, strict=True):
        workflow.connect(scans[scan], "segmentation.out", fusing, f"fusion.{answer}")
    for job in session:
        outputs = _outputs_node(job, _fused_outputs, how)
        fused = Workflow(name=workflow_name(job))
        fused.add_nodes([outputs])
        workflow.connect(scans[job.scan], "n4.out", fused, "outputs.corrected")
        workflow.connect(fusing, "fusion.out", fused, "outputs.fused")
        if scans[job.scan].get_node(Stage.OUTPUTS.value):
            workflow.connect(scans[job.scan], "outputs.out", fused, "outputs.alone")


def workflow_name(job: Job) -> str:
    return re.sub(r"\W", "_", job.outputs.scan.stem)


def fusion_name(job: Job) -> str:
    """The name of what fuses the contrasts of a job's session."""
    scan = job.outputs.scan
    return re.sub(r"\W", "_", f"fusion_{scan.subject}_{scan.session}")


def stems_of(job: Job) -> dict[str, str]:
    """The workflows that a job's results come from, its own first, and the scan that each is about."""
    own = {workflow_name(job): job.outputs.scan.stem}
    if not job.partners:
        return own
    sources = [job.alone(scan) for scan in job.sources]
    alone = {workflow_name(source): source.outputs.scan.stem for source in sources}
    return {**own, fusion_name(job): job.outputs.scan.stem, **alone}


def parts_of(job: Job) -> tuple[str, ...]:
    """The names of the workflows that a job's results come from, its own first."""
    return tuple(stems_of(job))


def scan_workflow(job: Job, how: Resources, outputs: bool = True) -> Workflow:
    """Bias field correction, segmentation, and outputs; these are written whatever nipype finds in its cache."""
    n4, segmentation = (
        Node(Function(function=function, output_names=["out"]), name=stage.value, **_share(how))
        for stage, function in ((Stage.BIAS, _n4), (Stage.SEGMENTATION, _segmentation))
    )
    for node in (n4, segmentation):
        node.inputs.job = asdict(job)
    n4.inputs.stamp = job.stamp
    segmentation.inputs.use_gpu = how.gpus > 0  # nipype knows nodes for the GPU by the name of this input
    workflow = Workflow(name=workflow_name(job))
    workflow.connect(n4, "out", segmentation, "corrected")
    if outputs:
        written = _outputs_node(job, _outputs, how)
        workflow.connect(n4, "out", written, "corrected")
        workflow.connect(segmentation, "out", written, "segmentation")
    return workflow


def _outputs_node(job: Job, function: Callable[..., str], how: Resources) -> Node:
    node = Node(Function(function=function, output_names=["out"]), name=Stage.OUTPUTS.value, **_share(how))
    node.inputs.job = asdict(job)
    node.overwrite = True
    return node


def _share(how: Resources, more_gb: float = 0.0) -> dict[str, float]:
    """CPUs and memory of a node."""
    memory_gb = how.scan_gb + more_gb
    return {"n_procs": how.threads, "mem_gb": min(memory_gb, how.memory_gb or memory_gb)}


def sessions_name(job: SessionsJob) -> str:
    return re.sub(r"\W", "_", f"sessions_{job.name}")


def sessions_workflow(job: SessionsJob, how: Resources) -> Workflow:
    """The sessions of one participant in one contrast, in one node: each needs the answers to all others."""
    function = Function(input_names=["job", "use_gpu"], output_names=["out"], function=_sessions)
    node = Node(function, name=Stage.SESSIONS.value, **_share(how, FUSION_GB))
    node.inputs.job = asdict(job)
    node.inputs.use_gpu = how.gpus > 0
    node.overwrite = True
    workflow = Workflow(name=sessions_name(job))
    workflow.add_nodes([node])
    return workflow


def lesions_name(job: LesionJob) -> str:
    return f"lesions_{job.subject}"


def lesion_workflow(job: LesionJob, how: Resources) -> Workflow:
    """The lesions of one participant, in one node: its sessions are compared."""
    share = {"n_procs": how.threads, "mem_gb": min(MEMORY_GB, how.memory_gb or MEMORY_GB)}
    node = Node(Function(function=_lesions, output_names=["out"]), name=Stage.LESIONS.value, **share)
    node.inputs.job = asdict(job)
    node.overwrite = True
    workflow = Workflow(name=lesions_name(job))
    workflow.add_nodes([node])
    return workflow


# nipype runs the source of these functions elsewhere, so each imports what it needs.


def _lesions(job: dict) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.lesion_stages import describe_participant

        return describe_participant(job)


def _sessions(job: dict, use_gpu: bool) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.session_stages import segment_sessions

        return segment_sessions(job, Path.cwd().parent / "answers")  # nipype empties the node's own folder


def _n4(job: dict, stamp: list) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import bias_stage

        return bias_stage(job, Path.cwd())


def _segmentation(job: dict, corrected: str, use_gpu: bool) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import segmentation_stage

        return segmentation_stage(job, corrected, Path.cwd())


def _outputs(job: dict, corrected: str, segmentation: str) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import output_stage

        return output_stage(job, corrected, segmentation)


def _fusion(jobs: list, scans: list, **answers: str) -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import fuse_session

        by_scan = {scan: answers[f"answer{number}"] for number, scan in enumerate(scans)}
        return fuse_session(jobs, by_scan, Path.cwd())


def _fused_outputs(job: dict, corrected: str, fused: str, alone: str = "") -> str:  # type: ignore[type-arg]
    from pathlib import Path

    from bidsseg.workflow.failures import recorded

    with recorded(Path.cwd()):
        from bidsseg.workflow.scan_stages import fused_output_stage

        return fused_output_stage(job, corrected, fused)
