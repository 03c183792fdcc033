import numpy as np
import onnx_ir as ir
import pytest

from exporter.passes.attention import compose_attention, flatten_attention
from exporter.passes.padding_mask import MASKED, shorten_mask
from tests.unit.exporter.passes.graphs import attention_model, kinds, padded_feeds, run, run_all


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


def test_a_mask_that_hides_a_token_too_stays():
    model = _flat_model()
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    ids = ir.Value(name="ids", shape=ir.Shape(["batch", "sequence"]), type=ir.TensorType(ir.DataType.INT64))
    model.graph.inputs.append(ids)
    numbers = {"token": np.array(7), "seen": np.float32(0), "unseen": np.float32(-3.4e38), "places": np.array([1, 2])}
    values = {name: ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in numbers.items()}
    for value in values.values():
        model.graph.register_initializer(value)
    found = ir.node("Equal", [ids, values["token"]], name="found")
    fill = ir.node("Where", [found.outputs[0], values["unseen"], values["seen"]], name="fill")
    lift = ir.node("Unsqueeze", [fill.outputs[0], values["places"]], name="lift")
    both = ir.node("Min", [attention.inputs[3], lift.outputs[0]], name="both")
    both.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(attention, [found, fill, lift, both])
    attention.replace_input_with(3, both.outputs[0])
    feeds = {**padded_feeds(), "ids": np.array([[1, 7, 3, 1, 2], [7, 7, 2, 0, 0]])}
    expected = run(model, feeds)
    shorten_mask(model)
    np.testing.assert_allclose(run(model, feeds), expected, atol=1e-6)


def test_a_model_without_a_mask_is_left_alone():
    model = attention_model(decomposed=True)
    compose_attention(model)
    model.graph.inputs[1].name = "something_else"
    assert shorten_mask(model) == 0


def _flat(mask):
    model = attention_model(decomposed=False, mask=mask)
    flatten_attention(model)
    return model


@pytest.mark.parametrize("mask", ["local", "float local", "table"])
def test_a_window_wider_than_a_short_text_is_seen(mask):
    model = _flat(mask)
    expected = run(model, _long_feeds())
    assert shorten_mask(model) == 0
    np.testing.assert_array_equal(run(model, _long_feeds()), expected)


def _long_feeds():
    x = np.random.default_rng(0).standard_normal((1, 50, 8)).astype(np.float32)
    return {"x": x, "attention_mask": np.ones((1, 50), np.int64)}


def test_a_causal_mask_alone_is_not_a_padding_mask():
    assert shorten_mask(_flat("causal")) == 0


def test_an_input_of_another_rank_is_no_obstacle():
    model = _flat_model()
    lengths = ir.Value(name="lengths", shape=ir.Shape(["batch"]), type=ir.TensorType(ir.DataType.INT64))
    model.graph.inputs.append(lengths)
    assert shorten_mask(model) == 1


def test_a_mask_that_cannot_be_run_alone_stays():
    """The mask of a model of fixed length, which no other length fits."""
    model = _flat_model()
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    sizes = ir.Value(name="sizes", const_value=ir.tensor(np.array([2, 1, 5, 5]), name="sizes"))
    model.graph.register_initializer(sizes)
    fixed = ir.node("Reshape", [attention.inputs[3], sizes], name="fixed")
    fixed.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(attention, fixed)
    attention.replace_input_with(3, fixed.outputs[0])
    assert shorten_mask(model) == 0


def test_what_else_reads_the_mask_still_reads_the_old_one():
    model = _flat_model()
    (attention,) = [node for node in model.graph if node.op_type == "Attention"]
    least = ir.node("ReduceMin", [attention.inputs[3]], {"keepdims": 0}, name="least")
    least.outputs[0].name, least.outputs[0].type = "least", ir.TensorType(ir.DataType.FLOAT)
    least.outputs[0].shape = ir.Shape([])
    model.graph.append(least)
    model.graph.outputs.append(least.outputs[0])
    expected = run_all(model, padded_feeds())
    assert shorten_mask(model) == 1
    for got, want in zip(run_all(model, padded_feeds()), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
