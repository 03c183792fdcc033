import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.store_integers import store_integers
from exporter.passes.unsigned_weights import make_unsigned
from exporter.passes.untie_weights import untie_weights
from tests.unit.exporter.passes.graphs import kinds, run


def _model(text, **arrays):
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_quantised_weights_are_stored_as_the_integers_they_become(dtype):
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((6, 4)).astype(np.float32)
    scale = np.array([0.5, 0.01, 0.02, 0.001], np.float32)
    zero = np.full(4, 3 if dtype == np.uint8 else 0, dtype)
    text = """g (float[n, 6] x) => (float[n, 4] y) {
      q = QuantizeLinear<axis=1>(w, s, z)
      d = DequantizeLinear<axis=1>(q, s, z)
      y = MatMul(x, d) }"""
    model = _model(text, w=weight, s=scale, z=zero)
    feeds = {"x": generator.standard_normal((3, 6)).astype(np.float32)}
    expected = run(model, feeds)
    assert store_integers(model) == 1
    assert kinds(model) == ["DequantizeLinear", "MatMul"]
    assert "w" not in model.graph.initializers
    np.testing.assert_array_equal(run(model, feeds), expected)


def test_activations_are_still_quantised_in_the_graph():
    text = """g (float[n, 6] x) => (float[n, 6] y) {
      q = QuantizeLinear(x, s, z)
      y = DequantizeLinear(q, s, z) }"""
    model = _model(text, s=np.array(0.1, np.float32), z=np.array(0, np.int8))
    assert store_integers(model) == 0


def test_a_transposed_embedding_becomes_a_weight_of_its_own():
    table = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    text = """g (int64[b, s] ids) => (float[b, s, 9] logits) {
      rows = Gather<axis=0>(table, ids)
      turned = Transpose<perm=[1, 0]>(table)
      logits = MatMul(rows, turned) }"""
    model = _model(text, table=table)
    feeds = {"ids": np.array([[0, 8, 3]])}
    expected = run(model, feeds)
    assert untie_weights(model) == 1
    assert kinds(model) == ["Gather", "MatMul"]
    np.testing.assert_array_equal(run(model, feeds), expected)
    assert untie_weights(model) == 0


@pytest.mark.parametrize("zero", [None, np.array([0, 0, 0, 5], np.int8)])
def test_signed_weights_become_unsigned_with_the_same_values(zero):
    generator = np.random.default_rng(0)
    stored = generator.integers(-128, 128, (6, 4)).astype(np.int8)
    scale = np.array([0.5, 0.01, 0.02, 0.001], np.float32)
    inputs = "w, s" if zero is None else "w, s, z"
    text = f"""g (float[n, 6] x) => (float[n, 4] y) {{
      d = DequantizeLinear<axis=1>({inputs})
      y = MatMul(x, d) }}"""
    model = _model(text, w=stored, s=scale, **({} if zero is None else {"z": zero}))
    feeds = {"x": generator.standard_normal((3, 6)).astype(np.float32)}
    expected = run(model, feeds)
    assert make_unsigned(model) == 1
    assert not [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    np.testing.assert_array_equal(run(model, feeds), expected)
    assert make_unsigned(model) == 0
