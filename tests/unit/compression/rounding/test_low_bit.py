import numpy as np
import pytest

from compression.rounding.low_bit import find_width, pack_levels, unpack_levels

RANGES = {1: (-1, 1), 2: (-2, 1), 4: (-8, 7)}


def draw(bits, shape):
    low, high = RANGES[bits]
    levels = np.random.default_rng(bits).integers(low, high + 1, shape).astype(np.int8)
    return np.where(levels == 0, 1, levels).astype(np.int8) if bits == 1 else levels


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("shape", [(3, 16), (2, 5, 7), (4, 1), (0, 8)])
def test_what_is_packed_comes_back(bits, shape):
    levels = draw(bits, shape)
    packed = pack_levels(levels, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (*shape[:-1], -(-shape[-1] * bits // 8))
    assert np.array_equal(unpack_levels(packed, bits, shape[-1]), levels)


@pytest.mark.parametrize(
    ("bits", "levels", "bytes_"),
    [
        (1, [-1, 1, 1, -1, -1, -1, -1, 1, 1], [0b10000110, 0b1]),
        (2, [-2, -1, 0, 1, 1], [0b11100100, 0b11]),
        (4, [-8, 7, 0], [0xF0, 0x08]),
    ],
)
def test_the_first_number_has_the_lowest_bits(bits, levels, bytes_):
    assert pack_levels(np.array(levels, np.int8), bits).tolist() == bytes_


@pytest.mark.parametrize(("bits", "wrong"), [(1, 0), (1, 2), (2, 2), (2, -3), (4, 8)])
def test_a_number_that_does_not_fit_is_refused(bits, wrong):
    with pytest.raises(ValueError, match=f"{wrong} is no number of {bits} bits"):
        pack_levels(np.array([1, wrong], np.int8), bits)


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match="3 bytes do not hold 16 numbers of 2 bits"):
        unpack_levels(np.zeros((2, 3), np.uint8), 2, 16)


@pytest.mark.parametrize(
    ("levels", "bits"),
    [([-1, 1], 1), ([-1, 0, 1], 2), ([-2, 1], 2), ([2], 4), ([-8, 7], 4), ([8], None), ([-128], None)],
)
def test_the_least_width_is_found(levels, bits):
    assert find_width(np.array([levels], np.int8)) == bits
