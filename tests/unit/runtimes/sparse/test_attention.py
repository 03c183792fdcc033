"""Attention: what the reference answers, the same bits on every instruction set, and what is refused."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from runtimes.sparse.reference import attention
from tests.unit.runtimes.sparse.single_node import find_library, force_isa, move, open_model

ISAS = ("scalar", "avx2", "avx512", "avx512_vnni", "neon", "neon_dotprod")
REFUSED = (Fail, InvalidArgument, RuntimeException)
# Vectors and tiles of every instruction set, and beside them.
LENGTHS = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 65])
SIZES = st.sampled_from([1, 2, 3, 4, 5, 8, 9, 16, 31, 32, 64])
RIGHT = {"features": 12, "heads": 3, "scale": 0.5}


def open_attention(attributes: dict, *, masked: bool = True, threads: int = 1):
    names = ["q", "k", "v", *(["mask"] if masked else [])]
    node = helper.make_node("ScaledDotProductAttention", names, ["y"], domain="ai.stepdown", **attributes)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names[:3]]
    if masked:
        inputs.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, None))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "one", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.stepdown", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return open_model(model.SerializeToString(), threads)


def draw_feeds(seed: int, batch: int, queries: int, keys: int, features: int) -> dict:
    random = np.random.default_rng(seed)
    feeds = {
        name: move(random.standard_normal((batch, length, features)).astype(np.float32), int(random.integers(0, 4)))
        for name, length in (("q", queries), ("k", keys), ("v", keys))
    }
    # Of some texts all is padding, of some nothing.
    share = random.choice([0.0, 0.5, 1.0], (batch, 1))
    return feeds | {"mask": random.random((batch, keys)) < share}


@pytest.fixture(params=ISAS)
def isa(request) -> str:
    find_library()
    return request.param


@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(0, 3),
    queries=LENGTHS,
    keys=LENGTHS,
    heads=st.integers(1, 4),
    size=SIZES,
    scale=st.sampled_from([1e-3, 0.17, 4.0]),
    threads=st.integers(1, 3),
    masked=st.booleans(),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answers_are_those_of_the_reference(
    isa, monkeypatch, seed, batch, queries, keys, heads, size, scale, threads, masked
):
    force_isa(isa, monkeypatch)
    attributes = {"features": heads * size, "heads": heads, "scale": scale}
    feeds = draw_feeds(seed, batch, queries, keys, heads * size)
    if not masked:
        del feeds["mask"]
    (found,) = open_attention(attributes, masked=masked, threads=threads).run(None, feeds)
    expected = attention(feeds["q"], feeds["k"], feeds["v"], feeds.get("mask"), heads=heads, scale=scale)
    assert found.shape == expected.shape
    # What rounds a score, a sum of `size` products of numbers below 4, moves its weight by as much of itself.
    np.testing.assert_allclose(found, expected, atol=2e-6 + 2.0**-22 * 4 * size * scale)


@pytest.mark.parametrize(("queries", "keys", "size"), [(1, 1, 1), (5, 33, 3), (33, 40, 32), (65, 17, 9)])
def test_every_instruction_set_gives_the_same_bits(queries, keys, size, isa, monkeypatch):
    attributes, feeds = {"features": 2 * size, "heads": 2, "scale": 0.3}, draw_feeds(1, 3, queries, keys, 2 * size)
    answers = []
    for name in ("scalar", isa):
        force_isa(name, monkeypatch)
        answers.append(open_attention(attributes, threads=2).run(None, feeds)[0].tobytes())
    assert answers[0] == answers[1]


def test_work_shared_among_threads_gives_the_same_bits():
    """One head, long enough that its queries are shared too."""
    attributes, feeds = {"features": 16, "heads": 1, "scale": 0.25}, draw_feeds(2, 1, 700, 700, 16)
    one, three = (open_attention(attributes, threads=threads).run(None, feeds)[0] for threads in (1, 3))
    assert one.tobytes() == three.tobytes()


def test_padding_is_not_looked_at(isa, monkeypatch):
    force_isa(isa, monkeypatch)
    feeds = draw_feeds(3, 2, 9, 21, 12)
    feeds["mask"][:] = np.arange(21) % 3 != 0
    session = open_attention(RIGHT)
    expected = session.run(None, feeds)[0]
    for name in ("k", "v"):
        feeds[name][:, ::3] = np.nan
    assert session.run(None, feeds)[0].tobytes() == expected.tobytes()


def test_numbers_far_apart_neither_overflow_nor_leave_denormals(isa, monkeypatch):
    force_isa(isa, monkeypatch)
    feeds = draw_feeds(4, 1, 8, 8, 12)
    feeds["mask"][:] = True
    feeds["q"] *= 1000
    (found,) = open_attention(RIGHT).run(None, feeds)
    expected = attention(*feeds.values(), heads=3, scale=0.5)
    np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_score_that_is_no_number_answers_nan_for_its_query_and_head_alone(number, isa, monkeypatch):
    force_isa(isa, monkeypatch)
    feeds = draw_feeds(5, 1, 5, 6, 12)
    feeds["mask"][:] = True
    feeds["k"][:] = np.abs(feeds["k"])
    expected = open_attention(RIGHT).run(None, feeds)[0].copy()
    feeds["q"][0, 2, 5] = number
    (found,) = open_attention(RIGHT).run(None, feeds)
    expected[0, 2, 4:8] = np.nan
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 0}, "features is 0; expected 1 to 16777216"),
        ({"features": 2**62}, "features is 4611686018427387904; expected 1 to 16777216"),
        ({"heads": 0}, "heads is 0; expected a divisor of features, 12"),
        ({"heads": -3}, "heads is -3; expected a divisor"),
        ({"heads": 5}, "heads is 5; expected a divisor of features, 12"),
        ({"heads": None}, "heads cannot be read"),
        ({"features": 1.5}, "features cannot be read"),
        ({"scale": None}, "scale is missing; expected a number above 0"),
        ({"scale": 1}, "scale is missing; expected a number above 0"),
        ({"scale": 0.0}, "scale is 0.000000; expected a number above 0"),
        ({"scale": -1.0}, "expected a number above 0"),
        ({"scale": float("nan")}, "scale is nan; expected a number above 0"),
        ({"scale": float("inf")}, "scale is inf; expected a number above 0"),
    ],
)
def test_a_node_that_is_wrong_is_refused_at_load(changes, message):
    attributes = {name: value for name, value in (RIGHT | changes).items() if value is not None}
    with pytest.raises(REFUSED, match=message):
        open_attention(attributes)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"q": (2, 5, 11)}, r"Q is of shape \[2, 5, 11\]; expected \[batch, tokens, 12\]"),
        ({"q": (5, 12)}, r"Q is of shape \[5, 12\]; expected"),
        ({"q": (1, 2, 5, 12)}, r"Q is of shape \[1, 2, 5, 12\]; expected"),
        ({"k": (2, 12)}, r"K is of shape \[2, 12\]; expected \[batch, tokens, 12\]"),
        ({"k": (1, 7, 12)}, r"K is of shape \[1, 7, 12\]; expected \[2, 7, 12\]"),
        ({"k": (2, 7, 24)}, r"K is of shape \[2, 7, 24\]; expected"),
        ({"v": (2, 6, 12)}, r"V is of shape \[2, 6, 12\]; expected \[2, 7, 12\]"),
        ({"v": (2, 7)}, r"V is of shape \[2, 7\]; expected"),
        ({"mask": (2, 6)}, r"mask is of shape \[2, 6\]; expected \[2, 7\]"),
        ({"mask": (2, 1, 1, 7)}, r"mask is of shape \[2, 1, 1, 7\]; expected \[2, 7\]"),
        ({"k": (2, 0, 12), "v": (2, 0, 12), "mask": (2, 0)}, "K has no token; expected one at least"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_when_it_comes(shapes, message):
    right = {"q": (2, 5, 12), "k": (2, 7, 12), "v": (2, 7, 12), "mask": (2, 7)}
    feeds = {name: np.ones(shape, bool if name == "mask" else np.float32) for name, shape in (right | shapes).items()}
    with pytest.raises(REFUSED, match=message):
        open_attention(RIGHT).run(None, feeds)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_nothing_in_is_nothing_out(shape):
    feeds = {name: np.ones((*shape, 12), np.float32) for name in ("q", "k", "v")}
    (found,) = open_attention(RIGHT, masked=False).run(None, feeds)
    assert found.shape == (*shape, 12)
