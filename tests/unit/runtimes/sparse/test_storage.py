"""What is stored comes back as it was, takes what it should, and cannot be read when it is damaged."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.errors import CorruptArtifact
from runtimes.sparse.storage import BLOCKS, StoredWeight, count_bytes, count_entries, decode, encode, find_excess, stack


def prune(out: int, inputs: int, share: float, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (out, inputs)).astype(dtype)
    weight[rng.random((out, inputs)) < share] = 0
    return weight


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_weights_below_each_other_are_one(block, dtype):
    weights = [
        prune(48, 700, 0.9, dtype, seed=0),
        prune(16, 700, 1.0, dtype, seed=1),
        prune(16, 700, 0.5, dtype, seed=2),
    ]
    stacked, expected = stack([encode(one, block) for one in weights]), encode(np.concatenate(weights), block)
    assert (stacked.shape, stacked.block) == (expected.shape, expected.block)
    for name in ("values", "gaps", "row_starts"):
        np.testing.assert_array_equal(getattr(stacked, name), getattr(expected, name), strict=True)


@given(
    shape=st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 700)),
        # More rows than are counted at a time.
        st.tuples(st.integers(250, 600), st.integers(1, 9)),
    ),
    block=st.sampled_from(BLOCKS),
    share=st.sampled_from([0.0, 0.5, 0.9, 0.999, 1.0]),
    dtype=st.sampled_from([np.float32, np.int8]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_what_is_stored_comes_back(shape, block, share, dtype, seed):
    weight = prune(*shape, share, dtype, seed)
    stored = encode(weight, block)
    back = decode(stored)
    assert back.dtype == weight.dtype
    assert np.array_equal(back, weight)
    assert len(stored.row_starts) == -(-shape[0] // block[0]) + 1
    assert stored.row_starts[-1] == len(stored.gaps)
    assert stored.values.size == len(stored.gaps) * block[0] * block[1]
    assert count_entries(weight != 0, block) == len(stored.gaps)
    taken = count_bytes(shape, block, len(stored.gaps), value_bytes=weight.itemsize)
    assert taken == stored.size_bytes


@pytest.mark.parametrize(
    ("column", "gaps"), [(0, [0]), (255, [255]), (256, [255, 0]), (511, [255, 255]), (512, [255, 255, 0])]
)
def test_a_long_gap_is_bridged_by_zeros(column, gaps):
    weight = np.zeros((1, 600), np.float32)
    weight[0, column] = 3.0
    stored = encode(weight, (1, 1))
    assert stored.gaps.tolist() == gaps
    assert stored.values.tolist() == [0.0] * (len(gaps) - 1) + [3.0]


def test_each_row_counts_from_the_left_edge():
    weight = np.zeros((3, 8), np.float32)
    weight[0, 6] = weight[2, 1] = weight[2, 3] = 1
    stored = encode(weight, (1, 1))
    assert stored.gaps.tolist() == [6, 1, 1]
    assert stored.row_starts.tolist() == [0, 1, 1, 3]


def test_blocks_are_outputs_by_inputs_and_stored_row_by_row():
    weight = np.arange(1, 33, dtype=np.float32).reshape(4, 8)
    stored = encode(weight, (4, 4))
    assert stored.values[:8].tolist() == [1, 2, 3, 4, 9, 10, 11, 12]
    assert encode(weight, (4, 1)).values[:4].tolist() == [1, 9, 17, 25]
    assert encode(weight, (1, 4)).values[:4].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 0.13), (np.int8, 0.055)])
def test_ninety_percent_sparse_takes_an_eighth_or_a_twentieth(dtype, bound):
    weight = prune(1536, 384, 0.9, dtype)
    assert encode(weight, (1, 1)).size_bytes <= bound * 4 * weight.size


@pytest.mark.parametrize(
    ("weight", "block", "named"),
    [
        (np.ones((2, 2)), (1, 1), "float64"),
        (np.ones(4, np.float32), (1, 1), "matrix"),
        (np.ones((0, 4), np.float32), (1, 1), "matrix"),
        (np.ones((4, 4), np.float32), (2, 2), "2x2"),
    ],
)
def test_what_cannot_be_stored_is_named(weight, block, named):
    with pytest.raises(ValueError, match=named):
        encode(weight, block)


# What no memory holds is claimed by strides of nothing.
@pytest.mark.parametrize(
    ("shape", "dtype", "named"),
    [
        (
            (1 << 17, (1 << 15) + 1),
            np.float32,
            r"out_features \* in_features is 4295098368; expected at most 4294967296",
        ),
        (((1 << 24) + 1, 1), np.float32, "out_features is 16777217; expected at most 16777216"),
        ((1, (1 << 24) + 1), np.float32, "in_features is 16777217; expected at most 16777216"),
        ((1, (1 << 16) + 1), np.int8, "in_features is 65537; expected at most 65536"),
    ],
)
def test_what_the_kernels_would_not_load_is_neither_stored_nor_read(shape, dtype, named):
    with pytest.raises(ValueError, match=named):
        encode(np.broadcast_to(dtype(0), shape), (1, 1))
    empty = encode(np.zeros((1, 1), dtype), (1, 1))
    starts = np.broadcast_to(np.int32(0), (shape[0] + 1,))
    with pytest.raises(CorruptArtifact, match=named):
        decode(replace(empty, shape=shape, row_starts=starts))


def test_the_largest_that_the_kernels_load_is_stored():
    weight = np.zeros((1, 1 << 16), np.int8)
    weight[0, -1] = 3
    assert np.array_equal(decode(encode(weight, (1, 4))), weight)
    assert find_excess((1 << 16, 1 << 16), int8=True) == ""


def _damage(stored: StoredWeight) -> list[StoredWeight]:
    starts, gaps = stored.row_starts, stored.gaps
    return [
        replace(stored, block=(2, 2)),
        replace(stored, shape=(0, 16)),
        replace(stored, shape=(9, 16)),
        replace(stored, row_starts=starts[:-1]),
        replace(stored, row_starts=starts + np.int32(1)),
        replace(stored, row_starts=np.r_[starts[:2], starts[-1] + 5, starts[3:]].astype(np.int32)),
        replace(stored, row_starts=np.r_[starts[:-1], starts[-1] - 1].astype(np.int32)),
        replace(stored, values=stored.values[:-1]),
        replace(stored, gaps=np.r_[gaps[:-1], np.uint8(200)]),
    ]


@pytest.mark.parametrize("case", range(9))
def test_a_damaged_weight_is_refused(case):
    stored = encode(prune(8, 16, 0.5), (1, 1))
    decode(stored)
    with pytest.raises(CorruptArtifact, match="damaged") as refused:
        decode(_damage(stored)[case])
    assert refused.value.cure
