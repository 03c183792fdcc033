"""Each token is rounded by itself: with others beside it, or alone, its answer is the same to the bit."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from calibration.linears import find_linears
from calibration.lower.onnxruntime.per_token import lower_per_token
from calibration.quantise import quantise_weight

DEPTH, WIDTH = 64, 48


@pytest.fixture
def proto():
    """Two linears that read the same, one of them biased, and a Gemm behind them."""
    made = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, {DEPTH}] x) => (float[n, {WIDTH}] y, float[n, {WIDTH}] z) {{
        p = MatMul(x, w0)
        y = Add(p, b0)
        q = MatMul(x, w1)
        z = Gemm <transB = 1> (q, w2, b2)
    }}""")
    generator = np.random.default_rng(0)
    shapes = {"w0": (DEPTH, WIDTH), "b0": (WIDTH,), "w1": (DEPTH, WIDTH), "w2": (WIDTH, WIDTH), "b2": (WIDTH,)}
    for name, shape in shapes.items():
        made.graph.initializer.append(
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        )
    for place, node in enumerate(made.graph.node):
        node.name = f"n{place}"
    return made


def draw(rows=7):
    """Return tokens of very different sizes."""
    generator = np.random.default_rng(1)
    x = generator.standard_normal((rows, DEPTH)) * np.logspace(-3, 3, rows)[:, None]
    return x.astype(np.float32)


def lower(proto, bits=8):
    model = ir.from_proto(proto)
    lower_per_token(model, find_linears(model), weight_bits=bits)
    return ir.to_proto(model)


def answer(proto, x):
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )


def round_rows(x):
    steps = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    return np.rint(x / steps) * steps


@pytest.mark.parametrize("bits", [8, 7])
def test_it_computes_what_its_integers_mean(proto, bits):
    weights = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    rounded = {}
    for name, turned in (("w0", False), ("w1", False), ("w2", True)):
        values, steps, _ = quantise_weight(weights[name].T if turned else weights[name], axis=1, bits=bits)
        rounded[name] = values * steps
    x = draw()
    middle = round_rows(x) @ rounded["w1"]
    expected = round_rows(x) @ rounded["w0"] + weights["b0"], round_rows(middle) @ rounded["w2"] + weights["b2"]
    for got, wanted in zip(answer(lower(proto, bits), x), expected, strict=True):
        # Of the larger rows a part in a thousand of the answer, where a level was decided by the last bit.
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max(axis=1).min())


def test_a_token_gets_alone_what_it_gets_beside_others(proto):
    lowered, x = lower(proto), draw()
    together = answer(lowered, x)
    for row in range(len(x)):
        for one, all_rows in zip(answer(lowered, x[row : row + 1]), together, strict=True):
            np.testing.assert_array_equal(one[0], all_rows[row])


def test_a_token_of_zeros_gives_the_bias(proto):
    x = draw()
    x[2] = 0
    y, z = answer(lower(proto), x)
    bias = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    np.testing.assert_array_equal(y[2], bias["b0"])
    np.testing.assert_array_equal(z[2], bias["b2"])
    assert np.isfinite(y).all()
    assert np.isfinite(z).all()


def test_what_two_linears_read_is_rounded_once(proto):
    kinds = [node.op_type for node in lower(proto).graph.node]
    assert kinds.count("QuantizeLinear") == 2
    assert kinds.count("MatMulIntegerToFloat") == 3
    assert not {"MatMul", "Gemm"} & set(kinds)
