"""Linears become sparse operators that answer the same, whatever stands around them."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.sparse_linears import is_sparse, read_stored, replace_linears
from runtimes.errors import CorruptArtifact
from runtimes.sparse.storage import BLOCKS, decode
from tests.unit.exporter.passes.sparse_models import make_model, run_model


def _replace(model: ir.Model, *names: str, values="float32", block=(1, 1)) -> list[ir.Node]:
    assert replace_linears(model, dict.fromkeys(names, block), values=values) == len(names)
    onnx.checker.check_model(ir.to_proto(model))
    return [node for node in model.graph if is_sparse(node)]


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("block", BLOCKS)
def test_bias_and_activation_go_into_the_operator(values, block):
    model = make_model("m = MatMul(x, w)  a = Add(m, b)  y = Gelu(a)")
    before = run_model(model)
    (node,) = _replace(model, "MatMul_0", values=values, block=block)
    assert [one.op_type for one in model.graph] == ["SparseLinear" if values == "float32" else "SparseLinearInt8"]
    assert node.attributes["activation"].as_string() == "gelu"
    assert node.outputs[0].name == "y"
    assert model.graph.opset_imports["ai.stepdown"] == 1
    bound = 1e-5 if values == "float32" else 0.05
    np.testing.assert_allclose(run_model(model)[0], before[0], atol=bound)
    assert "w" not in model.graph.initializers


@pytest.mark.parametrize(
    ("body", "names", "left"),
    [
        ("y = MatMul(x, w)", ["MatMul_0"], []),
        ("m = MatMul(x, w)  y = Add(b, m)", ["MatMul_0"], []),
        ("m = MatMul(x, w)  n = Add(m, b)  y = Softmax(n)", ["MatMul_0"], ["Softmax"]),
        ("m = MatMul(x, w)  n = Add(m, b)  r = Relu(n)  y = Add(r, n)", ["MatMul_0"], ["Relu", "Add"]),
        ("m = MatMul(x, w)  r = MatMul(m, u)  y = Add(r, row)", ["MatMul_0", "MatMul_1"], ["Add"]),
        ("m = MatMul(x, w)  n = MatMul(x, w)  y = Mul(m, n)", ["MatMul_0", "MatMul_1"], ["Mul"]),
    ],
)
def test_the_answer_stays(body, names, left):
    model = make_model(body)
    before = run_model(model)
    assert len(_replace(model, *names)) == len(names)
    assert [node.op_type for node in model.graph if not is_sparse(node)] == left
    np.testing.assert_allclose(run_model(model)[0], before[0], rtol=1e-4, atol=1e-5)


def test_a_gemm_with_its_own_bias_and_a_transposed_weight():
    body = """s = Constant<value_ints=[-1, 16]>()  f = Reshape(x, s)  y = Gemm<transB=1>(f, u, b)"""
    model = make_model(body, outputs="float[r, 32] y")
    before = run_model(model)
    (node,) = _replace(model, "Gemm_2")
    assert (node.attributes["out_features"].as_int(), node.attributes["in_features"].as_int()) == (32, 16)
    np.testing.assert_allclose(run_model(model)[0], before[0], rtol=1e-4, atol=1e-5)


def test_a_linear_whose_sum_is_an_output_keeps_it():
    model = make_model("m = MatMul(x, w)  n = Add(m, b)  y = Relu(n)", outputs="float[n, t, k] y, float[n, t, k] n")
    before = run_model(model)
    (node,) = _replace(model, "MatMul_0")
    assert node.attributes["activation"].as_string() == "none"
    for old, new in zip(before, run_model(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)


def test_linears_over_one_weight_share_what_is_stored():
    model = make_model("m = MatMul(x, w)  n = MatMul(x, w)  y = Mul(m, n)")
    first, second = _replace(model, "MatMul_0", "MatMul_1")
    assert list(first.inputs) == list(second.inputs)


def test_shapes_stay_known():
    model = make_model("m = MatMul(x, w)  a = Add(m, b)  y = Softmax(a)")
    model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    (node,) = _replace(model, "MatMul_0")
    assert node.outputs[0].shape == ir.Shape(["n", "t", 32])
    assert node.outputs[0].dtype == ir.DataType.FLOAT


def test_only_what_is_named_is_replaced():
    model = make_model("m = MatMul(x, w)  y = MatMul(m, u)")
    assert len(_replace(model, "MatMul_1")) == 1
    assert replace_linears(model, {}, values="float32") == 0


def test_the_stored_weight_can_be_read_back():
    model = make_model("y = MatMul(x, w)")
    weight = model.graph.initializers["w"].const_value.numpy()
    (node,) = _replace(model, "MatMul_0", block=(4, 4))
    assert np.array_equal(decode(read_stored(node)), weight.T)


def test_an_operator_without_its_weight_is_refused():
    model = make_model("y = MatMul(x, w)")
    (node,) = _replace(model, "MatMul_0")
    del node.attributes["block_in"]
    with pytest.raises(CorruptArtifact, match="lacks its weight"):
        read_stored(node)
