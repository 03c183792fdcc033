import numpy as np
import pytest

from calibration.weights.blocks import BlockFormat
from calibration.weights.rtn import round_to_nearest
from tests.unit.calibration.weights.layers import describe, make_layer, measure


def _round_in_float64(rows, bits, size):
    """Round symmetrically, written out: the largest magnitude is the lowest level."""
    out = np.zeros(rows.shape)
    middle = 2 ** (bits - 1)
    for line in range(len(rows)):
        for start in range(0, rows.shape[1], size):
            block = rows[line, start : start + size].astype(np.float64)
            peak = block[np.abs(block).argmax()]
            step = -peak / middle
            out[line, start : start + size] = np.clip(np.rint(block / step), -middle, middle - 1) * step
    return out


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_it_rounds_as_written_out(bits):
    rows, _ = make_layer(rows=300, depth=80)
    got = round_to_nearest(rows, BlockFormat(bits=bits)).spell_out()
    np.testing.assert_allclose(got, _round_in_float64(rows, bits, 32), atol=1e-5)


def test_the_other_sign_is_no_worse():
    rows, _ = make_layer()
    layout = BlockFormat(bits=4)
    np.testing.assert_array_equal(
        round_to_nearest(-rows, layout).spell_out(), -round_to_nearest(rows, layout).spell_out()
    )


@pytest.mark.parametrize("bits", [4, 2])
def test_a_zero_point_helps_where_weights_lean(bits):
    rows = np.abs(make_layer()[0])
    off = [
        np.square(round_to_nearest(rows, BlockFormat(bits=bits, symmetric=symmetric)).spell_out() - rows).sum()
        for symmetric in (True, False)
    ]
    assert off[1] < off[0]


def test_knowing_what_counts_helps():
    rows, inputs = make_layer()
    layout = BlockFormat(bits=4)
    plain = round_to_nearest(rows, layout).spell_out()
    weighed = round_to_nearest(rows, layout, describe(inputs).power).spell_out()
    assert measure(rows, weighed, inputs) < 0.95 * measure(rows, plain, inputs)
