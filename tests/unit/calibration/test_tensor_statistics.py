import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.tensor_statistics import LARGEST_MAGNITUDE, SUM_UNIT, TensorStatistics, hash_identities

arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=24),
    elements=st.floats(-(2.0**39), 2.0**39, width=32),
)


def as_bytes(statistics):
    return (
        statistics.rows,
        statistics.zeros,
        statistics.histogram.exponent,
        *(
            array.tobytes()
            for array in (
                statistics.minimum,
                statistics.maximum,
                statistics.sum_high,
                statistics.sum_low,
                statistics.histogram.counts,
                statistics.sample_keys,
                statistics.sample,
            )
        ),
    )


@given(arrays, st.lists(st.integers(0, 24), max_size=4), st.randoms(), st.booleans())
def test_any_order_and_any_split_give_the_same_bytes(rows, cuts, random, as_tree):
    identities = np.arange(len(rows), dtype=np.uint64)
    empty = TensorStatistics.empty(rows.shape[1], capacity=5)
    order = random.sample(range(len(rows)), len(rows))
    parts = np.split(np.array(order, int), sorted(min(cut, len(rows)) for cut in cuts))
    if as_tree:
        pieces = [empty.update(rows[part], identities[part]) for part in parts]
        while len(pieces) > 1:
            pieces.append(pieces.pop(0).merge(pieces.pop(0)))
        found = pieces[0]
    else:
        found = empty
        for part in parts:
            found = found.update(rows[part], identities[part])
    assert as_bytes(found) == as_bytes(empty.update(rows, identities))


@given(arrays)
def test_extremes_and_sums_are_those_of_the_rows(rows):
    found = TensorStatistics.empty(rows.shape[1]).update(rows, np.arange(len(rows), dtype=np.uint64))
    assert (found.minimum == rows.min(axis=0)).all()
    assert (found.absmax() == np.abs(rows).max(axis=0)).all()
    assert found.zeros == (rows == 0).sum()
    exact = [sum(round(float(value) / SUM_UNIT) for value in column) for column in rows.T]
    kept = [int(high) * 2**32 + int(low) for high, low in zip(found.sum_high, found.sum_low, strict=True)]
    assert kept == exact


def test_the_mean_of_many_rows():
    rows = np.random.default_rng(0).normal(3, 1, (1000, 7)).astype(np.float32)
    found = TensorStatistics.empty(7).update(rows, np.arange(1000, dtype=np.uint64))
    assert found.mean() == pytest.approx(rows.mean(axis=0, dtype=np.float64), abs=1e-8)


def test_the_sample_is_uniform_and_keeps_whole_rows():
    rows = np.arange(4000, dtype=np.float32).reshape(-1, 1).repeat(3, axis=1)
    found = TensorStatistics.empty(3, capacity=400).update(rows, np.arange(4000, dtype=np.uint64))
    assert found.sample.shape == (400, 3)
    assert (found.sample == found.sample[:, :1]).all()
    assert len(np.unique(found.sample[:, 0])) == 400
    # The standard error of a mean of 400 out of 0..3999 is 58.
    assert found.sample[:, 0].mean() == pytest.approx(2000, abs=4 * 58)


def test_hashing_is_one_to_one():
    assert len(np.unique(hash_identities(np.arange(100_000, dtype=np.uint64)))) == 100_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, LARGEST_MAGNITUDE])
def test_what_cannot_be_counted_is_refused(value):
    rows = np.ones((4, 2), np.float32)
    rows[2, 1] = value
    with pytest.raises(ValueError, match="NaN, Inf"):
        TensorStatistics.empty(2).update(rows, np.arange(4, dtype=np.uint64))


def test_different_tensors_do_not_merge():
    with pytest.raises(ValueError, match="different"):
        TensorStatistics.empty(2).merge(TensorStatistics.empty(3))


def test_dead_means_seen_and_always_zero():
    empty = TensorStatistics.empty(2)
    identities = np.arange(1, dtype=np.uint64)
    assert not empty.is_dead()
    assert empty.update(np.zeros((1, 2), np.float32), identities).is_dead()
    assert not empty.update(np.array([[0, -1]], np.float32), identities).is_dead()
