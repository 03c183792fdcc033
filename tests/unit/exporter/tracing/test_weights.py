"""NaN and infinity are fatal, dead tensors are findings."""

import numpy as np
import pytest

from exporter.tracing.weights import check_weights
from runtimes.errors import UnsupportedModel


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_non_finite_weight_is_named_with_its_position(value, dtype):
    array = np.ones((3, 4), dtype)
    array[1, 2] = array[2, 0] = value
    with pytest.raises(UnsupportedModel, match=r"2 of 12 entries, the first at \(1, 2\) \(at tensor layer.w\)"):
        check_weights([("fine", np.ones(3, np.float32)), ("layer.w", array)])


def test_infinities_that_cancel_are_seen():
    with pytest.raises(UnsupportedModel, match="NaN or infinity"):
        check_weights([("w", np.array([np.inf, -np.inf]))])


def test_sum_that_overflows_is_not_an_infinity():
    assert check_weights([("w", np.full(4, np.finfo(np.float64).max))]) == ()


def test_dead_weight_is_a_finding_and_a_zero_bias_is_not():
    zeros = np.zeros((2, 2), np.float32)
    findings = check_weights([("a.weight", zeros), ("a.bias", np.zeros(2, np.float32)), ("b.weight", zeros + 1)])
    assert findings == ("the tensor 'a.weight' [2, 2] is dead: every entry is zero",)


def test_entries_that_cancel_are_not_dead():
    assert check_weights([("w", np.array([1.0, -1.0]))]) == ()


def test_integers_and_empty_tensors_are_passed_over():
    assert check_weights([("ids", np.zeros(3, np.int64)), ("none", np.zeros((0, 3), np.float32))]) == ()
