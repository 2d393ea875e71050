import numpy as np
import pytest
import torch
from torch import Tensor

from bidsseg.labels import TISSUES, lobe_parts
from bidsseg.network.config import UNetConfig
from bidsseg.network.heads import heads_near_brain
from bidsseg.network.unet import UNet


def test_answers_of_blocks_go_to_their_own_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that answer with a block's grey values give the volume back."""
    net, volume = UNet(UNetConfig(widths=(4, 6), head_width=5)), torch.rand(12, 8, 16)
    with torch.no_grad():
        features = net.features(volume[None, None])
    monkeypatch.setattr(net, "embed", lambda found, blocks: found.fine[4:12].flatten(1)[:, blocks] / 4 + 0.3)

    def grey(net: UNet, views: list[Tensor], gyri: bool) -> tuple[Tensor, Tensor, Tensor]:
        (embedded,) = views
        tissue, right = (embedded[:, None].expand(-1, channels, -1) for channels in (len(TISSUES), 1))
        return tissue, right, embedded.mean(0).expand(len(lobe_parts()), -1)

    monkeypatch.setattr("bidsseg.network.heads._heads", grey)
    near = np.ones((6, 4, 8), bool)
    near[2, 1, 3] = False
    window = (slice(1, 6), slice(0, 4), slice(2, 8))
    tissue, right, parcels = heads_near_brain(net, [features], near, window, gyri=False, scratch=None)
    expected = volume[2:, :, 4:].half().numpy()
    asked = near[window].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    for channel in (tissue[3], right[0]):
        np.testing.assert_allclose(channel, np.where(asked, expected, 0), atol=2e-3)
    means = volume[2:, :, 4:].unfold(0, 2, 2).unfold(1, 2, 2).unfold(2, 2, 2).mean((-3, -2, -1))
    np.testing.assert_allclose(parcels[..., 0], np.where(near[window], means, 0), atol=2e-3)
