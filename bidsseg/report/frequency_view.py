"""What the viewer of the group page needs: maps of lesion frequency over a grey picture of the template's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bidsseg.imaging.arrays import box_around
from bidsseg.labels import FLUID, TISSUES, Scheme, label_table
from bidsseg.report.charts import label_title
from bidsseg.report.html import NIIVUE, packed
from bidsseg.report.lesion_frequency import FrequencyMap
from bidsseg.report.viewer import as_text
from bidsseg.segmentation.mosaic import widened
from bidsseg.segmentation.template_labels import template
from bidsseg.spaces import TEMPLATE

WHITE = ("white-matter", "cerebellum-white-matter", "brainstem")
GREY_LEVELS = {"background": 0, **dict.fromkeys(FLUID, 40), **dict.fromkeys(WHITE, 190)}
OTHERS = 125
"Grey level of cortex and nuclei."
BLUR_MM, STEP = 0.7, 5
"Takes the steps from the edges of labels; few levels make the page small."
SCHEME: Scheme = "regions"


@dataclass(frozen=True)
class FrequencyView:
    """Volumes as base64 of gzipped NIfTI files on one grid: the box of the template's brain."""

    grey: str
    "uint8, the template's tissues as a T1w image shows them."
    labels: str
    "uint16, codes of regions."
    counts: list[str]
    "uint16 by map: participants with a lesion."
    data: dict[str, Any]
    niivue: str


def frequency_view(maps: Sequence[FrequencyMap]) -> FrequencyView | None:
    """The maps for the page; None where there are none."""
    if not maps:
        return None
    anatomy = template()
    spacing = np.abs(np.diag(anatomy.affine))[:3]
    box = widened(box_around(anatomy.brain_mask), anatomy.tissue.shape, spacing)
    affine = anatomy.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    shares = [int(one.counts.max()) / one.participants for one in maps]
    data = {
        "space": TEMPLATE,
        "maps": [
            {"title": one.title, "participants": one.participants, "highest": share, "file": one.path.name}
            for one, share in zip(maps, shares, strict=True)
        ],
        "highest": max(shares),
        "names": {str(label.index): label_title(label) for label in label_table(SCHEME)},
    }
    return FrequencyView(
        as_text(grey_picture(anatomy.tissue)[box], affine),
        as_text(anatomy.labels(SCHEME)[box], affine),
        [as_text(one.counts[box].astype(np.uint16), affine) for one in maps],
        data,
        packed(NIIVUE),
    )


def grey_picture(tissue: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tissues (I, J, K) as grey levels, white matter the brightest."""
    level = np.array([GREY_LEVELS.get(name, OTHERS) for name in TISSUES], np.float32)
    smooth = ndimage.gaussian_filter(level[tissue], BLUR_MM)
    grey: NDArray[np.uint8] = (smooth // STEP * STEP).astype(np.uint8)
    return grey
