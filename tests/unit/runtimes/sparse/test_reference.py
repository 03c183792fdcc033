"""The reference itself, against plain arithmetic and at the edges of its definition."""

import math

import numpy as np
import pytest

from runtimes.sparse.reference import ACTIVATIONS, activate, quantise_tokens, sparse_linear, sparse_linear_int8
from runtimes.sparse.storage import BLOCKS, encode

RNG = np.random.default_rng(3)
F32 = np.float32


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(F32)


@pytest.mark.parametrize("block", BLOCKS)
def test_float_is_the_dense_product(block):
    weight, x, bias = draw(20, 12) * (RNG.random((20, 12)) < 0.3), draw(2, 3, 12), draw(20)
    got = sparse_linear(x, encode(weight.astype(F32), block), bias, "none")
    assert got.shape == (2, 3, 20)
    np.testing.assert_allclose(got, x @ weight.T + bias, rtol=1e-5, atol=1e-5)


def test_int8_is_close_to_float_and_exact_in_its_integers():
    weight = RNG.integers(-127, 128, (20, 64)).astype(np.int8)
    scales, x, bias = np.abs(draw(20)) * F32(0.01), draw(5, 64), draw(20)
    stored = encode(weight, (4, 4))
    got = sparse_linear_int8(x, stored, scales, bias, "none")
    exact = x @ (weight * scales[:, None]).T + bias
    assert np.abs(got - exact).max() < 0.02 * np.abs(exact).max()
    levels, steps, points = quantise_tokens(x)
    for token in range(5):
        for row in range(20):
            total = sum((int(q) - int(points[token])) * int(w) for q, w in zip(levels[token], weight[row], strict=True))
            assert got[token, row] == F32(F32(total) * F32(steps[token] * scales[row])) + bias[row]


def test_a_token_is_quantised_by_itself():
    x = draw(6, 32) * np.array([1e-6, 1, 1e6, 3, 1e-20, 7], F32)[:, None]
    together = quantise_tokens(x)
    for token in range(6):
        alone = quantise_tokens(x[token])
        assert all(np.array_equal(one[token], other) for one, other in zip(together, alone, strict=True))
    assert (together[0].max(axis=1) == 255).all()


@pytest.mark.parametrize(
    ("token", "levels", "step", "point"),
    [
        ([0.0, 0.0], [0, 0], 1.0, 0),
        ([0.0, 255.0], [0, 255], 1.0, 0),
        ([-255.0, 0.0], [0, 255], 1.0, 255),
        ([0.5, 1.5, 2.5, 255.0], [0, 2, 2, 255], 1.0, 0),
        ([1e-40, -1e-40], [0, 0], 1.0, 0),
    ],
)
def test_levels_are_rounded_to_even_and_a_range_of_nothing_has_a_step_of_one(token, levels, step, point):
    found = quantise_tokens(np.array(token, F32))
    assert (found[0].tolist(), float(found[1]), int(found[2])) == (levels, step, point)


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], [-math.inf, 1.0], [3e38, -3e38]])
def test_a_token_that_has_no_range_answers_nan_and_leaves_the_others_alone(bad):
    stored = encode(np.ones((3, 2), np.int8), (1, 1))
    x = np.array([[1.0, 2.0], bad], F32)
    for activation in ACTIVATIONS:
        got = sparse_linear_int8(x, stored, np.ones(3, F32), np.zeros(3, F32), activation)
        assert np.isfinite(got[0]).all()
        assert np.isnan(got[1]).all()


def test_no_tokens():
    stored = encode(np.ones((3, 2), np.int8), (1, 1))
    assert sparse_linear_int8(np.zeros((0, 2), F32), stored, np.ones(3, F32), np.zeros(3, F32), "none").shape == (0, 3)
    stored = encode(np.ones((3, 2), F32), (1, 1))
    assert sparse_linear(np.zeros((4, 0, 2), F32), stored, np.zeros(3, F32), "gelu").shape == (4, 0, 3)


def test_activations():
    x = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    assert activate(x, "none") is x
    assert activate(x, "relu").tolist() == [0, 0, 0, 0.5, 3]
    erf = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    np.testing.assert_allclose(activate(x, "gelu"), erf)
    np.testing.assert_allclose(activate(x, "gelu_tanh"), erf, atol=1e-3)
    assert not np.array_equal(activate(x, "gelu_tanh"), activate(x, "gelu"))
    np.testing.assert_allclose(activate(x, "silu"), [v / (1 + math.exp(-v)) for v in x])
    assert activate(np.array([-3000.0, 3000.0]), "silu").tolist() == [0, 3000]
