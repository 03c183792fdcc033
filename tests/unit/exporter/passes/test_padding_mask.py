import numpy as np
import onnx_ir as ir

from exporter.passes.attention import compose_attention, flatten_attention
from exporter.passes.padding_mask import MASKED, shorten_mask
from tests.unit.exporter.passes.graphs import attention_model, kinds, padded_feeds, run


def _flat_model():
    model = attention_model(decomposed=False)
    flatten_attention(model)
    return model


def test_a_padding_mask_gets_the_short_form_and_the_same_answers():
    model = _flat_model()
    expected = run(model, padded_feeds())
    assert shorten_mask(model) == 1
    assert "Not" not in kinds(model)
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-6)


def test_masked_weights_stay_normal_numbers():
    assert np.exp(np.float32(MASKED)) > 1e10 * np.finfo(np.float32).tiny
    assert np.exp(np.float32(MASKED)) < 1e-12 * np.finfo(np.float32).eps


def test_a_causal_mask_is_not_a_padding_mask():
    model = _flat_model()
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    lower = np.where(np.tril(np.ones((5, 5))) == 1, 0, -3.4e38).astype(np.float32)
    value = ir.Value(name="causal", const_value=ir.tensor(lower, name="causal"))
    model.graph.register_initializer(value)
    both = ir.node("Add", [attention.inputs[3], value], name="both")
    both.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(attention, both)
    attention.replace_input_with(3, both.outputs[0])
    expected = run(model, padded_feeds())
    assert shorten_mask(model) == 0
    np.testing.assert_array_equal(run(model, padded_feeds()), expected)


def test_a_mask_that_depends_on_the_text_stays():
    model = _flat_model()
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    x = model.graph.inputs[0]
    total = ir.node("ReduceMean", [x], {"keepdims": 1, "noop_with_empty_axes": 0}, name="mean")
    wide = ir.node("Add", [attention.inputs[3], total.outputs[0]], name="biased")
    wide.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(attention, [total, wide])
    attention.replace_input_with(3, wide.outputs[0])
    assert shorten_mask(model) == 0


def test_a_model_without_a_mask_is_left_alone():
    model = attention_model(decomposed=True)
    compose_attention(model)
    model.graph.inputs[1].name = "something_else"
    assert shorten_mask(model) == 0
