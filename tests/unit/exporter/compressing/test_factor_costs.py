import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from exporter.compressing.factor_costs import make_chain, measure_factor_gain


def test_the_model_of_a_chain_is_the_chain():
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((6, 2), (2, 5))]
    model = ir.to_proto(make_chain(weights))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "MatMul", "Add"]
    x = rng.standard_normal((2, 3, 6)).astype(np.float32)
    (got,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(got, x @ weights[0] @ weights[1], rtol=1e-4, atol=1e-5)


def test_thin_factors_gain_and_thick_ones_lose():
    # 16 times less to multiply, and 8 times more: no machine is in doubt.
    assert measure_factor_gain(512, 512, 16, threads=1) > 1
    assert measure_factor_gain(256, 256, 1024, threads=1) < 1
