"""Zeros are looked for along what a product sums over, whatever the layout and the type of the stored weight."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from calibration.linears import find_linears
from exporter.sparsity.linear_zeros import survey_linears

SIZE = 32


def _survey(body, **weights):
    """Describe the linears of a graph over x [batch, 32] or the image i; ``w`` is found in its float form."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[batch, {SIZE}] x, float[batch, {SIZE}, 8, 8] i) => (float[n, k] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    proto.graph.node[-1].name = "product"
    model = ir.from_proto(proto)
    floats = onnx.parser.parse_model(text)
    del floats.graph.node[:-1]
    floats.graph.node[-1].name, floats.graph.node[-1].input[1] = "product", "w"
    floats.graph.initializer.append(numpy_helper.from_array(weights["w"].astype(np.float32), "w"))
    return survey_linears(model, find_linears(ir.from_proto(floats)))


def _prune(axis, shape=(SIZE, SIZE)):
    """Return int8 with two of four neighbours along ``axis`` zero, at random, and nothing else."""
    moved = np.ones((*(size for number, size in enumerate(shape) if number != axis), shape[axis] // 4, 4), np.int8)
    order = np.random.default_rng(0).random(moved.shape).argsort(axis=-1)
    moved[order < 2] = 0
    return np.moveaxis(moved.reshape(*moved.shape[:-2], shape[axis]), -1, axis).copy()


@pytest.mark.parametrize(
    ("body", "axis", "shape"),
    [
        ("y = MatMul (x, w)", 0, (SIZE, SIZE)),
        ("y = Gemm (x, w)", 0, (SIZE, SIZE)),
        ("y = Gemm <transB = 1> (x, w)", 1, (SIZE, SIZE)),
        ("y = Conv (i, w)", 1, (SIZE, SIZE, 3, 3)),
    ],
)
def test_two_of_four_lies_along_the_inputs(body, axis, shape):
    found = _survey(body, w=_prune(axis, shape).astype(np.float32))["product"]
    assert (found.pattern, found.two_four, found.zeros) == ("2:4", True, 0.5)
    across = _survey(body, w=_prune(1 - axis, shape).astype(np.float32))["product"]
    assert (across.pattern, across.two_four) == ("unstructured", False)


@pytest.mark.parametrize(
    "chain",
    [
        "f = DequantizeLinear (w, s)",
        "h = DequantizeLinear (w, s) f = Cast <to = 1> (h)",
    ],
)
def test_integers_are_seen_through_what_converts_them(chain):
    scale = np.float32(0.1) if "Cast" not in chain else np.float16(0.1)
    found = _survey(f"{chain} y = MatMul (x, f)", w=_prune(0), s=np.asarray(scale))
    assert found["product"].two_four


def test_one_group_of_three_is_enough_to_break_it():
    weight = _prune(0)
    weight[:4, 0] = (1, 1, 1, 0)
    found = _survey("f = DequantizeLinear (w, s) y = MatMul (x, f)", w=weight, s=np.float32(0.1).reshape(()))
    assert not found["product"].two_four


def test_what_a_graph_computes_is_no_stored_weight():
    assert _survey("f = Neg (w) y = MatMul (x, f)", w=_prune(0).astype(np.float32)) == {}
