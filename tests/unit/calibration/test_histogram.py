import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.histogram import SIDE_BINS, SMALLEST_EXPONENT, Histogram

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def count(values):
    return Histogram.empty().update(np.asarray(values, np.float32))


@given(st.lists(floats, max_size=60), st.lists(st.integers(0, 60), max_size=5), st.randoms())
def test_any_order_and_any_split_give_the_same_counts(values, cuts, random):
    whole = count(values)
    shuffled = random.sample(values, len(values))
    parts = np.split(np.array(shuffled, np.float32), sorted(min(c, len(values)) for c in cuts))
    merged = Histogram.empty()
    for part in parts:
        merged = count(part).merge(merged)
    assert merged.exponent == whole.exponent
    assert merged.counts.tobytes() == whole.counts.tobytes()


@given(floats, floats)
def test_every_value_is_counted_in_the_bin_whose_edges_hold_it(value, other):
    histogram = count([value, other])
    lower, upper = histogram.edges()
    single = count([value]).merge(Histogram(exponent=histogram.exponent, counts=np.zeros_like(histogram.counts)))
    (bin_number,) = np.flatnonzero(single.counts)
    assert lower[bin_number] <= np.float32(value) <= upper[bin_number]
    assert histogram.counts[bin_number] > 0
    assert histogram.total() == 2


@given(st.lists(floats, min_size=1, max_size=20))
def test_the_exponent_is_the_smallest_that_holds_all(values):
    largest = float(np.abs(np.array(values, np.float32)).max())
    exponent = count(values).exponent
    assert largest < 2.0**exponent
    assert exponent == SMALLEST_EXPONENT or largest >= 2.0 ** (exponent - 1)


def test_zeros_do_not_widen_the_range():
    assert count([0.0, 0.0]).exponent == SMALLEST_EXPONENT
    assert count([0.0]).merge(count([1e-3])).exponent == count([1e-3]).exponent


def test_at_least_half_of_a_side_is_in_use():
    assert np.flatnonzero(count([1.9]).counts)[0] >= SIDE_BINS - 1 + SIDE_BINS // 2


def test_many_pieces_count_like_one():
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    histogram = count(values)
    index = np.trunc(values.astype(np.float64) / histogram.width()).astype(int)
    expected = np.bincount(index + SIDE_BINS - 1, minlength=2 * SIDE_BINS - 1)
    assert (histogram.counts == expected).all()


@pytest.mark.parametrize("value", [-3.4e38, 3.4e38, 1e-45])
def test_the_ends_of_float32(value):
    assert count([value]).total() == 1
