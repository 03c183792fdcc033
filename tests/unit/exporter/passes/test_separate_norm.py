import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from exporter.passes.separate_norm import separate_norm
from tests.unit.exporter.passes.graphs import attention_model, kinds, padded_feeds, run


def _optimised_kinds(model, path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    proto = ir.to_proto(model).SerializeToString()
    onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(path).graph.node}


def test_the_residual_addition_becomes_a_sum_with_the_same_answer():
    model = attention_model(decomposed=True)
    expected = run(model, padded_feeds())
    assert separate_norm(model) == 1
    assert "Sum" in kinds(model)
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-6)


def _residual_model():
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 23]>
    g (float[batch, sequence, 4] x, float[batch, sequence, 4] y) => (float[batch, sequence, 4] z)
    <float[4] gamma = {1, 1, 1, 1}, float[4] beta = {0, 0, 0, 0}>
    { sum = Add(x, y)
      z = LayerNormalization<axis=-1>(sum, gamma, beta) }""")
    return ir.from_proto(proto)


def test_onnx_runtime_fuses_the_addition_and_not_the_sum(tmp_path):
    plain, kept = _residual_model(), _residual_model()
    separate_norm(kept)
    assert "SkipLayerNormalization" in _optimised_kinds(plain, tmp_path / "plain.onnx")
    assert "SkipLayerNormalization" not in _optimised_kinds(kept, tmp_path / "kept.onnx")


def test_a_bias_before_a_norm_is_left_alone():
    model = attention_model(decomposed=True)
    separate_norm(model)
    assert separate_norm(model) == 0
