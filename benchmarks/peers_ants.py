"""Labels a scan by registered atlases; run by ``peers.py`` with the Python of an environment that has antspyx.

    python peers_ants.py SCAN OUT ATLAS...

Each ATLAS is a folder with ``T1w.nii.gz`` and ``labels.nii.gz``. One atlas gives its labels as they are carried over;
several are joined by ``joint_label_fusion``. Patches are compared by their correlation, which is the default of the
program antsJointFusion; the Python function's own default, squared differences, depends on the scale of grey values.
"""

import sys

import ants
import numpy as np


def main(scan: str, out: str, atlases: list[str]) -> None:
    target = ants.image_read(scan)
    images, labels = [], []
    for atlas in atlases:
        image, own_labels = (ants.image_read(f"{atlas}/{name}.nii.gz") for name in ("T1w", "labels"))
        found = ants.registration(fixed=target, moving=image, type_of_transform="SyN")
        images.append(found["warpedmovout"])
        labels.append(ants.apply_transforms(target, own_labels, found["fwdtransforms"], interpolator="genericLabel"))
        print(atlas, "registered", flush=True)
    ants.image_write(labels[0] if len(labels) == 1 else joined(target, images, labels), out)


def joined(target: ants.ANTsImage, images: list[ants.ANTsImage], labels: list[ants.ANTsImage]) -> ants.ANTsImage:
    """By joint label fusion, within the voxels of the scan that are not 0.

    Labels are numbered from 1 meanwhile, background included: what is numbered 0 would get the label of a neighbour.
    """
    codes = np.unique(np.concatenate([np.unique(image.numpy()) for image in labels]))
    numbered = [image.new_image_like(np.searchsorted(codes, image.numpy()) + np.float32(1)) for image in labels]
    inside = target.new_image_like((target.numpy() > 0).astype(np.float32))
    found = ants.joint_label_fusion(target, inside, images, label_list=numbered, usecor=True)["segmentation"]
    return found.new_image_like(np.concatenate([[0], codes])[np.rint(found.numpy()).astype(int)].astype(np.float32))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
