import numpy as np
import pytest

from calibration.bias import find_bias_delta


def test_the_corrected_output_has_the_float_mean():
    random = np.random.default_rng(0)
    rows = random.normal(1, 1, (200, 6)).astype(np.float32)
    weight = random.normal(size=(6, 4)).astype(np.float32)
    coarse_rows, coarse_weight = np.floor(rows * 4) / 4, np.floor(weight * 4) / 4
    delta = find_bias_delta(rows.mean(axis=0, dtype=np.float64), rows, coarse_rows, weight, coarse_weight)
    shift = (coarse_rows @ coarse_weight - rows @ weight).mean(axis=0)
    assert np.abs(shift).max() > 0.1
    assert delta == pytest.approx(-shift, abs=1e-5)


def test_without_rows_the_weights_part_remains():
    weight = np.ones((2, 1), np.float32)
    none = np.zeros((0, 2), np.float32)
    assert find_bias_delta(np.array([3.0, 4.0]), none, none, weight, weight + 1) == pytest.approx([-7])
