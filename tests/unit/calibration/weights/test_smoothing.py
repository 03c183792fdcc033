import numpy as np

from calibration.quantise import quantise_weight
from calibration.weights.smoothing import find_smoothing, measure_rounding
from tests.unit.calibration.weights.layers import describe, make_layer

OWN = np.arange(96)


def make_outlier():
    """Return (weight, inputs) where two channels are much larger than the rest, as behind the norms of decoders."""
    rows, inputs = make_layer()
    inputs = inputs / np.abs(inputs).max(axis=0)
    inputs[:, [5, 40]] *= 80
    return rows, inputs.astype(np.float32)


def round_both(rows, inputs, scales):
    divided = inputs / scales
    steps = np.abs(divided).max(axis=1, keepdims=True) / 127
    values, step, _ = quantise_weight(rows * scales, axis=0)
    return (np.rint(divided / steps) * steps) @ (values * step[:, None]).T


def test_what_is_measured_is_what_rounding_changes():
    rows, inputs = make_outlier()
    few, scales = inputs[:64], np.exp(np.random.default_rng(0).standard_normal(96)).astype(np.float32)
    wanted = few.astype(np.float64) @ rows.T.astype(np.float64)
    lost = np.square(round_both(rows, few, scales) - wanted).sum(axis=1) / np.square(wanted).sum(axis=1)
    np.testing.assert_allclose(measure_rounding([rows], few, scales), lost.mean(), rtol=1e-3)
    halves = [rows[:20], rows[20:]]
    np.testing.assert_allclose(measure_rounding(halves, few, scales), lost.mean(), rtol=1e-3)


def test_large_channels_are_moved_into_the_weights():
    rows, inputs = make_outlier()
    scales = find_smoothing([rows], describe(inputs), OWN)
    assert scales[[5, 40]].min() > 3 * np.median(scales)
    before, after = (measure_rounding([rows], inputs[:512], one) for one in (np.ones(96, np.float32), scales))
    assert after < 0.1 * before


def test_inputs_all_alike_are_left_alone():
    random = np.random.default_rng(0)
    # Levels of int8 on both sides: nothing is lost, and nothing is to be gained.
    rows = random.choice([-127.0, 127.0], (32, 96)).astype(np.float32)
    inputs = random.choice([-1.0, 1.0], (64, 96)).astype(np.float32)
    assert (find_smoothing([rows], describe(inputs), OWN) == 1).all()


def test_inputs_of_one_channel_get_one_factor():
    rows, inputs = make_outlier()
    channels = np.repeat(np.arange(24).reshape(3, 8), 4, axis=0).reshape(-1)
    scales = find_smoothing([rows], describe(inputs), channels)
    assert all(len(np.unique(scales[channels == channel])) == 1 for channel in range(24))
    assert len(np.unique(scales)) > 1


def test_channels_that_are_never_used_or_read_leave_every_factor_finite():
    rows, inputs = make_outlier()
    inputs[:, 3], rows[:, 7] = 0, 0
    scales = find_smoothing([rows], describe(inputs), OWN)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
