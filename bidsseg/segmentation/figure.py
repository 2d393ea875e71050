"""The mosaic of a scan and its labels as a figure of matplotlib, for notebooks and scripts."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bidsseg.imaging.image import Image
from bidsseg.labels import Codes, Scheme
from bidsseg.segmentation.mosaic import page

WIDTH_INCHES = 12.0


def figure_of(image: Image, codes: Codes, scheme: Scheme) -> Figure:
    """The ``page`` of a scan, pixel by pixel, on a figure of its own.

    Only a figure that pyplot made has notebooks learn to show figures, and one that pyplot keeps would be shown twice
    there: as the value of its cell, and as an open figure. So it is made by pyplot, and closed.
    """
    pixels = page(image, codes, scheme)
    height, width, _ = pixels.shape
    figure: Figure = plt.figure(figsize=(WIDTH_INCHES, WIDTH_INCHES * height / width), dpi=width / WIDTH_INCHES)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels, aspect="auto")
    axes.set_axis_off()
    plt.close(figure)
    return figure
