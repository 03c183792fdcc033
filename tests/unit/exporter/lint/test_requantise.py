"""Weights on another grid."""

import numpy as np
import pytest

from exporter.lint.requantise import quantise_weight


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_every_weight_is_within_half_a_step(axis):
    weight = np.random.default_rng(0).standard_normal((6, 9)).astype(np.float32)
    integers, scale = quantise_weight(weight, axis, np.dtype(np.float32))
    assert scale.shape == (() if axis is None else (weight.shape[axis],))
    wide = scale if axis is None else np.expand_dims(scale, 1 - axis)
    assert np.abs(integers * wide - weight).max() <= scale.max() / 2 + 1e-6
    assert np.abs(integers.astype(np.int16)).max() == 127


@pytest.mark.parametrize("value", [0.0, 1e-9])
def test_what_no_scale_can_hold_is_zero(value):
    """1e-9 / 127 is zero in FP16."""
    weight = np.full((2, 3), value, np.float32)
    weight[0] = 1
    integers, scale = quantise_weight(weight, 0, np.dtype(np.float16))
    assert integers.tolist() == [[127] * 3, [0] * 3]
    assert scale[1] == 1
