import numpy as np

from bidsseg.bias import correct_bias
from tests.phantoms import image


def test_bias_correction_flattens_a_field() -> None:
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, 40),) * 3, indexing="ij")
    head = (i**2 + j**2 + k**2 < 0.8).astype(np.float32)
    field = np.exp(0.5 * i).astype(np.float32)
    corrected = correct_bias(image(100 * head * field, np.diag((4.0, 4.0, 4.0, 1.0))))
    inside = head > 0
    spread = [float(data[inside].std() / data[inside].mean()) for data in (100 * field, corrected.data)]
    assert spread[1] < 0.4 * spread[0]
