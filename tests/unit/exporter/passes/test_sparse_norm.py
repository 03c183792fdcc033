"""The residual and the norm go into a sparse operator only where they mean the same there."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.sparse_linears import is_sparse, replace_linears
from exporter.passes.sparse_norm import fold_norms
from tests.unit.exporter.passes.sparse_models import make_model, run_model

BOTH = "float[n, t, 16] y, float[n, t, 16] z"


def make_sparse(body: str, outputs: str = "float[n, t, 16] y", *, values="float32") -> ir.Model:
    """Return a model whose every MatMul is sparse, with shapes."""
    model = make_model(body, outputs)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    names = [node.name for node in model.graph if node.op_type == "MatMul"]
    replace_linears(model, dict.fromkeys(names, (1, 1)), values=values)
    return model


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize(
    "body",
    [
        "m = MatMul(x, v)  s = Sum(m, x)  y = LayerNormalization(s, c, d)",
        "m = MatMul(x, v)  a = Add(m, d)  r = Relu(a)  s = Add(x, r)  y = LayerNormalization<epsilon=0.01>(s, c, d)",
        "m = MatMul(x, v)  s = Sum(x, m)  y = LayerNormalization<axis=2, epsilon=0.01>(s, c)",
        "m = MatMul(x, v)  r = Neg(x)  s = Sum(r, m)  y = LayerNormalization(s, c, d)",
    ],
)
def test_what_follows_goes_into_the_operator(body, values):
    model = make_sparse(body, values=values)
    before = run_model(model)
    assert fold_norms(model) == 1
    onnx.checker.check_model(ir.to_proto(model))
    assert [node.op_type for node in model.graph if not is_sparse(node)] == ["Neg"] * ("Neg" in body)
    (node,) = [node for node in model.graph if is_sparse(node)]
    assert node.outputs[0].name == "y"
    assert node.attributes["epsilon"].as_float() == pytest.approx(0.01 if "0.01" in body else 1e-5)
    np.testing.assert_allclose(run_model(model)[0], before[0], rtol=1e-4, atol=1e-5)
    assert fold_norms(model) == 0


def test_of_two_linears_that_are_added_one_does_it():
    model = make_sparse("m = MatMul(x, v)  n = MatMul(x, v)  s = Sum(m, n)  y = LayerNormalization(s, c, d)")
    before = run_model(model)
    assert fold_norms(model) == 1
    assert [len(node.inputs) for node in model.graph] == [5, 8]
    np.testing.assert_allclose(run_model(model)[0], before[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("m = MatMul(x, v)  y = LayerNormalization(m, c, d)", None),
        ("m = MatMul(x, v)  s = Sum(m, x, x)  y = LayerNormalization(s, c, d)", None),
        ("m = MatMul(x, v)  s = Sum(m, m)  y = LayerNormalization(s, c, d)", None),
        ("m = MatMul(x, v)  s = Sub(m, x)  y = LayerNormalization(s, c, d)", None),
        ("m = MatMul(x, v)  s = Add(m, c)  t1 = Neg(s)  y = LayerNormalization(t1, c, d)", None),
        ("m = MatMul(x, v)  s = Add(m, mask)  y = LayerNormalization(s, c, d)", None),
        ("m = MatMul(x, v)  s = Add(m, one)  y = LayerNormalization(s, c, d)", None),
        ("m = MatMul(x, v)  s = Add(m, x)  y = LayerNormalization(s, c, d)  z = Neg(s)", BOTH),
        ("z = MatMul(x, v)  s = Add(z, x)  y = LayerNormalization(s, c, d)", BOTH),
        ("m = MatMul(x, v)  z = Add(m, x)  y = LayerNormalization(z, c, d)", BOTH),
        ("m = MatMul(x, v)  s = Add(m, x)  y = LayerNormalization<axis=1>(s, square)", None),
        ("m = MatMul(x, v)  s = Add(m, x)  y, z = LayerNormalization(s, c, d)", "float[n, t, 16] y, float[n, t, 1] z"),
        ("m = MatMul(x, v)  s = Add(m, x)  e = Abs(c)  y = LayerNormalization(s, e, d)", None),
        ("m = MatMul(x, v)  s = Add(m, x)  y = LayerNormalization(s, one)", None),
        ("m = MatMul(x, v)  s = Add(m, x)  y = LayerNormalization<epsilon=0.0>(s, c)", None),
    ],
)
def test_what_means_something_else_stays(body, outputs):
    model = make_sparse(body, outputs or "float[n, t, 16] y")
    before = ir.to_proto(model).SerializeToString()
    assert fold_norms(model) == 0
    assert ir.to_proto(model).SerializeToString() == before
