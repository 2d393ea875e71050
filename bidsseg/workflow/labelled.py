"""The anatomy of a scan of a dataset, from the label images of an earlier segmentation."""

from __future__ import annotations

import numpy as np

from bidsseg.bids.outputs import NEEDED_SCHEMES, ScanOutputs
from bidsseg.imaging.image import Image, load
from bidsseg.segmentation.anatomy import Anatomy, from_labels


def anatomy_of(outputs: ScanOutputs, image: Image) -> Anatomy:
    regions, lobes = (load(outputs.labels(scheme), uniform_ok=True) for scheme in NEEDED_SCHEMES)
    return from_labels(regions.data.astype(np.uint16), lobes.data.astype(np.uint16), image.affine)
