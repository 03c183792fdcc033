"""FP32 kernels of every instruction set this CPU has: what the reference answers, whatever the shape."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.sparse.library import ISA_VARIABLE
from runtimes.sparse.reference import ACTIVATIONS, sparse_linear
from runtimes.sparse.storage import BLOCKS, StoredWeight, encode
from tests.unit.runtimes.sparse.single_node import draw_mask, force_isa, move, open_linear

ISAS = ("scalar", "avx2", "avx512", "neon")
BLOCK_NAMES = [f"{high}x{wide}" for high, wide in BLOCKS]
# Widths of vectors, groups, chunks of rows, tiles of inputs and panels of tokens; and one beside.
OUTPUTS = st.sampled_from([1, 3, 4, 5, 15, 16, 17, 33, 64, 130, 200, 400])
INPUTS = st.sampled_from([1, 3, 4, 7, 16, 127, 128, 129, 191, 192, 193, 260, 400])
TOKENS = st.sampled_from([0, 1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 33, 48, 63, 64, 65, 100, 130, 300])


@pytest.fixture(params=ISAS, autouse=True)
def isa(request, monkeypatch) -> str:
    """Run each test on each instruction set."""
    force_isa(request.param, monkeypatch)
    return request.param


def make_weight(random, out, inputs, block, density) -> np.ndarray:
    mask = draw_mask(random, out, inputs, block, density)
    return (random.standard_normal((out, inputs)) * mask).astype(np.float32)


def compute(weight, bias, block, x, *, activation="none", threads=1) -> np.ndarray:
    (found,) = open_linear(encode(weight, block), bias, activation=activation, threads=threads).run(None, {"x": x})
    return found


def assert_close(found, weight, bias, x, activation="none") -> None:
    """Compare with the float64 reference: rounding grows with the sum of magnitudes, not with the sum."""
    wanted = sparse_linear(x, encode(weight, (1, 1)), bias, activation)
    magnitude = np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64) + np.abs(bias) + 1e-30
    assert found.shape == wanted.shape
    # A rounding of 2^-24 for each term at worst; the slope of every activation is below 1.13.
    assert (np.abs(found.astype(np.float64) - wanted) <= (weight.shape[1] + 16) * 2.0**-24 * magnitude).all()


@given(
    seed=st.integers(0, 2**32),
    block=st.sampled_from(BLOCKS),
    out=OUTPUTS,
    inputs=INPUTS,
    tokens=TOKENS,
    density=st.sampled_from([0, 0.01, 0.1, 0.3, 0.7, 1]),
    offset=st.integers(0, 3),
    threads=st.integers(1, 3),
    activation=st.sampled_from(ACTIVATIONS),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answers_are_those_of_the_reference(seed, block, out, inputs, tokens, density, offset, threads, activation):
    random = np.random.default_rng(seed)
    weight = make_weight(random, out, inputs, block, density)
    bias = random.standard_normal(out).astype(np.float32)
    x = move(random.standard_normal((tokens, inputs)).astype(np.float32), offset)
    found = compute(weight, bias, block, x, activation=activation, threads=threads)
    assert_close(found, weight, bias, x, activation)


@pytest.mark.parametrize("block", BLOCKS, ids=BLOCK_NAMES)
@pytest.mark.parametrize("tokens", [1, 70])
def test_integers_are_exact(block, tokens):
    """Sums below 2^24 leave nothing to round: a weight in a wrong place, or one counted twice, shows."""
    random = np.random.default_rng(1)
    weight = np.round(make_weight(random, 150, 300, block, 0.3) * 3)
    x = random.integers(-9, 10, (tokens, 300)).astype(np.float32)
    bias = random.integers(-9, 10, 150).astype(np.float32)
    np.testing.assert_array_equal(compute(weight, bias, block, x), x @ weight.T + bias)


@pytest.mark.parametrize("block", [(1, 1), (1, 4), (4, 1)], ids=["1x1", "1x4", "4x1"])
@pytest.mark.parametrize("tokens", [1, 40])
def test_infinity_and_nan_reach_only_the_outputs_that_use_them(block, tokens):
    """Rows are filled up to the length of their neighbours: what fills them must not meet an infinite input."""
    random = np.random.default_rng(2)
    weight = make_weight(random, 64, 140, block, 0.15)
    weight[:, :4] = 0
    weight[:3, :4] = 1
    x = random.standard_normal((tokens, 140)).astype(np.float32)
    x[-1, 0], x[0, 2] = np.inf, np.nan
    found = compute(weight, np.zeros(64, np.float32), block, x)
    reached = weight[:, :4].any(axis=1)
    if block[0] > 1:  # the fourth row of a block has zeros there, as dense multiplication has
        reached = np.repeat(reached.reshape(-1, block[0]).any(axis=1), block[0])
    assert np.isfinite(found[:, ~reached]).all()
    assert not np.isfinite(found[-1, reached]).any()
    assert np.isnan(found[0, reached]).all()
    assert np.isfinite(found[1:-1]).all()


@pytest.mark.parametrize("block", BLOCKS, ids=BLOCK_NAMES)
@pytest.mark.parametrize("tokens", [1, 20])
def test_infinity_meets_the_same_zeros_without_vectors(block, tokens, monkeypatch):
    """Bridges of zeros, quarters of a block that are zeros, and zeros beside a value."""
    weight = np.zeros((18, 2100), np.float32)
    weight[0, 0], weight[4:7, 300], weight[12, 519], weight[17, 2099] = 1, 2, 3, 4
    x = np.ones((tokens, 2100), np.float32)
    x[:, [255, 300, 1023, 1543]], x[-1, 100], x[0, 517] = np.inf, np.nan, -np.inf
    bias = np.zeros(18, np.float32)
    found = compute(weight, bias, block, x)
    monkeypatch.setenv(ISA_VARIABLE, "scalar")
    np.testing.assert_array_equal(found, compute(weight, bias, block, x))


def test_rows_without_values_are_more_than_16_bits_can_number():
    """A few full rows weigh so much that all others are one share of the work: each still answers its own bias."""
    full, out, inputs = 360, 66_200, 64_000
    stored = StoredWeight(
        shape=(out, inputs),
        block=(1, 1),
        values=np.ones(full * inputs, np.float32),
        gaps=np.zeros(full * inputs, np.uint8),
        row_starts=np.minimum(np.arange(out + 1), full).astype(np.int32) * inputs,
    )
    bias = np.arange(out, dtype=np.float32)
    (found,) = open_linear(stored, bias).run(None, {"x": np.zeros((2, inputs), np.float32)})
    np.testing.assert_array_equal(found, [bias, bias])


def test_the_numbers_of_threads_and_of_sessions_change_no_bit():
    random = np.random.default_rng(3)
    weight = make_weight(random, 400, 260, (1, 1), 0.3)
    bias = random.standard_normal(400).astype(np.float32)
    for tokens in (1, 50, 300):
        x = random.standard_normal((tokens, 260)).astype(np.float32)
        answers = [compute(weight, bias, (1, 1), x, activation="gelu", threads=threads) for threads in (1, 2, 4)]
        np.testing.assert_array_equal(answers[1], answers[0])
        np.testing.assert_array_equal(answers[2], answers[0])


def test_a_panel_answers_each_token_as_any_other_panel_does():
    random = np.random.default_rng(4)
    weight = make_weight(random, 200, 130, (1, 1), 0.2)
    bias = random.standard_normal(200).astype(np.float32)
    x = random.standard_normal((150, 130)).astype(np.float32)
    together = compute(weight, bias, (1, 1), x, threads=2)
    np.testing.assert_array_equal(compute(weight, bias, (1, 1), x[70:90]), together[70:90])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_has_the_bits_it_has_without_vectors(activation, monkeypatch):
    """One input and a weight of one: the activation is all there is to round."""
    x = np.linspace(-12, 12, 4001, dtype=np.float32)[:, None]
    weight, bias = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    found = compute(weight, bias, (1, 1), x, activation=activation)
    monkeypatch.setenv(ISA_VARIABLE, "scalar")
    np.testing.assert_array_equal(found, compute(weight, bias, (1, 1), x, activation=activation))
    wanted = sparse_linear(x, encode(weight, (1, 1)), bias, activation)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-12)


def test_silu_is_exact_far_out():
    """Its power of e is clamped there; rounded once, that would be off by as many roundings as the power is large."""
    x = np.linspace(-88, 1000, 4001, dtype=np.float32)[:, None]
    weight, bias = np.ones((1, 1), np.float32), np.zeros(1, np.float32)
    wanted = sparse_linear(x, encode(weight, (1, 1)), bias, "silu")
    np.testing.assert_array_max_ulp(compute(weight, bias, (1, 1), x, activation="silu"), wanted, 3)
    ends = np.array([[-1000.0], [-np.inf], [np.inf], [np.nan]], np.float32)
    np.testing.assert_array_equal(
        compute(weight, bias, (1, 1), ends, activation="silu").ravel(), [0, np.nan, np.inf, np.nan]
    )
