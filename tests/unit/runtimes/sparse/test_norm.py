"""The residual and the norm after a linear: what the reference answers, and the same bits on every instruction set."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.sparse.reference import ACTIVATIONS, Norm, normalise, sparse_linear, sparse_linear_int8
from runtimes.sparse.storage import encode
from tests.unit.runtimes.sparse.single_node import (
    find_library,
    force_isa,
    make_arrays,
    make_attributes,
    make_model,
    open_model,
)

ISAS = ("scalar", "avx2", "avx512", "avx512_vnni", "neon", "neon_dotprod")
INPUTS = 24
# Widths of vectors and of the parts of a sum, and one beside; and that of a model.
OUTPUTS = st.sampled_from([1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 100, 384])
# 0, inside one task, and several tasks at the wider outputs.
TOKENS = st.sampled_from([0, 1, 2, 5, 42, 43, 130, 700])
EPSILON = float(np.float32(1e-6))


def open_normed(stored, bias, norm: Norm, scales=None, *, activation="none", threads=1):
    arrays = make_arrays(stored, bias, scales)
    extra = {"norm_scale": norm.scale, "norm_bias": norm.bias}
    model = make_model(
        arrays | {"residual": norm.residual} | extra,
        make_attributes(stored, activation) | {"epsilon": norm.epsilon},
        computed="residual",
    )
    return open_model(model, threads)


def open_on(isa: str, monkeypatch, *arguments, **options):
    force_isa(isa, monkeypatch)
    return open_normed(*arguments, **options)


@pytest.fixture(params=ISAS)
def isa(request) -> str:
    find_library()
    return request.param


def make_norm(random, tokens: int, out: int) -> Norm:
    residual, scale, bias = (random.standard_normal(shape) for shape in ((tokens, out), (out,), (out,)))
    return Norm(
        residual=residual.astype(np.float32),
        scale=scale.astype(np.float32),
        bias=bias.astype(np.float32),
        epsilon=EPSILON,
    )


def assert_close(found, answers, norm: Norm) -> None:
    """Compare with the reference: what rounding does to the largest number, over the distances between numbers."""
    total = answers.astype(np.float64) + norm.residual
    spread = np.sqrt(total.var(axis=-1, keepdims=True) + norm.epsilon)
    largest = np.abs(answers).max(axis=-1, keepdims=True, initial=0) + np.abs(norm.residual) + 1
    bound = 1e-5 + 64 * 2.0**-24 * largest.max(axis=-1, keepdims=True, initial=0) / spread * np.abs(norm.scale)
    assert (np.abs(found - normalise(answers.astype(np.float64), norm)) <= bound).all()


def make_weight(random, out: int) -> np.ndarray:
    return (random.integers(-9, 10, (out, INPUTS)) * (random.random((out, INPUTS)) < 0.3)).astype(np.int8)


@given(
    seed=st.integers(0, 2**32),
    out=OUTPUTS,
    tokens=TOKENS,
    threads=st.integers(1, 3),
    activation=st.sampled_from(ACTIVATIONS),
    int8=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answers_are_those_of_the_reference(isa, monkeypatch, seed, out, tokens, threads, activation, int8):
    random = np.random.default_rng(seed)
    weight, norm = make_weight(random, out), make_norm(random, tokens, out)
    bias, scales = (random.random(out).astype(np.float32) for _ in range(2))
    x = random.standard_normal((tokens, INPUTS)).astype(np.float32)
    if int8:
        compute, stored, arrays = sparse_linear_int8, encode(weight, (1, 4)), (scales, bias)
    else:
        compute, stored, arrays, scales = sparse_linear, encode(weight.astype(np.float32), (4, 1)), (bias,), None
    session = open_on(isa, monkeypatch, stored, bias, norm, scales, activation=activation, threads=threads)
    (found,) = session.run(None, {"x": x, "residual": norm.residual})
    assert_close(found, compute(x, stored, *arrays, activation), norm)
    assert found.shape == compute(x, stored, *arrays, activation, norm).shape


@pytest.mark.parametrize("out", [1, 2, 5, 31, 32, 33, 65, 384])
def test_every_instruction_set_gives_the_same_bits(out, isa, monkeypatch):
    """A weight of zeros: what is normalised is bias and residual alone."""
    random = np.random.default_rng(out)
    norm, bias = make_norm(random, 90, out), random.standard_normal(out).astype(np.float32)
    stored, feeds = encode(np.zeros((out, INPUTS), np.float32), (1, 1)), np.zeros((90, INPUTS), np.float32)
    answers = [
        open_on(name, monkeypatch, stored, bias, norm, threads=2).run(None, {"x": feeds, "residual": norm.residual})[0]
        for name in ("scalar", isa)
    ]
    assert answers[0].tobytes() == answers[1].tobytes()
    assert_close(answers[0], np.broadcast_to(bias, (90, out)), norm)


def test_a_mean_far_from_zero_costs_no_more_than_the_rounding_of_the_numbers(isa, monkeypatch):
    """The variance is of what is left after the mean: squares of the numbers themselves would leave nothing."""
    random = np.random.default_rng(0)
    norm, out = make_norm(random, 3, 96), 96
    bias = np.full(out, 4096, np.float32)
    stored = encode(np.zeros((out, INPUTS), np.float32), (1, 1))
    session = open_on(isa, monkeypatch, stored, bias, norm)
    (found,) = session.run(None, {"x": np.zeros((3, INPUTS), np.float32), "residual": norm.residual})
    rounded = (bias + norm.residual).astype(np.float64) - norm.residual
    np.testing.assert_allclose(found, normalise(rounded, norm), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 31, 36])
def test_a_token_with_nan_or_infinity_answers_nan_and_no_other(value, at, isa, monkeypatch):
    random = np.random.default_rng(0)
    norm = make_norm(random, 4, 37)
    norm.residual[2, at] = value
    stored = encode(make_weight(random, 37).astype(np.float32), (1, 1))
    session = open_on(isa, monkeypatch, stored, np.zeros(37, np.float32), norm)
    x = random.standard_normal((4, INPUTS)).astype(np.float32)
    (found,) = session.run(None, {"x": x, "residual": norm.residual})
    assert np.isnan(found[2]).all()
    assert np.isfinite(found[[0, 1, 3]]).all()


@pytest.mark.parametrize("shape", [(4, 7), (5, 8), (1, 8), (4, 1), (4, 0)])
def test_a_residual_of_another_shape_is_refused(shape):
    find_library()
    random = np.random.default_rng(0)
    norm, stored = make_norm(random, 4, 8), encode(make_weight(random, 8).astype(np.float32), (1, 1))
    session = open_normed(stored, norm.bias, norm)
    message = rf"residual is of shape \[{shape[0]}, {shape[1]}\]; expected \[4, 8\], that of Y"
    with pytest.raises(Exception, match=message):
        session.run(None, {"x": np.zeros((4, INPUTS), np.float32), "residual": np.zeros(shape, np.float32)})
