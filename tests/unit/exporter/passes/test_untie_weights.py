import numpy as np
import onnx
import onnx_ir as ir

from exporter.passes.untie_weights import untie_weights
from tests.unit.exporter.passes.graphs import run


def test_a_weight_transposed_in_every_layer_is_stored_once():
    weight = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    text = """g (float[n, 4] x) => (float[n, 4] y) {
      w1 = Transpose<perm=[1, 0]>(w)
      h = MatMul(x, w1)
      w2 = Transpose<perm=[1, 0]>(w)
      y = MatMul(h, w2) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model = ir.from_proto(proto)
    feeds = {"x": np.eye(4, dtype=np.float32)}
    expected = run(model, feeds)
    assert untie_weights(model) == 2
    assert len(model.graph.initializers) == 1
    np.testing.assert_array_equal(run(model, feeds), expected)
