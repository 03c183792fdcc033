"""INT8 kernels of every instruction set this CPU has: the bits of the reference, whatever the shape."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.sparse.library import ISA_VARIABLE
from runtimes.sparse.reference import ACTIVATIONS, sparse_linear_int8
from runtimes.sparse.storage import BLOCKS, encode
from tests.unit.runtimes.sparse.single_node import draw_mask, force_isa, move, open_linear

ISAS = ("scalar", "avx2", "avx512", "avx512_vnni", "avx512_vbmi2", "neon", "neon_dotprod")
# The most of a layer, as cases that the kernels treat differently: widths of vectors, strips and slabs, and one beside.
OUTPUTS = st.sampled_from([1, 3, 4, 15, 16, 17, 31, 32, 33, 64, 100])
INPUTS = st.sampled_from([1, 3, 4, 5, 16, 63, 64, 127, 128, 129, 257, 512, 520, 1030])
TOKENS = st.sampled_from([0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 130, 600])
RANGES = {
    "both signs": lambda random, shape: random.standard_normal(shape),
    "positive": lambda random, shape: random.random(shape) + 1,
    "negative": lambda random, shape: -random.random(shape) - 1,
    "zeros": lambda random, shape: random.random(shape) * 0,
    "tiny": lambda random, shape: random.standard_normal(shape) * 1e-39,
    "huge": lambda random, shape: random.standard_normal(shape) * 3e37,
    "on the half": lambda random, shape: random.integers(-128, 128, shape) / 2,
}


@pytest.fixture(params=ISAS, autouse=True)
def isa(request, monkeypatch) -> None:
    """Run each test on each instruction set."""
    force_isa(request.param, monkeypatch)


def make_weight(random, out, inputs, block, density) -> np.ndarray:
    mask = draw_mask(random, out, inputs, block, density)
    return (random.integers(-128, 128, (out, inputs)) * mask).astype(np.int8)


def compute(weight, block, x, *, activation="none", threads=1, random=None):
    """Return what the kernel answers, and the reference."""
    random = random or np.random.default_rng(0)
    out = len(weight)
    scales = np.where(weight.any(axis=1), random.random(out) + 0.01, 0).astype(np.float32)
    bias = random.standard_normal(out).astype(np.float32)
    stored = encode(weight, block)
    (found,) = open_linear(stored, bias, scales, activation=activation, threads=threads).run(None, {"x": x})
    return found, sparse_linear_int8(x, stored, scales, bias, activation)


@given(
    seed=st.integers(0, 2**32),
    block=st.sampled_from(BLOCKS),
    out=OUTPUTS,
    inputs=INPUTS,
    tokens=TOKENS,
    density=st.sampled_from([0, 0.01, 0.1, 0.3, 0.7, 1]),
    values=st.sampled_from(list(RANGES)),
    offset=st.integers(0, 3),
    threads=st.integers(1, 3),
    activation=st.sampled_from(["none", "relu"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bits_are_those_of_the_reference(
    seed, block, out, inputs, tokens, density, values, offset, threads, activation
):
    random = np.random.default_rng(seed)
    weight = make_weight(random, out, inputs, block, density)
    x = move(RANGES[values](random, (tokens, inputs)), offset)
    found, wanted = compute(weight, block, x, activation=activation, threads=threads, random=random)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block[0]}x{block[1]}")
def test_the_largest_sums_are_exact(block):
    """Products of 8 bits in pairs pass 16 bits, and their sums pass the 24 bits of a float."""
    weight = np.full((48, 2048), 127, np.int8)
    weight[1::2] = -128
    x = np.tile(np.linspace(0.9, 1, 2048, dtype=np.float32), (70, 1))
    x[::3] *= -1
    found, wanted = compute(weight, block, x)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block[0]}x{block[1]}")
def test_a_token_that_is_not_finite_answers_nan_and_no_other_does(block):
    random = np.random.default_rng(3)
    x = random.standard_normal((70, 37)).astype(np.float32)
    x[3, 36], x[17, 0], x[40, 20], x[41, 5] = np.nan, np.inf, -np.inf, np.nan
    x[50, 1], x[50, 2] = 3e38, -3e38
    found, wanted = compute(make_weight(random, 40, 37, block, 0.3), block, x)
    np.testing.assert_array_equal(found, wanted)
    assert np.isnan(found).all(axis=1).nonzero()[0].tolist() == [3, 17, 40, 41, 50]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_has_the_bits_it_has_without_vectors(activation, monkeypatch):
    random = np.random.default_rng(4)
    weight = make_weight(random, 50, 100, (4, 4), 0.4)
    x = random.standard_normal((35, 100)).astype(np.float32)
    found, wanted = compute(weight, (4, 4), x, activation=activation)
    monkeypatch.setenv(ISA_VARIABLE, "scalar")
    scalar, _ = compute(weight, (4, 4), x, activation=activation)
    np.testing.assert_array_equal(found, scalar)
    # The reference itself loses digits of 1 + erf(x) where that is next to nothing.
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("inputs", [32768, 32769])
@pytest.mark.parametrize(("block", "tokens"), [((1, 4), 3), ((1, 1), 1)], ids=["1x4", "one token"])
def test_the_widest_layers_are_exact(inputs, block, tokens):
    weight = np.full((5, inputs), -128, np.int8)
    x = np.random.default_rng(5).standard_normal((tokens, inputs)).astype(np.float32)
    found, wanted = compute(weight, block, x)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block[0]}x{block[1]}")
def test_an_answer_does_not_depend_on_the_tokens_beside_it(block):
    """One token has a kernel of its own, and so has the last of 129."""
    random = np.random.default_rng(6)
    weight = make_weight(random, 200, 600, block, 0.2)
    x = random.standard_normal((129, 600)).astype(np.float32)
    alone, _ = compute(weight, block, x[77:78])
    together, wanted = compute(weight, block, x, threads=2)
    np.testing.assert_array_equal(together, wanted)
    np.testing.assert_array_equal(alone[0], together[77])
