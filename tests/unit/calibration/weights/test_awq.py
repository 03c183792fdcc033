import numpy as np

from calibration.weights.awq import find_scales
from calibration.weights.blocks import BlockFormat
from calibration.weights.rtn import round_to_nearest
from tests.unit.calibration.weights.layers import describe, make_layer, measure

LAYOUT = BlockFormat(bits=4)
OWN = np.arange(96)


def _search_in_float64(rows, layout, inputs, alphas):
    """Equation 5 of the paper, over the samples themselves: the exponent of least squared change at the outputs."""
    magnitude = np.abs(inputs.astype(np.float64)).mean(axis=0)
    errors = []
    for alpha in alphas:
        scales = magnitude**alpha
        scales /= np.sqrt(scales.max() * scales.min())
        rounded = round_to_nearest((rows * scales).astype(np.float32), layout).spell_out() / scales
        errors.append(np.square(inputs @ (rounded - rows).T).sum())
    return alphas[int(np.argmin(errors))], min(errors) / errors[0]


def test_it_finds_the_exponent_that_is_best_for_the_samples():
    rows, inputs = make_layer()
    alpha, share = _search_in_float64(rows, LAYOUT, inputs, np.arange(0, 1, 0.1))
    scales = find_scales([(rows, LAYOUT)], describe(inputs), OWN)
    expected = np.abs(inputs).mean(axis=0) ** alpha
    np.testing.assert_allclose(scales / scales[0], expected / expected[0], rtol=1e-4)
    assert alpha > 0
    assert share < 0.8


def test_it_beats_rounding_to_nearest():
    rows, inputs = make_layer()
    scales = find_scales([(rows, LAYOUT)], describe(inputs), OWN)
    plain = round_to_nearest(rows, LAYOUT).spell_out()
    scaled = round_to_nearest(rows * scales, LAYOUT).spell_out() / scales
    assert measure(rows, scaled, inputs) < 0.8 * measure(rows, plain, inputs)


def test_inputs_all_alike_are_left_alone():
    random = np.random.default_rng(0)
    rows = random.standard_normal((32, 96)).astype(np.float32)
    inputs = random.choice([-1.0, 1.0], (64, 96)).astype(np.float32)
    assert (find_scales([(rows, LAYOUT)], describe(inputs), OWN) == 1).all()


def test_inputs_of_one_channel_get_one_factor():
    rows, inputs = make_layer()
    channels = np.repeat(np.arange(24).reshape(3, 8), 4, axis=0).reshape(-1)
    scales = find_scales([(rows, LAYOUT)], describe(inputs), channels)
    assert all(len(np.unique(scales[channels == channel])) == 1 for channel in range(24))
    assert len(np.unique(scales)) > 1


def test_an_input_that_is_always_zero_keeps_its_scale():
    rows, inputs = make_layer()
    inputs[:, 3] = 0
    scales = find_scales([(rows, LAYOUT)], describe(inputs), OWN)
    assert scales[3] == 1
    assert np.isfinite(scales).all()
