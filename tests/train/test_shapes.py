import torch

from bidsseg.train.shapes import in_groups


def test_groups_hold_one_shape() -> None:
    groups = in_groups([torch.full((n, 1), float(at)) for at, n in enumerate((1, 2, 1, 1, 2))], lambda one: one.shape)
    assert [[int(one[0]) for one in group] for group in groups] == [[0, 2, 3], [1, 4]]
