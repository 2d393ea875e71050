"""``SegmentRegions``: the segmentation of one scan as a node of any nipype workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterface, BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from bidsseg.files import stem_of
from bidsseg.network.card import DEFAULT_MODEL
from bidsseg.network.weights import load_model
from bidsseg.quality.verdicts import verdict_of
from bidsseg.segmentation.defaults import BIAS_CORRECTION
from bidsseg.workflow.single_reading import SingleScanOptions
from bidsseg.workflow.single_scan import label_scan


class SegmentRegionsInputSpec(BaseInterfaceInputSpec):  # type: ignore[misc]
    """What ``SegmentRegions`` takes."""

    in_file = File(exists=True, mandatory=True, desc="The scan, NIfTI, of any contrast")
    out_file = File(desc="The label image, .nii or .nii.gz; default: <scan>_dseg.nii.gz in the node's folder")
    scheme = traits.Enum("regions", "lobes", "gyri", usedefault=True, desc="Division of the brain")
    mirror = traits.Bool(False, usedefault=True, desc="Also segment the mirror image and average the results")
    bias_correction = traits.Bool(BIAS_CORRECTION, usedefault=True, desc="N4 before the segmentation")
    picture = traits.Bool(True, usedefault=True, desc="Draw a mosaic of slices with the labels")
    model = traits.Str(DEFAULT_MODEL, usedefault=True, desc="Name of a packaged model, or a folder")
    device = traits.Str("auto", usedefault=True, nohash=True, desc="auto, cpu, cuda, cuda:N or mps")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="CPU threads; 0 uses all")


class SegmentRegionsOutputSpec(TraitedSpec):  # type: ignore[misc]
    """What ``SegmentRegions`` gives."""

    out_file = File(exists=True, desc="Labels on the scan's own grid")
    brain_mask = File(exists=True, desc="Brain and the cerebrospinal fluid around it")
    volumes = File(exists=True, desc="Volume of every label, TSV")
    quality = File(exists=True, desc="Verdict, reasons and measures, JSON")
    picture = File(desc="Mosaic of slices, PNG, where asked for")
    verdict = traits.Enum("pass", "check", "fail", desc="pass, check (look at the labels first) or fail")


class SegmentRegions(BaseInterface):  # type: ignore[misc]
    """Label the brain regions of one scan, on its own grid; what ``brainseg-cli predict`` does, as a nipype interface.

    Examples
    --------
    >>> from bidsseg.workflow import SegmentRegions
    >>> node = SegmentRegions(in_file="sub-02_T1w.nii.gz", scheme="lobes", num_threads=4)
    >>> found = node.run()  # doctest: +SKIP
    >>> found.outputs.out_file  # doctest: +SKIP
    '/.../sub-02_T1w_dseg.nii.gz'
    """

    input_spec = SegmentRegionsInputSpec
    output_spec = SegmentRegionsOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        given = self.inputs
        scan = Path(given.in_file)
        out_file = given.out_file if isdefined(given.out_file) else f"{stem_of(scan)}_dseg.nii.gz"
        options = SingleScanOptions(
            scheme=given.scheme,
            bias_correction=given.bias_correction,
            mirror=given.mirror,
            picture=given.picture,
            device=given.device,
            threads=given.num_threads,
        )
        target = Path(runtime.cwd, out_file)
        quality = label_scan(scan, target, load_model(given.model), options)
        mask, volumes, about, *picture, _ = map(str, options.files_of(target))
        self._results = {
            "out_file": str(target),
            "brain_mask": mask,
            "volumes": volumes,
            "quality": about,
            "verdict": verdict_of(quality),
            **({"picture": picture[0]} if picture else {}),
        }
        return runtime

    def _list_outputs(self) -> dict[str, Any]:
        return {**self.output_spec().get(), **self._results}
