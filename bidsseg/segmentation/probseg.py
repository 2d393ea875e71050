"""The probability of every label of a scheme, on a scan's own grid: what ``--probseg`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bidsseg.files import reserve
from bidsseg.imaging.arrays import Floats
from bidsseg.imaging.grid import SLAB_FLOATS, Grid, slabs, to_native_axes
from bidsseg.labels import N_PARCELS, TISSUES, Scheme, code_lookup, label_table, part_codes
from bidsseg.network.probabilities import Probabilities

FULL = 255
"Stored for a probability of 1."


def label_probabilities(channels: Floats, scheme: Scheme) -> Floats:
    """(labels, i, j, k) from (C, i, j, k) probabilities of tissues, right side and parcels; order of the label table.

    A label's probability is that of its tissues times its side times its parcels, summed over all that bear it.
    """
    n = len(TISSUES)
    side, parcels = (1 - channels[n], channels[n]), channels[n + 1 :]
    lookup = code_lookup(scheme) if len(parcels) == N_PARCELS else part_codes(scheme)
    position = {label.index: row for row, label in enumerate(label_table(scheme))}
    result = np.zeros((len(position), *channels.shape[1:]), np.float32)
    for tissue, hemisphere in np.ndindex(lookup.shape[:2]):
        codes = lookup[tissue, hemisphere]
        share = channels[tissue] * side[hemisphere]
        for code in np.unique(codes[codes > 0]):
            bears = codes == code
            result[position[int(code)]] += share if bears.all() else share * parcels[bears].sum(0)
    return result


def write_probabilities(
    path: Path, found: Probabilities, grid: Grid, scheme: Scheme, max_floats: int = SLAB_FLOATS
) -> Path:
    """Write (labels, I, J, K) uint8 in the scan's own axes, ``FULL`` times the probability, as .npy, slab by slab."""
    canonical = path.with_suffix(".canonical.npy")
    labels = len(label_table(scheme))
    whole = _memory_map(canonical, (labels, *grid.canonical_shape))
    n_channels = len(found.tissue) + len(found.right) + found.parcels.shape[-1]
    for slab in slabs(found.tissue.shape[1:], found.origin, grid, n_channels + labels, max_floats):
        tissue, right = slab.of(found.tissue), slab.of(found.right)
        parcels = slab.of_blocks(found.parcels, np.ones(right.shape[1:], bool)).reshape(-1, *right.shape[1:])
        channels = np.concatenate((tissue, right, parcels))
        whole[(slice(None), *slab.window)] = np.rint(FULL * label_probabilities(channels, scheme))
    native = _memory_map(path, (labels, *grid.native_shape))
    for row in range(labels):
        native[row] = to_native_axes(whole[row], grid)
    native.flush()
    canonical.unlink()
    return path


def _memory_map(path: Path, shape: tuple[int, ...]) -> Any:
    mapped = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("r+b") as file:
        reserve(file, path.stat().st_size, path)
    return mapped
