"""The methods text of a run, for the user's paper."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bidsseg.bids.outputs import OutputSettings
from bidsseg.lesions.together import FAINT
from bidsseg.spaces import TEMPLATE

N4 = "Tustison NJ et al. N4ITK: improved N3 bias correction. IEEE Trans Med Imaging 29, 2010. 10.1109/TMI.2010.2046908"
UNET = "Ronneberger O, Fischer P, Brox T. U-Net. MICCAI 2015. 10.1007/978-3-319-24574-4_28"
SYNTHSEG = "Billot B et al. SynthSeg. Medical Image Analysis 86, 2023. 10.1016/j.media.2023.102789"
NIPYPE = "Gorgolewski K et al. Nipype. Frontiers in Neuroinformatics 5, 2011. 10.3389/fninf.2011.00013"
PYBIDS = "Yarkoni T et al. PyBIDS. Journal of Open Source Software 4, 2019. 10.21105/joss.01294"
BRAINCOLOR = (
    "Klein A, Tourville J. 101 labeled brain images. Frontiers in Neuroscience 6, 2012. 10.3389/fnins.2012.00171"
)
MCDONALD = "Thompson AJ et al. Diagnosis of multiple sclerosis. Lancet Neurol 17, 2018. 10.1016/S1474-4422(17)30470-2"
MATTES = "Mattes D et al. PET-CT image registration. IEEE Trans Med Imaging 22, 2003. 10.1109/TMI.2003.809072"
FILLING = (
    "Battaglini M et al. Impact of white matter lesions on brain volumes. Hum Brain Mapp 33, 2012. 10.1002/hbm.21344",
    "Chard DT et al. Reducing the impact of white matter lesions. J Magn Reson Imaging 32, 2010. 10.1002/jmri.22214",
)
LESIONS_TEXT = (
    "{source}. Lesions are the connected components of the masks, on a 1 mm isotropic grid (26 neighbours, across "
    "thick slices through faces alone). Confluent lesions were split into parts at their necks; lesions and parts were "
    "put into regions, lobes and one zone after the sites of the 2017 McDonald criteria (Thompson et al. 2018). "
    "Sessions of a participant were registered rigidly to the first by mutual information (Mattes et al. 2003), and "
    "lesions followed by overlap. "
)
GIVEN_LESIONS = "Lesion masks were given"
FOUND_LESIONS = (
    "{where} a small convolutional network found lesions in FLAIR images (weights SHA-256 {weights}, threshold {0:g} "
    "in thick slices, {1:g} in thin ones), from distances to the grey values of cortex and white matter and the "
    "probabilities of tissues; where one session of a participant showed a lesion, voxels of the others counted from "
    "{faint:g} of their threshold"
)
MASK_FIRST, NETWORK_FIRST = "Where no lesion mask was given,", "In preference to given masks,"
FILLING_TEXT = (
    "Lesions were filled with the mean of the normal-appearing white matter near them and noise of its strength and "
    "correlation (after Battaglini et al. 2012 and Chard et al. 2010), in all images of their session, to which the "
    "masks were moved by rigid registration. "
)
FUSION_TEXT = (
    "For the segmentations marked fused, the images of a session were registered rigidly by mutual information (Mattes "
    "et al. 2003; SimpleITK), and the probabilities found in each were averaged on the grid of the image segmented. "
)
LONGITUDINAL_TEXT = (
    "The sessions of a participant were registered rigidly by mutual information (Mattes et al. 2003; SimpleITK), the "
    "probabilities found in each were averaged on the grid of the image segmented, and corrected at borders by how its "
    "grey values differed from those of the other sessions. "
)
MIRROR_TEXT = ", averaged over the image and its mirror image"
ANATOMY = {
    "regions": "lobar cortex and white matter, deep grey matter, ventricles, cerebellum and brainstem of either side",
    "lobes": "the lobes, deep grey matter, ventricles, cerebellum and brainstem of either side",
    "gyri": "the cortical gyri of the BrainCOLOR protocol (Klein & Tourville 2012)",
}


@dataclass(frozen=True)
class Steps:
    """What a run does besides segmenting each image by itself."""

    lesions: bool = False
    "Describes lesions."
    network_first: bool = False
    "Those that the network finds count before given masks."
    fill: bool = False
    fuse: bool = False
    longitudinal: bool = False


def methods_text(recipe: OutputSettings, modalities: tuple[str, ...], steps: Steps) -> str:
    """Markdown: what was done, with versions and references."""
    more = FUSION_TEXT * steps.fuse + LONGITUDINAL_TEXT * steps.longitudinal
    more += LESIONS_TEXT.format(source=_lesion_source(recipe, steps.network_first)) * steps.lesions
    more += FILLING_TEXT * steps.fill
    n4 = ""
    if recipe.bias_correction:
        n4 = (
            "Intensity non-uniformity was corrected with N4 (Tustison et al. 2010; SimpleITK "
            + _version("SimpleITK")
            + "). "
        )
    common = f"that of {TEMPLATE}, by registration of labels"
    places = {"orig": "the scan's own grid", "1mm": "a 1 mm isotropic grid", TEMPLATE: common}
    where = " and ".join(places[space] for space in recipe.spaces)
    what = "; ".join(ANATOMY[scheme] for scheme in recipe.schemes)
    references = [N4] * recipe.bias_correction + [UNET, SYNTHSEG, NIPYPE, PYBIDS]
    references += [BRAINCOLOR] * ("gyri" in recipe.schemes) + [MCDONALD] * steps.lesions
    references += [MATTES] * (steps.lesions or steps.fuse or steps.longitudinal) + [*FILLING] * steps.fill
    return (
        "# Methods\n\n"
        f"Every {' and '.join(modalities)} image was segmented by itself with bidsseg {recipe.version}. {n4}"
        "The image was resampled to 1 mm along its own axes, and a 3D U-Net (Ronneberger et al. 2015) trained on "
        "synthetic and real contrasts (after Billot et al. 2023; "
        f"model {recipe.model}, weights SHA-256 {recipe.weights_sha256[:12]}) gave "
        f"the probabilities of every structure{MIRROR_TEXT * recipe.mirror}, which were resampled to {where} and "
        f"decided there. Labels are {what}. {more}Workflows ran in nipype {_version('nipype')} "
        "(Gorgolewski et al. 2011) on a BIDS dataset "
        f"read with PyBIDS {_version('pybids')} (Yarkoni et al. 2019), with PyTorch {_version('torch')} and Python "
        f"{platform.python_version()}.\n\n"
        "# References\n\n" + "".join(f"- {reference}\n" for reference in references)
    )


def _lesion_source(recipe: OutputSettings, network_first: bool) -> str:
    if not recipe.lesion_weights_sha256:
        return GIVEN_LESIONS
    where = NETWORK_FIRST if network_first else MASK_FIRST
    return FOUND_LESIONS.format(
        *recipe.lesion_thresholds, where=where, weights=recipe.lesion_weights_sha256[:12], faint=FAINT
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"
