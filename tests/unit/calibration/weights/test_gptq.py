import numpy as np
import pytest

from calibration.weights.blocks import BlockFormat, search_grid
from calibration.weights.gptq import DAMPING, Curvature, round_gptq
from calibration.weights.rtn import round_to_nearest
from tests.unit.calibration.weights.layers import describe, make_layer, measure


def _round_in_float64(rows, layout, statistic, order):
    """Optimal brain quantisation with a fixed grid and order: the inverse of what is left is taken anew every time."""
    grid = search_grid(rows, layout, statistic.power)
    hessian = statistic.gram.astype(np.float64)
    hessian[np.diag_indices_from(hessian)] += DAMPING * np.diagonal(statistic.gram).mean(dtype=np.float64)
    left, done = rows.astype(np.float64), np.zeros(rows.shape)
    for place, column in enumerate(order):
        rest = order[place:]
        inverse = np.linalg.inv(hessian[np.ix_(rest, rest)])
        steps, zeros = (part[:, column // layout.size].astype(np.float64) for part in (grid.steps, grid.zeros))
        levels = np.clip(np.rint(left[:, column] / steps) + zeros, 0, layout.highest)
        done[:, column] = (levels - zeros) * steps
        error = (left[:, column] - done[:, column]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0]
    return done


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 2])
def test_it_rounds_as_written_out(bits, symmetric):
    rows, inputs = make_layer(rows=16, depth=160)
    statistic, layout = describe(inputs), BlockFormat(bits=bits, symmetric=symmetric)
    curvature = Curvature.prepare(statistic.gram)
    got = round_gptq(rows, layout, curvature).spell_out()
    expected = _round_in_float64(rows, layout, statistic, curvature.order)
    # A tie that float32 breaks the other way changes what comes after it in that row.
    same = np.isclose(got, expected, atol=1e-4).all(axis=1)
    assert same.mean() > 0.8
    assert measure(rows, got, inputs) == pytest.approx(measure(rows, expected, inputs), rel=0.02)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_it_beats_rounding_to_nearest(bits, symmetric, ordered):
    rows, inputs = make_layer(depth=200)
    statistic, layout = describe(inputs), BlockFormat(bits=bits, symmetric=symmetric)
    blocks = round_gptq(rows, layout, Curvature.prepare(statistic.gram, ordered=ordered))
    nearest = round_to_nearest(rows, layout, statistic.power)
    share = measure(rows, blocks.spell_out(), inputs) / measure(rows, nearest.spell_out(), inputs)
    assert share < 0.8
    assert blocks.levels.max() <= layout.highest


def test_the_order_is_that_of_the_inputs_power():
    _, inputs = make_layer()
    statistic = describe(inputs)
    assert (np.diff(statistic.power[Curvature.prepare(statistic.gram).order]) <= 0).all()
    assert (np.diff(Curvature.prepare(statistic.gram, ordered=False).order) == 1).all()


def test_independent_inputs_leave_nothing_to_make_up_for():
    rows, _ = make_layer(depth=64)
    layout = BlockFormat(bits=4)
    gram = np.eye(64, dtype=np.float32)
    got = round_gptq(rows, layout, Curvature.prepare(gram)).spell_out()
    np.testing.assert_allclose(got, round_to_nearest(rows, layout, np.ones(64, np.float32)).spell_out(), atol=1e-5)


@pytest.mark.parametrize("ordered", [True, False])
def test_inputs_that_are_always_zero_or_always_equal_are_no_harm(ordered):
    rows, inputs = make_layer(depth=64)
    inputs[:, 5:9] = 0
    inputs[:, 20] = inputs[:, 21]
    got = round_gptq(rows, BlockFormat(bits=4), Curvature.prepare(describe(inputs).gram, ordered=ordered)).spell_out()
    assert np.isfinite(got).all()
    assert np.abs(got[:, 5:9] - rows[:, 5:9]).max() < 1
    nearest = round_to_nearest(rows, BlockFormat(bits=4)).spell_out()
    assert measure(rows, got, inputs) < measure(rows, nearest, inputs)
