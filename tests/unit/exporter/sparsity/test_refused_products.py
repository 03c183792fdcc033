"""Products that nothing takes are named, with what keeps them from it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from exporter.sparsity.refused_products import list_refused

_WEIGHTS = {"w": (4, 6), "left": (5, 4), "stack": (2, 4, 6), "turned": (6, 4), "r": (4,)}


def _open(body: str, kind: str = "float") -> ir.Model:
    dtype = np.float16 if kind == "float16" else np.float32
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    g ({kind}[4, 4] x, {kind}[4, 6] f, bool c) => ({kind}[n, k] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, shape in _WEIGHTS.items():
        array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    return ir.from_proto(proto)


@pytest.mark.parametrize(
    ("body", "kind", "outputs", "why"),
    [
        ("y = MatMul(x, w)", "float16", 6, "float16"),
        ("y = MatMul(left, x)", "float", 5, "on the left"),
        ("y = MatMul(x, stack)", "float", 12, "a stack"),
        ("y = Gemm<alpha=0.5>(x, w)", "float", 6, "a factor"),
        ("y = Gemm<transB=1, transA=1>(x, turned)", "float", 6, "transA"),
        ("y = Gemm(x, w, f)", "float", 6, "a bias"),
    ],
)
def test_each_is_named_with_its_outputs_first(body, kind, outputs, why):
    (found,) = list_refused(_open(body, kind))
    assert found.node.endswith("_0")
    assert found.weight.shape == (outputs, 4)
    assert why in found.why


def test_a_product_in_a_branch_is_named():
    then = "then_branch = a () => (float[n, k] p) { p = MatMul(x, w) }"
    otherwise = "else_branch = b () => (float[n, k] q) { q = Neg(x) }"
    (found,) = list_refused(_open(f"y = If(c)<{then}, {otherwise}>"))
    assert found.why == "it is in a branch or a loop"


@pytest.mark.parametrize("body", ["y = MatMul(x, w)", "y = Gemm(x, w)", "y = MatMul(x, x)", "y = MatMul(x, r)"])
def test_what_is_taken_or_has_no_weight_is_not_listed(body):
    assert list_refused(_open(body)) == ()
