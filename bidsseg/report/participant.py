"""The web page of one participant, written from the derivatives on disk alone.

Self-contained: viewer, scans, pictures and tables are in the one file, which loads nothing and stays under 15 MB.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from bidsseg import __version__
from bidsseg.bids.outputs import (
    ParticipantOutputs,
    ScanOutputs,
    failure_beside,
    finished_scans,
    methods_file,
)
from bidsseg.errors import FileError, failure_from
from bidsseg.files import json_content, read_json
from bidsseg.imaging.image import Image, load
from bidsseg.labels import SCHEMES, Scheme, label_table
from bidsseg.quality.verdicts import TITLES, judged, verdict_of
from bidsseg.report.charts import Chart, label_title, read_charts
from bidsseg.report.html import NIIVUE, packed, write_page
from bidsseg.report.lesion_layer import lesion_layer
from bidsseg.report.lesions import SessionLesions, read_lesions
from bidsseg.report.time_charts import read_time_charts
from bidsseg.report.viewer import ViewerVolumes, embed

PAGE_BYTES = 14_500_000
MARGIN_BYTES = 600_000
"Left for tables and text."
PICTURE_SHARE = 0.3
"Share of the page that pictures may take, of what the viewer's own code leaves."
LESION_PICTURE_SHARE = 0.15
"The same share for pictures of lesions."
PICTURE_QUALITIES = ((1900, 82), (1500, 78), (1100, 72), (800, 65))
"(width in pixels, JPEG quality), best first."
PROVENANCE = ("SoftwareVersion", "Model", "WeightsSHA256", "BiasFieldCorrection", "Sources")
MEASURES = {
    "ExpectedDice": ("Expected Dice", "With a manual outline, mean over the regions"),
    "ReachableDice": ("Reachable Dice", "What scans of this kind reach: its slices, contrast and field of view"),
    "LayoutDistanceMm": ("Displacement, mm", "How far regions lie from their usual places relative to each other"),
    "WhiteMatterUnevenness": (
        "Unevenness",
        "White matter's variation over a few mm, of the brain's grey values 0-1; large under ghosts of movement",
    ),
    "ContrastAgreement": ("Agreement", "Mean Dice with the session's answers from other contrasts"),
    "IntracranialVolumeMm3": ("Intracranial volume", "Brain and the fluid around it"),
    "BrainParenchymalFraction": (
        "Brain parenchymal fraction",
        "Brain without ventricles and other fluid, over the intracranial volume",
    ),
    "MeanConfidence": ("Mean confidence", "Mean probability of the chosen labels; 1 is certain"),
    "CerebralAsymmetry": ("Asymmetry", "Left less right cerebrum, over both"),
    "EdgeFraction": ("Cut by the edge", "Largest share of brain on a face of the field of view"),
}


@dataclass(frozen=True)
class Measure:
    """One number of the quality file."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """What the page shows of one scan."""

    outputs: ScanOutputs
    quality: Mapping[str, Any]
    charts: list[Chart]
    problems: list[str]
    "Outputs that could not be read."

    @property
    def anchor(self) -> str:
        return self.outputs.anchor

    @property
    def title(self) -> str:
        """Session, contrast, and the other entities."""
        entities = {key: value for key, value in self.outputs.scan.entities if key not in ("sub", "ses")}
        session = f"Session {self.outputs.scan.session}" if self.outputs.scan.session else ""
        others = (f"{key}-{value}" for key, value in entities.items())
        return " · ".join(part for part in (session, self.outputs.scan.suffix, *others) if part)

    @property
    def verdict(self) -> str | None:
        return verdict_of(self.quality) or None

    @property
    def notes(self) -> list[str]:
        """Reasons of the verdict, warnings, and what could not be read."""
        given = [line for key in ("Reasons", "Warnings") for line in as_list(self.quality.get(key))]
        return list(dict.fromkeys([*map(str, given), *self.problems]))

    @property
    def measures(self) -> list[Measure]:
        numbers = {
            name: value
            for name, value in self.quality.items()
            if name != "SourceBytes" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        return [measure(name, value) for name, value in numbers.items()]

    def schemes(self) -> list[Scheme]:
        """Those with a label image on the scan's own grid."""
        return [scheme for scheme in SCHEMES if self.outputs.labels(scheme).exists()]

    @property
    def figures(self) -> list[tuple[str, str]]:
        """(scheme, path from the page) of the pictures on disk."""
        paths = ((scheme, self.outputs.figure(scheme)) for scheme in SCHEMES)
        return [(scheme, path.relative_to(self.outputs.out).as_posix()) for scheme, path in paths if path.exists()]


@dataclass(frozen=True)
class Failure:
    """A scan that could not be segmented."""

    scan: str
    reason: str
    log: str


def participant_report(out_dir: Path, subject: str) -> Path:
    """Write OUT/sub-<subject>.html, whole or not at all, from the participant's derivatives; returns its path."""
    subject = subject.removeprefix("sub-")
    sections = [section(outputs) for outputs in finished_scans(out_dir, subject)]
    path = ParticipantOutputs(out_dir, subject).report
    room = PAGE_BYTES - MARGIN_BYTES - len(packed(NIIVUE))
    pictures = {s.anchor: picture(s, int(room * PICTURE_SHARE / len(sections))) for s in sections}
    lesions = read_lesions(out_dir, subject, dict.fromkeys(s.outputs.scan.session or "" for s in sections))
    pictures |= lesion_pictures(out_dir, lesions.sessions, int(room * LESION_PICTURE_SHARE))
    room -= sum(len(text) for text in pictures.values())
    volumes = [viewer_data(s, room // len(sections)) for s in sections]
    write_page(
        path,
        "report.html",
        subject=subject,
        version=__version__,
        sections=sections,
        pictures=pictures,
        volumes=[found for found in volumes if found],
        time_charts=read_time_charts(ParticipantOutputs(out_dir, subject).volumes_over_time),
        lesions=lesions,
        layers={found["data"]["lesions"]["base"] for found in volumes if found and "lesions" in found["data"]},
        failures=failures(out_dir, subject),
        methods=methods(out_dir),
        provenance=PROVENANCE,
        verdicts=TITLES,
        niivue=packed(NIIVUE) if any(volumes) else "",
    )
    return path


def section(outputs: ScanOutputs) -> Section:
    """Read a scan's quality and volumes; the page names what cannot be read."""
    problems: list[str] = []
    quality: Mapping[str, Any] = {}
    charts: list[Chart] = []
    try:
        quality = judged(as_mapping(json_content(outputs.quality)), read_json(outputs.agreement))
    except (OSError, ValueError) as error:
        problems.append(f"{outputs.quality.name} could not be read ({error})")
    try:
        charts = read_charts(outputs.volumes, float(quality.get("IntracranialVolumeMm3", 0)) / 1000)
    except (OSError, ValueError, KeyError) as error:
        problems.append(f"{outputs.volumes.name} could not be read ({error})")
    return Section(outputs, quality, charts, problems)


def as_mapping(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def as_list(content: Any) -> list[Any]:
    return content if isinstance(content, list) else []


def measure(name: str, value: float) -> Measure:
    """A number of the quality file in words a reader knows."""
    title, meaning = MEASURES.get(name, (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name), ""))
    if name.endswith("VolumeMm3"):
        return Measure(title, f"{value / 1000:,.0f} mL", meaning)
    if name in ("CerebralAsymmetry", "EdgeFraction"):
        return Measure(title, f"{round(100 * value, 1) + 0.0:.1f} %", meaning)  # -0.0 + 0.0 is 0.0
    return Measure(title, str(value) if isinstance(value, int) else f"{value:#.3g}".rstrip("."), meaning)


def picture(scan: Section, max_bytes: int) -> str:
    """The first picture of a scan as a JPEG data URI that fits; empty where there is none."""
    return jpeg(scan.outputs.out / scan.figures[0][1], max_bytes) if scan.figures else ""


def lesion_pictures(out_dir: Path, sessions: Sequence[SessionLesions], max_bytes: int) -> dict[str, str]:
    """The pictures of lesions by their paths, as JPEG data URIs that fit together."""
    paths = [session.figure for session in sessions if session.figure]
    return {path: jpeg(out_dir / path, max_bytes // len(paths)) for path in paths}


def jpeg(path: Path, max_bytes: int) -> str:
    """A picture as a JPEG data URI that fits; empty where it cannot be read or made small enough."""
    try:
        with Pillow.open(path) as stored:
            full = stored.convert("RGB")
    except OSError:
        return ""
    for width, quality in PICTURE_QUALITIES:
        buffer = io.BytesIO()
        size = (min(width, full.width), max(1, round(full.height * min(1, width / full.width))))
        full.resize(size, Pillow.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality, optimize=True)
        text = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        if len(text) <= max_bytes:
            return text
    return ""


def viewer_data(scan: Section, max_bytes: int) -> dict[str, Any] | None:
    """What the viewer shows of a scan; None, and a line among its problems, where that is not possible."""
    try:
        labels: dict[str, Image] = {scheme: load(scan.outputs.labels(scheme)) for scheme in scan.schemes()}
        if not labels:
            return None
        layer = lesion_layer(scan.outputs, next(iter(labels.values())))
        embedded = embed(load(scan.outputs.preprocessed), {**labels, **layer.codes}, max_bytes, layer.probability)
    except (FileError, ValueError) as error:
        scan.problems.append(f"not in the viewer: {error}")
        return None
    if embedded is None:
        scan.problems.append("not in the viewer: too many scans for one page")
        return None
    data = script_data(scan, embedded)
    if layer.about:
        data["lesions"] = layer.about
    return {"anchor": scan.anchor, "title": scan.title, "embedded": embedded, "data": data}


def script_data(scan: Section, embedded: ViewerVolumes) -> dict[str, Any]:
    """Tables for the viewer's script."""
    volumes = {chart.scheme: {s.code: s for row in chart.structures for s in row.sides} for chart in scan.charts}
    schemes = {}
    for scheme in SCHEMES:
        if scheme not in embedded.codes:
            continue
        found = set(embedded.codes[scheme])
        sides = volumes.get(scheme, {})
        schemes[scheme] = [
            {
                "code": label.index,
                "name": label_title(label),
                "color": label.color,
                "ml": sides[label.index].volume_ml if label.index in sides else None,
                "confidence": sides[label.index].confidence if label.index in sides else None,
            }
            for label in label_table(scheme)
            if label.index in found
        ]
    return {"title": scan.title, "codes": embedded.codes, "schemes": schemes, "spacing_mm": embedded.spacing_mm}


def failures(out_dir: Path, subject: str) -> list[Failure]:
    """The participant's scans that failed, from the logs."""
    logs = ParticipantOutputs(out_dir, subject).logs()
    return [Failure(name, *reason_and_log(path)) for name, path in logs.items()]


def reason_and_log(path: Path) -> tuple[str, str]:
    """The failure in one line, and the end of the log."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"the log could not be read ({error})", ""
    failure = failure_from(read_json(failure_beside(path)))
    return (failure.error if failure else "see the log"), text[-20_000:]


def methods(out_dir: Path) -> list[str]:
    """The paragraphs of the methods text, without its headings."""
    try:
        text = methods_file(out_dir).read_text(encoding="utf-8")
    except OSError:
        return []
    return [block for line in text.split("\n") if (block := line.strip()) and not block.startswith("#")]
