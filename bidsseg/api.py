"""The Python interface: read a scan, label its brain regions, find and describe its lesions.

Examples
--------
>>> import bidsseg
>>> scan = bidsseg.load_image("sub-02_T1w.nii.gz")
>>> seg = bidsseg.segment(scan)
>>> regions = seg.labels("regions")
>>> regions.shape == scan.data.shape
True
>>> int((regions == 17).sum()) > 0  # 17 is the left hippocampus, see bidsseg.label_table("regions")
True
"""

from __future__ import annotations

from pathlib import Path

from bidsseg.imaging.image import Image as Image
from bidsseg.imaging.image import load
from bidsseg.labels import label_table as label_table
from bidsseg.lesions import finding
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.finding import FoundLesions as FoundLesions
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.records import LesionReport as LesionReport
from bidsseg.network.card import DEFAULT_MODEL
from bidsseg.network.inference import PredictOptions
from bidsseg.network.lesion_model import load_lesion_model
from bidsseg.network.weights import Model
from bidsseg.network.weights import load_model as load_model
from bidsseg.quality.assessed import answer_and_assess, segment_and_assess
from bidsseg.quality.assessment import Assessment as Assessment
from bidsseg.segmentation.defaults import BIAS_CORRECTION
from bidsseg.segmentation.lesion_probability import lesion_answer
from bidsseg.segmentation.result import Segmentation as Segmentation


def load_image(path: Path | str, *, mask: bool = False, series: str | None = None) -> Image:
    """Read a scan or a lesion mask, repairing what can be repaired in its header.

    Parameters
    ----------
    path : path-like
        A NIfTI, Analyze, MGH, NRRD or MetaImage file, or a folder with a DICOM series.
    mask : bool, default: False
        The file is a mask, so it may be empty or small; a scan may not.
    series : str, optional
        Which of several DICOM series in the folder: its UID, or its number in the list that the error shows.

    Returns
    -------
    Image
        ``data`` (I, J, K) float32, ``affine`` (4, 4) from voxel indices to RAS mm, and ``warnings`` about what was
        repaired.

    Raises
    ------
    bidsseg.errors.FileError
        If the file cannot be read, is no three-dimensional image, or cannot show a brain.

    Examples
    --------
    >>> import bidsseg
    >>> scan = bidsseg.load_image("sub-02_T1w.nii.gz")
    >>> [float(round(mm, 2)) for mm in scan.spacing_mm]
    [1.0, 1.0, 6.0]
    """
    return load(path, mask, series)


def segment(
    scan: Image,
    *,
    gyri: bool = False,
    mirror: bool = False,
    bias_correction: bool = BIAS_CORRECTION,
    device: str = "auto",
    threads: int = 0,
    model: Model | Path | str = DEFAULT_MODEL,
) -> Segmentation:
    """Label every voxel of a scan of any contrast, on the scan's own grid, and judge the result.

    Parameters
    ----------
    scan : Image
        What ``load_image`` returned.
    gyri : bool, default: False
        Also parcellate the cortex, for ``Segmentation.labels("gyri")``.
    mirror : bool, default: False
        Average with the answer to the mirror image: somewhat more accurate, twice the network's time.
    bias_correction : bool, default: True
        Correct the bias field with N4 first, as ``bidsseg participant`` does.
    device : str, default: "auto"
        auto, cpu, cuda, cuda:N or mps.
    threads : int, default: 0
        CPU threads; 0 takes all. It holds for the whole process.
    model : Model or path-like, default: "anycontrast"
        What ``load_model`` returned, or what it takes.

    Returns
    -------
    Segmentation
        Labels, volumes, brain mask, confidence, and in ``assessment`` the verdict on them.

    Raises
    ------
    bidsseg.errors.UserError
        If the device does not exist, or the model cannot be read.

    Examples
    --------
    >>> import bidsseg
    >>> scan = bidsseg.load_image("sub-02_T1w.nii.gz")
    >>> seg = bidsseg.segment(scan)
    >>> seg.assessment.verdict in ("pass", "check", "fail")
    True
    >>> seg.confidence.shape == seg.brain_mask.shape == scan.data.shape
    True
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    options = PredictOptions(device, threads, gyri, mirror)
    return segment_and_assess(scan, loaded, options, bias_correction).segmentation


def find_lesions(
    scan: Image,
    *,
    threshold: float | None = None,
    bias_correction: bool = BIAS_CORRECTION,
    device: str = "auto",
    threads: int = 0,
    model: Model | Path | str = DEFAULT_MODEL,
) -> FoundLesions:
    """Find the lesions of a FLAIR, on its own grid; its regions are labelled on the way.

    Parameters
    ----------
    scan : Image
        What ``load_image`` returned for a FLAIR.
    threshold : float, optional
        Probability from which a voxel is lesion; the default is the packaged network's, for thick slices or thin ones.
    bias_correction : bool, default: True
        Correct the bias field with N4 first, as ``bidsseg participant`` does.
    device : str, default: "auto"
        auto, cpu, cuda, cuda:N or mps.
    threads : int, default: 0
        CPU threads; 0 takes all. It holds for the whole process.
    model : Model or path-like, default: "anycontrast"
        The model of regions: what ``load_model`` returned, or what it takes.

    Returns
    -------
    FoundLesions
        Mask, probabilities, load in mL, and the ``segmentation`` of the scan with its verdict.

    Raises
    ------
    bidsseg.errors.UserError
        If the scan is not fit to show lesions, because it is no FLAIR; if the device does not exist, or the model
        cannot be read.

    Examples
    --------
    >>> import bidsseg
    >>> scan = bidsseg.load_image("sub-02_FLAIR.nii.gz")
    >>> found = bidsseg.find_lesions(scan)
    >>> found.mask.shape == found.probability.shape == scan.data.shape
    True
    >>> report = bidsseg.describe_lesions(scan, found.image(scan), found.segmentation)
    >>> len(report.lesions) > 0
    True

    A scan of another contrast is refused:

    >>> bidsseg.find_lesions(bidsseg.load_image("sub-02_T1w.nii.gz"))
    Traceback (most recent call last):
    bidsseg.errors.UserError: no lesions looked for: white matter is brighter than cortex, as in T1w; ...
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    answered, judged = answer_and_assess(scan, loaded, PredictOptions(device, threads), bias_correction)
    network = load_lesion_model()
    least, error = network.card.decided_by(scan.spacing_mm, threshold)
    return finding.find_lesions(lesion_answer(answered, network, device), judged.segmentation, least, error)


def describe_lesions(
    scan: Image,
    mask: Image,
    segmentation: Segmentation,
    *,
    threshold: float = LesionOptions.threshold,
    min_volume_mm3: float = LesionOptions.min_volume_mm3,
    tolerance_mm: float = LesionOptions.tolerance_mm,
    bands_mm: tuple[float, ...] = LesionOptions.bands_mm,
) -> LesionReport:
    """Place every lesion of a mask in the regions of a segmented scan.

    Parameters
    ----------
    scan : Image
        The scan that was segmented.
    mask : Image
        Lesions as a binary, probabilistic or labelled mask, on the scan's grid or another in the same space.
    segmentation : Segmentation
        What ``segment`` returned for the scan.
    threshold : float, default: 0.5
        Probability at or above which a voxel of a probabilistic mask is lesion.
    min_volume_mm3 : float, default: 14.0
        Smaller components are counted together; a ball 3 mm across has 14 mm3.
    tolerance_mm : float, default: 1.5
        A lesion abuts ventricles or cortex where the gap between them is at most this.
    bands_mm : tuple of float, default: ()
        Upper edges of bands of distance from the lateral ventricles, for instance ``(3, 10)``.

    Returns
    -------
    LesionReport
        ``lesions``, largest first, each with volume, zone, regions and distances; ``labels``, the lesion of every
        voxel of the scan; and ``anatomy``, the segmentation corrected under the lesions.

    Raises
    ------
    ValueError
        If the segmentation is not on the scan's grid.
    bidsseg.errors.UserError
        If the mask's values mean nothing, or it is too large to be one of lesions.

    Examples
    --------
    >>> import bidsseg
    >>> scan = bidsseg.load_image("sub-02_T1w.nii.gz")
    >>> mask = bidsseg.load_image("sub-02_label-lesion_mask.nii.gz", mask=True)
    >>> found = bidsseg.describe_lesions(scan, mask, bidsseg.segment(scan))
    >>> [lesion.zone for lesion in found.lesions][:1]
    ['periventricular']
    """
    options = LesionOptions(threshold, min_volume_mm3, tolerance_mm=tolerance_mm, bands_mm=bands_mm)
    return lesion_features(scan, mask, segmentation, options)
