"""Linears that were trained with their rounding become float linears again."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from calibration.linears import find_linears
from exporter.passes.undo_rounding import undo_rounding

RNG = np.random.default_rng(0)
ROUNDED = "qx = QuantizeLinear(x, sx, zx)  rx = DequantizeLinear(qx, sx, zx)"
WEIGHT = "w = DequantizeLinear<axis=AXIS>(q, s, z)"


def make(body, *, shape=(8, 4), axis=1, **arrays):
    """A model whose linear reads ``x`` [n, 8] and gives ``y`` [n, 4]."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[n, 8] x, float t) => (float[n, 4] y) {{ {body.replace("AXIS", str(axis))} }}"""
    proto = onnx.parser.parse_model(text)
    count = shape[axis]
    given = {
        "sx": np.array(0.1, np.float32),
        "zx": np.array(3, np.uint8),
        "q": RNG.integers(-128, 128, shape).astype(np.int8),
        "s": RNG.uniform(0.01, 0.02, count).astype(np.float32),
        "z": np.zeros(count, np.int8),
        "b": np.ones(4, np.float32),
        **arrays,
    }
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in given.items())
    for place, node in enumerate(proto.graph.node):
        node.name = f"n{place}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto)), given


def answer(model, x):
    proto = ir.to_proto(model)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "t": np.array(1, np.float32)})[0]


@pytest.mark.parametrize(
    ("product", "shape", "axis"),
    [
        ("m = MatMul(rx, w)  y = Add(m, b)", (8, 4), 1),
        ("m = MatMul(rx, w)  y = Add(m, b)", (8, 4), -1),
        ("m = MatMul(rx, w)  y = Add(m, b)", (8, 4), 0),
        ("y = Gemm<transB=1>(rx, w, b)", (4, 8), 0),
    ],
)
def test_it_is_the_product_of_the_floats(product, shape, axis):
    zero = RNG.integers(-5, 5, shape[axis]).astype(np.int8)
    model, given = make(f"{ROUNDED}  {WEIGHT}  {product}", shape=shape, axis=axis, z=zero)
    assert undo_rounding(model) == 1
    assert not {node.op_type for node in model.graph} & {"QuantizeLinear", "DequantizeLinear"}
    assert len(find_linears(model)) == 1
    wide = (1, -1) if axis % 2 else (-1, 1)
    floats = (given["q"].astype(np.float32) - zero.reshape(wide)) * given["s"].reshape(wide)
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    expected = x @ (floats if shape == (8, 4) else floats.T) + given["b"]
    assert np.allclose(answer(model, x), expected, atol=1e-5)


def test_one_scale_for_the_whole_weight():
    model, given = make(f"{WEIGHT}  y = MatMul(x, w)", s=np.array(0.02, np.float32), z=np.array(0, np.int8))
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    assert undo_rounding(model) == 1
    assert np.allclose(answer(model, x), x @ (given["q"] * np.float32(0.02)), atol=1e-5)


def test_a_scale_for_each_block():
    scale = RNG.uniform(0.01, 0.02, (2, 4)).astype(np.float32)
    model, given = make("w = DequantizeLinear<axis=0, block_size=4>(q, k)  y = MatMul(x, w)", k=scale)
    assert undo_rounding(model) == 1
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    assert np.allclose(answer(model, x), x @ (given["q"] * scale.repeat(4, axis=0)), atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        # What is rounded by one step and brought back by another was not rounded but scaled.
        "qx = QuantizeLinear(x, sx, zx)  rx = DequantizeLinear(qx, other, zx)  y = MatMul(rx, w)",
        "qx = QuantizeLinear(x, t, zx)  rx = DequantizeLinear(qx, t, zx)  y = MatMul(rx, w)",
    ],
)
def test_what_is_read_stays_rounded_where_it_is_more_than_a_rounding(body):
    model, _ = make(f"{WEIGHT}  {body}", other=np.array(0.2, np.float32))
    assert undo_rounding(model) == 1
    assert [node.op_type for node in model.graph].count("QuantizeLinear") == 1


@pytest.mark.parametrize(
    ("body", "arrays"),
    [
        ("w = Identity(f)  y = MatMul(x, w)", {"f": np.ones((8, 4), np.float32)}),
        ("w = DequantizeLinear<axis=1>(q, c, z)  y = MatMul(x, w)", {}),
        (
            "v = DequantizeLinear(u, p)  d = MatMul(x, v)  i = Constant<value_int=0>()  y = Gather(d, i)",
            {"u": np.ones((1, 8, 4), np.int8), "p": np.array(0.5, np.float32)},
        ),
    ],
)
def test_other_weights_stay(body, arrays):
    model, _ = make(f"one = Constant<value=float[4] {{1, 1, 1, 1}}>()  c = Mul(one, t)  {body}", **arrays)
    assert undo_rounding(model) == 0
