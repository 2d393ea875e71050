"""Where the lesion network's answer comes to lie on the scan's own grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bidsseg.imaging.grid import conform
from bidsseg.imaging.image import Image
from bidsseg.labels import TISSUE, TISSUES
from bidsseg.network.lesion_card import LesionCard
from bidsseg.network.lesion_config import LesionNetConfig
from bidsseg.network.lesion_model import LesionModel
from bidsseg.network.lesion_net import LesionNet
from bidsseg.network.probabilities import Probabilities
from bidsseg.segmentation.lesion_probability import lesion_answer
from bidsseg.segmentation.pipeline import Answer
from tests.phantoms import head

BRIGHT = (slice(20, 24), slice(25, 29), slice(18, 22))
"Of the scan's own voxels."


class _Bright(LesionNet):
    """Lesion is what is brighter than cortex by ten of its spreads."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, relative: Tensor, white: Tensor, groups: Tensor) -> Tensor:
        assert all(n == 2 * m for n, m in zip(relative.shape[2:], groups.shape[2:], strict=True))
        return torch.where(relative[:, 0] > 10, 10.0, -10.0)


@pytest.mark.parametrize("flipped", [(), (0,), (1, 2)])
@pytest.mark.parametrize("origin", [(0, 0, 0), (3, 5, 1)])
def test_a_bright_box_is_found_where_it_lies(flipped: tuple[int, ...], origin: tuple[int, int, int]) -> None:
    """The tissue has CSF around it, of odd sides, and probabilities begin anywhere."""
    scan = head((40, 45, 37), np.diag((*(-1.0 if axis in flipped else 1.0 for axis in range(3)), 1.0)))
    rng = np.random.default_rng(0)
    data = rng.normal(100, 2, scan.data.shape).astype(np.float32)
    data[BRIGHT] = 200
    conformed, grid = conform(Image(data, scan.affine, scan.header))
    i, j, k = origin
    box = conformed[i:, j:, k:]
    tissue = np.zeros((len(TISSUES), *box.shape), np.float16)
    inside = np.zeros(box.shape, bool)
    inside[7 - i : -6, 7 - j : -6, 7 - k : -6] = True
    tissue[TISSUE["csf"]] = ~inside
    tissue[TISSUE["white-matter"]] = inside
    probabilities = Probabilities(origin, tissue, tissue[:1], tissue[:1])
    model = LesionModel(_Bright(), LesionCard("bright", "0", LesionNetConfig(), ""))
    found = lesion_answer(Answer(conformed, conformed, grid, probabilities), model, "cpu").probability
    expected = np.zeros(data.shape, bool)
    expected[BRIGHT] = True
    assert np.array_equal(found > 0.5, expected)
