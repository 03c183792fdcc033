import numpy as np
import pytest

from calibration.few_levels import find_levels

RANDOM = np.random.default_rng(0)


def make(low, high, shape=(6, 64), groups=1):
    levels = RANDOM.integers(low, high + 1, shape).astype(np.int8)
    if low == -high == -1 and groups == 0:
        levels[levels == 0] = 1
    scales = RANDOM.uniform(0.01, 0.3, (shape[0], max(groups, 1))).astype(np.float32)
    wide = np.repeat(scales, shape[1] // scales.shape[1], axis=1)
    return levels, scales, levels.astype(np.float32) * wide


@pytest.mark.parametrize(("groups", "shape"), [(1, (6, 64)), (0, (6, 64)), (1, (3, 20))])
def test_two_or_three_levels_and_a_scale_a_row(groups, shape):
    levels, scales, rows = make(-1, 1, shape, groups)
    found = find_levels(rows)
    assert np.array_equal(found.levels, levels)
    np.testing.assert_allclose(found.scales, scales, rtol=1e-6)
    np.testing.assert_allclose(found.spell_out(), rows, rtol=1e-6)


@pytest.mark.parametrize(("groups", "shape"), [(2, (6, 64)), (1, (6, 48)), (12, (40, 384))])
def test_four_bits_in_blocks_or_in_rows(groups, shape):
    levels, scales, rows = make(-8, 7, shape, groups)
    found = find_levels(rows)
    assert found.scales.shape == (shape[0], groups)
    assert np.abs(found.levels).max() <= 8
    np.testing.assert_allclose(found.spell_out(), rows, rtol=2e-6, atol=1e-7 * scales.max())
    assert np.array_equal(np.sign(found.levels), np.sign(levels))


def test_levels_of_zeros_take_the_fewest_bits():
    _, _, rows = make(-1, 1, groups=0)
    rows[2] = 0
    found = find_levels(rows)
    assert (np.abs(found.levels) == 1).all()
    assert found.scales[2] == 0
    assert np.array_equal(found.spell_out()[2], np.zeros(64))


def test_one_row_of_other_numbers_is_enough():
    _, _, rows = make(-1, 1)
    rows[5, 3] *= 1.01
    assert find_levels(rows) is None


@pytest.mark.parametrize(
    "rows",
    [
        RANDOM.normal(size=(8, 64)).astype(np.float32),
        np.where(RANDOM.random((8, 64)) < 0.9, 0, RANDOM.normal(size=(8, 64))).astype(np.float32),
        np.zeros((8, 64), np.float32),
        np.ones((8, 8), np.float32),
        np.full((8, 64), np.nan, np.float32),
        np.ones((0, 64), np.float32),
        (RANDOM.integers(-127, 128, (8, 64)) * 0.01).astype(np.float32),
        (RANDOM.integers(-8, 9, (8, 64)) * np.float32(0.1)).astype(np.float32),
    ],
    ids=["any", "pruned", "zero", "short", "nan", "empty", "int8", "17 levels"],
)
def test_other_weights_have_none(rows):
    assert find_levels(rows) is None
