"""From lesion probabilities to a lesion mask, and whether a scan is fit to show lesions at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidsseg.errors import UserError
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.image import Image
from bidsseg.imaging.pieces import large_pieces
from bidsseg.labels import FLUID, TISSUE
from bidsseg.lesions.options import ROUNDED_DOWN
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.segmentation.result import Segmentation

if TYPE_CHECKING:  # torch, which plans of runs do without
    from bidsseg.network.lesion_config import LoadError
    from bidsseg.segmentation.lesion_probability import LesionAnswer

LEAST_VOXELS, LEAST_MM3 = 3, 14.0
"A finding has at least so many voxels and this volume, that of a ball 3 mm across; smaller ones are noise mostly."
NO_PLACE = ("background", *FLUID)

DOUBT = 0.15
"A lesion load is told with those at a threshold so much higher and lower."
DARK_CORTEX, DARK_FLUID = -1.5, -2.0
"""Spreads of white matter by which cortex is darker in T1w, and by which fluid is darker in FLAIR. Of 28 clinical scans
FLAIRs have cortex at -0.4 to 2.5 and fluid below -3.6, T1w cortex below -2.8, T2w fluid above 10."""


@dataclass(frozen=True, eq=False)
class FoundLesions:
    """The lesions that the network found in a scan, on its own grid. A finding, not a diagnosis.

    Examples
    --------
    >>> import bidsseg
    >>> scan = bidsseg.load_image("sub-02_FLAIR.nii.gz")
    >>> found = bidsseg.find_lesions(scan)
    >>> least, most = found.load_range_ml
    >>> least <= found.load_ml <= most
    True
    >>> bool((found.probability[found.mask] >= found.threshold).all())
    True
    """

    mask: NDArray[np.bool_]
    "(I, J, K)"
    probability: Floats
    "(I, J, K), 0-1."
    segmentation: Segmentation
    "Of the same scan."
    threshold: float
    "Probability from which a voxel is lesion."
    load_ml: float
    "Volume of the mask."
    load_range_ml: tuple[float, float]
    "The load at thresholds ``DOUBT`` higher and lower: by how much it depends on what is still called a lesion."
    expected_error_ml: float | None = None
    "Mean difference of such a load from the truth, by the network's card; unknown at a threshold of the user's own."

    def image(self, scan: Image) -> Image:
        """The mask as an image on the grid of the scan, for ``describe_lesions``.

        Parameters
        ----------
        scan : Image
            The scan that the lesions were found in.

        Returns
        -------
        Image
            1 in lesions and 0 elsewhere.
        """
        return Image(self.mask.astype(np.float32), scan.affine, scan.header)

    @property
    def about(self) -> dict[str, Any]:
        """Fields of the sidecars of mask and probabilities."""
        return {
            "Threshold": self.threshold,
            "MinimumVolumeMm3": LEAST_MM3,
            "MinimumVoxels": LEAST_VOXELS,
            **load_fields(self.load_ml, self.load_range_ml, self.expected_error_ml),
        }


def load_fields(load_ml: float, range_ml: tuple[float, float], error_ml: float | None) -> dict[str, Any]:
    """A lesion load, how it depends on the threshold and, where it is known, its error, as sidecars have them."""
    return {
        "LesionLoadMl": round(load_ml, 3),
        "LesionLoadRangeMl": [round(ml, 3) for ml in range_ml],
        **({} if error_ml is None else {"LesionLoadExpectedErrorMl": round(error_ml, 3)}),
    }


def find_lesions(
    found: LesionAnswer, segmentation: Segmentation, threshold: float, error: LoadError | None = None
) -> FoundLesions:
    """The lesions of a scan; raises ``UserError`` where it is not fit to show any.

    ``error`` is that of loads found in such scans at this threshold, where it was measured.
    """
    if reason := why_unfit(found):
        raise UserError(f"no lesions looked for: {reason}")
    masks = [lesion_mask(found.probability, segmentation, level) for level in (threshold, *of_doubt(threshold))]
    load, least, most = (float(mask.sum()) * segmentation.voxel_volume_mm3 / 1000 for mask in masks)
    expected = error.of(load) if error else None
    return FoundLesions(masks[0], found.probability, segmentation, threshold, load, (least, most), expected)


def why_unfit(found: LesionAnswer) -> str | None:
    """Why lesions cannot be found in this scan, in words for its user; None if they can."""
    contrast = found.contrast
    if np.isnan(contrast.cortex) and np.isnan(contrast.fluid):
        return "hardly any white matter is in view"
    if contrast.cortex < DARK_CORTEX:
        return "white matter is brighter than cortex, as in T1w; lesions are found in FLAIR alone"
    if contrast.fluid > DARK_FLUID:
        return "the ventricles are not darker than white matter, as they are in FLAIR; lesions are found in FLAIR alone"
    return None


def of_doubt(threshold: float) -> tuple[float, float]:
    """A higher threshold and a lower one, which a load is told at too."""
    return min(threshold + DOUBT, 1.0), max(threshold - DOUBT, 0.01)


def in_tissue(anatomy: Anatomy) -> NDArray[np.bool_]:
    """Voxels (I, J, K) that may be lesion: neither fluid nor outside the brain."""
    return ~np.isin(anatomy.tissue, [TISSUE[name] for name in NO_PLACE])


def lesion_mask(
    probability: Floats, anatomy: Anatomy, threshold: float, least_mm3: float = LEAST_MM3
) -> NDArray[np.bool_]:
    """Voxels (I, J, K) of the scan's grid that are lesion: probable enough, in tissue, and several together.

    Voxels are together where they share a face, an edge or a corner.
    """
    least = max(LEAST_VOXELS, least_mm3 * ROUNDED_DOWN / anatomy.voxel_volume_mm3)
    return large_pieces((probability >= threshold) & in_tissue(anatomy), least, corners=True)
