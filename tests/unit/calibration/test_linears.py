import numpy as np
import onnx
import onnx_ir as ir
import pytest

from calibration.linears import find_linears


def find(body, **constants):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 4] x, float[b, 4, 9, 9] p) => (float[n] y) {' + body + "}"
    )
    for name, shape in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return find_linears(ir.from_proto(model))


@pytest.mark.parametrize(
    ("body", "constants", "shape", "transposed", "bias"),
    [
        ("y = MatMul (x, w)", {"w": (4, 3)}, (4, 3), False, None),
        ("y = Gemm (x, w, c)", {"w": (4, 3), "c": (3,)}, (4, 3), False, "c"),
        ("y = Gemm (x, w, c)", {"w": (4, 3), "c": (1, 3)}, (4, 3), False, "c"),
        ("y = Gemm (x, w, c)", {"w": (4, 3), "c": ()}, (4, 3), False, "c"),
        ("y = Gemm <transB = 1> (x, w)", {"w": (3, 4)}, (4, 3), True, None),
        ("y = Conv (p, w, c)", {"w": (5, 4, 3, 3), "c": (5,)}, (36, 5), True, "c"),
        ("y = Conv <group = 4> (p, w)", {"w": (8, 1, 3, 3)}, (9, 8), True, None),
    ],
)
def test_linears_are_described(body, constants, shape, transposed, bias):
    (linear,) = find(body, **constants)
    assert (linear.shape, linear.transposed, linear.bias, linear.weight) == (shape, transposed, bias, "w")


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("y = MatMul (x, x)", {}),
        ("y = MatMul (w, x)", {"w": (3, 4)}),
        ("y = MatMul (v, w)", {"w": (4, 3), "v": (2, 4)}),
        ("y = MatMul (p, w)", {"w": (2, 9, 3)}),
        ("y = Gemm <alpha = 2.0> (x, w)", {"w": (4, 3)}),
        ("y = Gemm <transA = 1> (x, w)", {"w": (4, 3)}),
        ("y = Gemm (x, w, x)", {"w": (4, 4)}),
        ("y = Gemm (x, w, c)", {"w": (4, 3), "c": (3, 1)}),
        ("y = Gemm (x, w, c)", {"w": (4, 3), "c": (2, 3)}),
        ("y = Add (x, w)", {"w": (4,)}),
    ],
)
def test_other_nodes_are_not_linears(body, constants):
    assert find(body, **constants) == ()
