"""A segmentation on a scan's own grid, and what follows from it: label maps, volumes, masks, confidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.arrays import voxel_volume_mm3
from bidsseg.imaging.image import Image, save
from bidsseg.labels import Codes, Scheme, code_lookup, encode
from bidsseg.segmentation.volumes import Volume, frame_of, volumes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from bidsseg.quality.assessment import Assessment


@dataclass(frozen=True)
class Segmentation:
    """The anatomy of every voxel of a scan, in the scan's own axes; shapes (I, J, K).

    The label images of all schemes follow from ``tissue``, ``side`` and ``parcel``, so they cannot contradict each
    other.

    Examples
    --------
    >>> import bidsseg
    >>> scan = bidsseg.load_image("sub-02_T1w.nii.gz")
    >>> seg = bidsseg.segment(scan)
    >>> seg.labels("regions").shape == scan.data.shape
    True
    >>> brainstem = next(row for row in seg.volumes("regions") if row.label.name == "Brain-Stem")
    >>> 15_000 < brainstem.volume_mm3 < 35_000
    True
    >>> seg.volumes_frame("regions").loc[17, "name"]
    'Left-Hippocampus'
    >>> seg.plot("lobes").savefig("sub-02_lobes.png")
    >>> seg.save("sub-02_dseg.nii.gz", "regions")
    """

    tissue: NDArray[np.uint8]
    side: NDArray[np.uint8]
    parcel: NDArray[np.uint8]
    "Without ``has_gyri``, one gyrus stands for the whole lobe."
    confidence: NDArray[np.float16]
    "Probability of the chosen tissue; 0 outside the brain."
    affine: NDArray[np.float64]
    has_gyri: bool
    edge_fraction: float = 0.0
    "Largest share of brain on a face of the field of view: large where the scan cuts the brain."
    scan: Image | None = None
    "The scan that was segmented, where it is at hand: saved images take units and form codes from its header."
    assessment: Assessment | None = None
    "The verdict on this segmentation and its reasons, where it was judged."

    @property
    def voxel_volume_mm3(self) -> float:
        return voxel_volume_mm3(self.affine)

    @property
    def brain_mask(self) -> NDArray[np.bool_]:
        """Whether each voxel shows brain or the cerebrospinal fluid around it, (I, J, K)."""
        return self.tissue > 0

    @cached_property
    def _label_maps(self) -> dict[Scheme, Codes]:
        return {}

    def labels(self, scheme: Scheme) -> Codes:
        """The label of every voxel in one scheme, computed once.

        Parameters
        ----------
        scheme : {"regions", "lobes", "gyri"}
            Which division of the brain.

        Returns
        -------
        numpy.ndarray
            (I, J, K) uint16, read-only; 0 is background, the other codes are those of ``label_table``.

        Raises
        ------
        ValueError
            For gyri, where the scan was segmented without them.
        """
        if scheme == "gyri" and not self.has_gyri:
            raise ValueError("this segmentation was made without gyri")
        if scheme not in self._label_maps:
            codes = encode(self.tissue, self.side, self.parcel, scheme)
            codes.flags.writeable = False  # all callers share it
            self._label_maps[scheme] = codes
        return self._label_maps[scheme]

    def volumes(self, scheme: Scheme) -> tuple[Volume, ...]:
        """The volume of every label of one scheme, also of those without voxels.

        Parameters
        ----------
        scheme : {"regions", "lobes", "gyri"}
            Which division of the brain.

        Returns
        -------
        tuple of Volume
            In the order of ``label_table``; volumes in mm3.

        Raises
        ------
        ValueError
            For gyri, where the scan was segmented without them.
        """
        return volumes_of(self.labels(scheme), self.confidence, self.voxel_volume_mm3, scheme)

    def volumes_frame(self, scheme: Scheme) -> DataFrame:
        """What ``volumes`` tells, as a table of pandas.

        Parameters
        ----------
        scheme : {"regions", "lobes", "gyri"}
            Which division of the brain.

        Returns
        -------
        pandas.DataFrame
            One row for each label, by its number ``index``: ``name``, ``hemisphere`` (L, R, missing on the midline),
            ``voxels``, ``volume_mm3``, ``fraction_of_intracranial`` and ``confidence`` (missing without voxels).

        Raises
        ------
        ValueError
            For gyri, where the scan was segmented without them.
        ImportError
            Without pandas.
        """
        return frame_of(self.volumes(scheme))

    def plot(self, scheme: Scheme = "regions") -> Figure:
        """Draw slices of the scan, plain and with its labels, and a legend.

        A notebook shows the figure as any other value; elsewhere, ``savefig`` writes it to a file.

        Parameters
        ----------
        scheme : {"regions", "lobes", "gyri"}, default: "regions"
            Which division of the brain.

        Returns
        -------
        matplotlib.figure.Figure
            The patient's left is left. pyplot does not know the figure, so that nothing has to be closed.

        Raises
        ------
        ValueError
            For gyri, where the scan was segmented without them, and where the scan is not at hand.
        ImportError
            Without matplotlib.
        """
        from bidsseg.segmentation.figure import figure_of

        if self.scan is None:
            raise ValueError("the scan that was segmented is not at hand, so there is nothing to draw")
        return figure_of(self.scan, self.labels(scheme), scheme)

    def save(self, path: Path | str, scheme: Scheme) -> None:
        """Write the label image of one scheme, on the scan's own grid.

        Parameters
        ----------
        path : path-like
            File to write or replace: NIfTI, ending in .nii or .nii.gz, or .mgz.
        scheme : {"regions", "lobes", "gyri"}
            Which division of the brain.

        Raises
        ------
        ValueError
            For gyri, where the scan was segmented without them.
        OSError
            If the file cannot be written.
        """
        save(Path(path), self.labels(scheme), self.affine, self.scan)


def from_labels(regions: Codes, lobes: Codes, affine: NDArray[np.float64]) -> Segmentation:
    """The segmentation whose label maps of regions and lobes, both (I, J, K), these are; without gyri and confidence.

    Raises ``ValueError`` for codes that no anatomy has.
    """
    if regions.shape != lobes.shape:
        raise ValueError(f"label images of one scan must have one shape, got {regions.shape} and {lobes.shape}")
    pairs, inverse = np.unique(regions.astype(np.int64) << 16 | lobes, return_inverse=True)
    known = _factors_of_codes()
    missing = [(int(pair) >> 16, int(pair) & 0xFFFF) for pair in pairs if int(pair) not in known]
    if missing:
        raise ValueError(f"region {missing[0][0]} and lobe {missing[0][1]} don't go together in one voxel")
    factors = np.array([known[int(pair)] for pair in pairs], np.uint8)[inverse.reshape(regions.shape)]
    tissue, side, parcel = (np.ascontiguousarray(factors[..., n]) for n in range(3))
    return Segmentation(tissue, side, parcel, np.zeros(regions.shape, np.float16), affine, has_gyri=False)


@cache
def _factors_of_codes() -> dict[int, tuple[int, int, int]]:
    """The first (tissue, side, parcel) that has each pair of codes, region << 16 | lobe."""
    pairs = code_lookup("regions").astype(np.int64) << 16 | code_lookup("lobes")
    found, first = np.unique(pairs, return_index=True)
    places = np.stack(np.unravel_index(first, pairs.shape), 1)
    return {int(pair): (int(t), int(s), int(p)) for pair, (t, s, p) in zip(found, places, strict=True)}
