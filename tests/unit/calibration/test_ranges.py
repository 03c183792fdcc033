import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.histogram import Histogram
from calibration.quantise import fake_quantise
from calibration.ranges import find_entropy, find_minmax, find_mse, find_percentile


def draw(seed, shape, size=5000):
    random = np.random.default_rng(seed)
    values = {
        "normal": lambda: random.normal(0, 1, size),
        "shifted": lambda: random.normal(2, 1, size),
        "heavy": lambda: random.standard_t(3, size),
        "one-sided": lambda: np.maximum(random.normal(0, 1, size), -0.17),
        "outlier": lambda: np.append(random.normal(0, 1, size), [80.0]),
    }[shape]()
    return (values * 10.0 ** random.uniform(-3, 3)).astype(np.float32)


samples = st.builds(
    draw, st.integers(0, 10_000), st.sampled_from(["normal", "shifted", "heavy", "one-sided", "outlier"])
)


def brute_error(values, chosen, symmetric):
    scale, zero_point, grid = chosen.fit(8, symmetric=symmetric)
    return float(np.square(fake_quantise(values, scale, zero_point, grid) - values).sum(dtype=np.float64))


@given(samples)
@settings(max_examples=40)
def test_minmax_is_the_extremes_to_a_bin(values):
    histogram = Histogram.empty().update(values)
    found = find_minmax(histogram)
    width = histogram.width()
    assert min(values.min(), 0) - width <= found.low <= min(values.min(), 0)
    assert max(values.max(), 0) <= found.high <= max(values.max(), 0) + width


@given(samples, st.sampled_from([90.0, 99.0, 99.9, 99.99]))
@settings(max_examples=40)
def test_symmetric_percentiles_are_those_of_the_magnitudes(values, percentile):
    histogram = Histogram.empty().update(values)
    found = find_percentile(histogram, percentile, symmetric=True)
    magnitudes = np.sort(np.abs(values))
    exact = magnitudes[int(np.ceil(len(values) * percentile / 100)) - 1]
    assert found.low == -found.high
    assert exact - 1e-6 * abs(exact) <= found.high <= exact + 2 * histogram.width()


@given(samples, st.sampled_from([99.0, 99.9]))
@settings(max_examples=40)
def test_asymmetric_percentiles_cut_both_ends(values, percentile):
    histogram = Histogram.empty().update(values)
    found = find_percentile(histogram, percentile, symmetric=False)
    allowed = len(values) * (1 - percentile / 100) / 2
    assert (values < found.low).sum() <= allowed
    assert (values > found.high).sum() <= allowed + 1e-6
    assert found.low <= 0 <= found.high


@given(samples, st.booleans())
@settings(max_examples=25)
def test_mse_is_nearly_the_best_a_search_over_the_raw_data_finds(values, symmetric):
    histogram = Histogram.empty().update(values)
    found = find_mse(histogram, 8, symmetric=symmetric)
    full = find_minmax(histogram)
    best = np.inf
    for ratio in np.linspace(0.02, 1, 100):
        low, high = full.low * ratio, full.high * ratio
        if symmetric:
            high = max(-full.low, full.high) * ratio
            low = -high
        best = min(best, brute_error(values, type(full)(low=low, high=high, method=""), symmetric))
    assert brute_error(values, found, symmetric) <= best * 1.1


def test_mse_clips_a_lone_outlier_and_nothing_else():
    values = np.append(np.random.default_rng(0).normal(0, 1, 100_000), [200.0]).astype(np.float32)
    # Rounding costs 100,000 * (c / 127)**2 / 12 = 0.517 c**2, clipping (200 - c)**2: least at 200 / 1.517.
    assert find_mse(Histogram.empty().update(values), 8, symmetric=True).high == pytest.approx(132, rel=0.1)
    flat = np.random.default_rng(0).uniform(-1, 1, 10_000).astype(np.float32)
    assert find_mse(Histogram.empty().update(flat), 8, symmetric=True).high == pytest.approx(1, rel=0.01)


def test_entropy_clips_a_long_tail_but_keeps_a_flat_distribution():
    random = np.random.default_rng(0)
    tail = random.standard_t(2, 50_000).astype(np.float32)
    found = find_entropy(Histogram.empty().update(tail), 8, symmetric=True)
    assert found.high < 0.5 * np.abs(tail).max()
    flat = random.uniform(-1, 1, 50_000).astype(np.float32)
    assert find_entropy(Histogram.empty().update(flat), 8, symmetric=True).high > 0.9


@given(samples, st.booleans())
@settings(max_examples=20)
def test_every_method_stays_inside_the_extremes(values, symmetric):
    histogram = Histogram.empty().update(values)
    full = find_minmax(histogram)
    largest = max(-full.low, full.high)
    for found in (
        find_entropy(histogram, 8, symmetric=symmetric),
        find_mse(histogram, 8, symmetric=symmetric),
        find_percentile(histogram, 99.9, symmetric=symmetric),
    ):
        assert -largest <= found.low <= 0 <= found.high <= largest


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_tensor_of_zeros_gets_a_usable_scale(symmetric):
    histogram = Histogram.empty().update(np.zeros(100, np.float32))
    for found in (
        find_minmax(histogram),
        find_percentile(histogram, 99.9, symmetric=symmetric),
        find_mse(histogram, 8, symmetric=symmetric),
        find_entropy(histogram, 8, symmetric=symmetric),
    ):
        scale, zero_point, grid = found.fit(8, symmetric=symmetric)
        assert scale > 0
        assert fake_quantise(np.zeros(1, np.float32), scale, zero_point, grid) == 0


def test_asymmetric_ranges_use_the_zero_point():
    values = np.random.default_rng(0).uniform(0, 4, 1000).astype(np.float32)
    scale, zero_point, grid = find_minmax(Histogram.empty().update(values)).fit(8, symmetric=False)
    assert (grid.dtype, zero_point) == ("uint8", 0)
    assert scale == pytest.approx(4 / 255, rel=0.01)
