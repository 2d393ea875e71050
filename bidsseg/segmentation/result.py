"""The segmentation of a scan on its own grid: labels, volumes, masks, confidence and verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bidsseg.imaging.image import Image, save
from bidsseg.labels import Scheme
from bidsseg.segmentation.anatomy import Anatomy
from bidsseg.segmentation.volumes import Volume, frame_of, volumes_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from bidsseg.quality.assessment import Assessment


@dataclass(frozen=True, eq=False)
class Segmentation(Anatomy):
    """The anatomy of a scan as the network found it, in the scan's own axes; shapes (I, J, K).

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

    confidence: NDArray[np.float16] = field(kw_only=True)
    "Probability of the chosen tissue; 0 outside the brain."
    edge_fraction: float = field(default=0.0, kw_only=True)
    "Largest share of brain on a face of the field of view: large where the scan cuts the brain."
    scan: Image | None = field(default=None, kw_only=True)
    "The scan that was segmented, where it is at hand: saved images take units and form codes from its header."
    assessment: Assessment | None = field(default=None, kw_only=True)
    "The verdict on this segmentation and its reasons, where it was judged."

    def volumes(self, scheme: Scheme) -> tuple[Volume, ...]:
        """Voxels, volume and confidence of every label of one scheme, also of labels without voxels.

        Parameters
        ----------
        scheme : {"regions", "lobes", "gyri"}
            As in ``labels``, also for what it raises.

        Returns
        -------
        tuple of Volume
            One for each row of ``label_table``, in its order; volumes in mm3.
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
            As in ``labels``, also for what it raises.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        save(Path(path), self.labels(scheme), self.affine, self.scan)
