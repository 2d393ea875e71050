"""How many lesions are called new where a patient is scanned again and nothing has changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bidsseg.evaluation.damage import add_bias, add_noise
from bidsseg.evaluation.lesion_scores import SearchedScan, found_in
from bidsseg.imaging.image import Image
from bidsseg.imaging.registration import rigid_transform
from bidsseg.lesions.changes import Session, change_counts, follow
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.together import SessionLesions, decide_together
from bidsseg.network.lesion_model import LesionModel
from bidsseg.network.weights import Model

TURN_DEGREES, SHIFT_MM = 3.0, 2.0
"The most by which the head is turned about each axis, and shifted along it."
NOISE, FIELD = 0.01, 0.2
"Standard deviation of the noise that is added, of the brightest grey values; strength of the coil field."
SEED = 3


def scanned_again(image: Image, rng: Generator) -> Image:
    """The head in another position, with another coil field and other noise."""
    turn = Rotation.from_euler("xyz", rng.uniform(-TURN_DEGREES, TURN_DEGREES, 3), degrees=True).as_matrix()
    middle = image.affine @ [*((np.array(image.data.shape) - 1) / 2), 1.0]
    moved = np.eye(4)
    moved[:3, :3] = turn
    moved[:3, 3] = middle[:3] - turn @ middle[:3] + rng.uniform(-SHIFT_MM, SHIFT_MM, 3)
    matrix = np.linalg.inv(image.affine) @ moved @ image.affine
    data = ndimage.affine_transform(image.data, matrix[:3, :3], matrix[:3, 3], order=3, mode="nearest").clip(0)
    return replace(image, data=add_noise(add_bias(data, FIELD, rng), NOISE, rng))


def false_changes(image: Image, first: SearchedScan, model: Model, lesion_model: LesionModel) -> dict[str, int]:
    """Lesions by what is said to have become of them, from a scan to one taken again."""
    again = scanned_again(image, np.random.default_rng(SEED))
    second = found_in(again, model, lesion_model)
    threshold = lesion_model.card.thresholds.of(image.spacing_mm)
    onward = rigid_transform(image, again, first.segmentation.brain_mask)
    scans = ((image, first, np.eye(4)), (again, second, onward))
    masks = decide_together(
        [
            SessionLesions(found.mask(threshold), found.answer.probability, found.segmentation, threshold, matrix)
            for _, found, matrix in scans
        ]
    )
    sessions = []
    for number, ((scan, found, matrix), mask) in enumerate(zip(scans, masks, strict=True)):
        marked = Image(mask.astype(np.float32), scan.affine, scan.header)
        report = lesion_features(scan, marked, found.segmentation)
        sessions.append(Session(str(number), report.lesions, report.components, matrix))
    return change_counts(follow(sessions))
