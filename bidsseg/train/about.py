"""What every model trained here says of itself in its card."""

ABOUT = {
    "intended_use": "Research on brain MRI of any contrast and resolution: which voxel belongs to which brain region, "
    "above all to place multiple-sclerosis lesions. Not for clinical use: no diagnosis, no treatment decision.",
    "licence_note": "The weights are CC BY-NC 4.0 because of the OASIS labels; the code is Apache-2.0.",
    "retrain": "brainseg-cli train DATA OUT --hours 8",
    "training_data": [
        {
            "name": "MICCAI 2012 multi-atlas labelling challenge, 12 of the 15 training subjects",
            "content": "brain-extracted T1w (OASIS) with manual BrainCOLOR labels",
            "licence": "CC BY-NC; labels by Neuromorphometrics, Inc. under academic subscription",
        },
        {
            "name": "SynthSeg training label maps (Billot et al. 2023)",
            "content": "20 whole-head label maps, adults of all ages",
            "licence": "Apache-2.0",
        },
        {
            "name": "MS lesion masks (Lesjak et al. 2017, doi 10.1007/s12021-017-9348-7)",
            "content": "consensus masks of 28 patients in MNI152 space",
            "licence": "CC BY 4.0",
        },
        {
            "name": "Clinical scans of MS patients, Tabriz cohort (Bashiri et al.), 6 of the 9 patients",
            "content": "2D FLAIR, of three patients also T1w and T2w, with manual masks of lesions and ventricles; the "
            "other labels are those of earlier weights",
            "licence": "MIT",
        },
        {
            "name": "Whole-head T1w (brainchop)",
            "content": "one scan of 1 mm, with labels of earlier weights",
            "licence": "MIT",
        },
    ],
    "held_out": "MICCAI 2012 subjects 1015, 1017 and 1036 and patients sub-02, sub-05 and sub-07 of the Tabriz cohort "
    "were never trained on; the accuracy is measured on them.",
    "known_failures": [
        "Whole-head scans: temporal poles and the lowest slices of the cerebellum end raggedly, by a few millimetres "
        "too much or too little.",
        "Motion artefacts: the labels get poor while the network stays confident; quality control detects ripples in "
        "white matter, and misses some.",
        "A single slice is labelled far less well than a stack.",
        "White matter under large loads of dark lesions: about 3 % of the regions' Dice is lost.",
        "Volumes of lobes differ between the contrasts of one day: by 1 to 8 % (median) from FLAIR to T1w and T2w, by "
        "up to 40 % in the smallest lobes; cortex is thicker in FLAIR than in T1w, and thinnest in T2w.",
        "Tissue around the brain has a small influence: if a scan is stripped by its own mask, or its scalp is made "
        "brighter or darker, 1 to 4 % of the brain's voxels change their region, in slices of 7 mm up to 6 %.",
        "FLAIR: gyri that a thick slice cuts at its edge are frayed at the vertex and beside the falx, and white "
        "matter of the upper cerebellum is labelled as its cortex.",
        "T2w: the white matter of the cerebellum spreads into its folia.",
        "Small structures (inferior lateral ventricle, accumbens, amygdala) are less certain than their neighbours.",
        "A scan stored upside down or with its axes exchanged is labelled as if it were upright; quality control names "
        "the orientation that fits. A mirrored one looks like any other: the header must be right.",
        "Air of a large frontal sinus may be labelled as CSF, so that the intracranial volume is too large.",
        "Surgical cavities and large tumours were never seen.",
    ],
}
