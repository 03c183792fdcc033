import numpy as np
import pytest

from calibration.smooth import find_smoothing


def test_it_is_equation_four_up_to_a_factor():
    activation = np.array([1, 4, 16], np.float32)
    weights = [np.array([[1, -2], [0.5, 1], [3, 1]], np.float32), np.array([[0.1], [-4], [0.2]], np.float32)]
    expected = activation**0.7 / np.array([2, 4, 3]) ** 0.3
    found = find_smoothing(activation, weights, 0.7)
    assert found / found[0] == pytest.approx(expected / expected[0], rel=1e-6)
    assert np.log(found).mean() == pytest.approx(0, abs=1e-6)


def test_alpha_one_gives_every_activation_channel_the_same_range():
    activation = np.array([1, 4, 16], np.float32)
    scaled = activation / find_smoothing(activation, [np.ones((3, 2), np.float32)], 1.0)
    assert scaled == pytest.approx(np.full(3, scaled[0]), rel=1e-6)


def test_dead_channels_keep_one():
    weight = np.array([[1.0], [0.0], [2.0]], np.float32)
    found = find_smoothing(np.array([0, 5, 3], np.float32), [weight], 0.5)
    assert found.tolist() == [1, 1, 1]
    assert find_smoothing(np.zeros(3, np.float32), [weight], 0.5).tolist() == [1, 1, 1]
