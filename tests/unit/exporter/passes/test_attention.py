import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.attention import compose_attention, flatten_attention
from tests.unit.exporter.passes.graphs import HEADS, HIDDEN, attention_model, kinds, padded_feeds, run, run_all


def _graph(model, kind):
    return [node for node in model.graph if node.op_type == kind]


def test_decomposed_attention_becomes_one_node_without_transposes():
    model = attention_model(decomposed=True)
    expected = run(model, padded_feeds())
    assert compose_attention(model) == 1
    assert flatten_attention(model) == 1
    assert "Softmax" not in kinds(model)
    assert "Transpose" not in kinds(model)
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [{"one_row": True}, {"placed": True}, {"placed": True, "one_row": True}])
def test_masks_of_one_row_and_position_biases_are_taken_along(shape):
    model = attention_model(decomposed=True, **shape)
    expected = run(model, padded_feeds())
    assert compose_attention(model) == 1
    assert flatten_attention(model) == 1
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-5)


def test_four_dimensional_attention_becomes_three_dimensional():
    model = attention_model(decomposed=False)
    expected = run(model, padded_feeds())
    assert compose_attention(model) == 0
    assert flatten_attention(model) == 1
    (node,) = _graph(model, "Attention")
    assert node.attributes["q_num_heads"].as_int() == 2
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-5)


def test_the_name_of_what_the_next_linear_reads_stays():
    model = attention_model(decomposed=True)
    compose_attention(model)
    flatten_attention(model)
    (node,) = _graph(model, "Attention")
    assert node.outputs[0].name == "joined"


def test_older_opsets_have_no_attention_operator():
    model = attention_model(decomposed=True, opset=18)
    assert compose_attention(model) == 0
    assert "Softmax" in kinds(model)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_softmax_over_another_axis_is_not_attention(axis):
    model = attention_model(decomposed=True)
    (softmax,) = _graph(model, "Softmax")
    softmax.attributes["axis"] = type(softmax.attributes["axis"])("axis", softmax.attributes["axis"].type, axis)
    assert compose_attention(model) == 0


def test_attention_whose_weights_are_read_elsewhere_stays():
    model = attention_model(decomposed=True)
    (softmax,) = _graph(model, "Softmax")
    model.graph.outputs.append(softmax.outputs[0])
    assert compose_attention(model) == 0


def _operator_model():
    model = attention_model(decomposed=False)
    (attention,) = _graph(model, "Attention")
    return model, attention


def test_a_causal_operator_stays_causal():
    model, attention = _operator_model()
    attention.attributes["is_causal"] = ir.AttrInt64("is_causal", 1)
    expected = run(model, padded_feeds())
    assert flatten_attention(model) == 1
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-5)


def test_attention_that_gives_out_more_than_its_output_stays():
    model = attention_model(decomposed=False)
    (attention,) = _graph(model, "Attention")
    more = ir.node("Attention", list(attention.inputs), attributes=attention.attributes, num_outputs=3, name="cached")
    model.graph.insert_before(attention, more)
    for index, name in ((1, "present_key"), (2, "present_value")):
        more.outputs[index].name, more.outputs[index].type = name, ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(more.outputs[index])
    ir.convenience.replace_all_uses_with(attention.outputs[0], more.outputs[0])
    more.outputs[0].shape = attention.outputs[0].shape
    model.graph.remove(attention, safe=True)
    assert flatten_attention(model) == 0


def test_a_reshape_that_mixes_positions_and_heads_is_not_a_split_into_heads():
    """[batch, 6, 8] read as [batch, 3, 4 heads, 4]: two neighbours make one position."""
    model = attention_model(decomposed=False)
    for node in _graph(model, "Reshape"):
        if len(node.outputs[0].shape) == 4:
            node.outputs[0].shape = ir.Shape(["batch", "half", 2 * HEADS, HIDDEN // HEADS])
    assert flatten_attention(model) == 0


def test_two_masks_of_one_row_are_taken_along():
    model = attention_model(decomposed=True, one_row=True)
    (softmax,) = _graph(model, "Softmax")
    row = ir.Value(name="row", const_value=ir.tensor(np.arange(5, dtype=np.float32).reshape(1, 1, 1, 5), name="row"))
    row.shape, row.type = ir.Shape([1, 1, 1, 5]), ir.TensorType(ir.DataType.FLOAT)
    model.graph.register_initializer(row)
    both = ir.node("Add", [softmax.inputs[0], row], name="both")
    both.outputs[0].shape, both.outputs[0].type = softmax.inputs[0].shape, softmax.inputs[0].type
    model.graph.insert_before(softmax, both)
    softmax.replace_input_with(0, both.outputs[0])
    expected = run(model, padded_feeds())
    assert compose_attention(model) == 1
    assert flatten_attention(model) == 1
    np.testing.assert_allclose(run(model, padded_feeds()), expected, atol=1e-5)


def _scores(query, key, value, mask):
    """Two attentions with one mask, over queries q and p of other lengths: 2 heads of 4 numbers, keys turned round."""
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    g (float[{query}, 4] q, float[batch, 2, others, 4] p, float[{key}] k, float[{value}, 4] v, float[{mask}] m)
      => (float[a, 2, c, 4] y, float[a, 2, d, 4] z) {{
      qk = MatMul(q, k)  qm = Add(qk, m)  qw = Softmax<axis=-1>(qm)  y = MatMul(qw, v)
      pk = MatMul(p, k)  pm = Add(pk, m)  pw = Softmax<axis=-1>(pm)  z = MatMul(pw, v) }}"""
    proto = onnx.parser.parse_model(text)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _feed(model, **sizes):
    generator = np.random.default_rng(0)
    sizes = {"batch": 3, "queries": 5, "others": 2, "keys": 6, **sizes}
    shapes = {
        v.name: [axis if isinstance(axis, int) else sizes[axis.value] for axis in v.shape] for v in model.graph.inputs
    }
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


_QUERY, _KEY, _VALUE = "batch, 2, queries", "batch, 2, 4, keys", "batch, 2, keys"


@pytest.mark.parametrize("mask", ["batch, 1, 1, keys", "1, keys", "keys"])
def test_a_mask_is_spread_over_as_many_queries_as_there_are(mask):
    model = _scores(_QUERY, _KEY, _VALUE, mask)
    feeds = _feed(model)
    expected = run_all(model, feeds)
    assert compose_attention(model) == 2
    for got, want in zip(run_all(model, feeds), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "composed"),
    [
        ((_QUERY, _KEY, _VALUE, "batch, 1, 1, 1"), 0),
        ((_QUERY, _KEY, _VALUE, "1"), 0),
        (("1, 2, queries", _KEY, _VALUE, "batch, 1, 1, keys"), 1),
        (("batch, 1, queries", _KEY, _VALUE, "batch, 1, 1, keys"), 1),
        ((_QUERY, "1, 2, 4, keys", "1, 2, keys", "batch, 1, 1, keys"), 0),
        ((_QUERY, "batch, 1, 4, keys", _VALUE, "batch, 1, 1, keys"), 0),
    ],
)
def test_what_products_and_additions_alone_broadcast_stays(shapes, composed):
    model = _scores(*shapes)
    feeds = _feed(model)
    expected = run_all(model, feeds)
    assert compose_attention(model) == composed
    for got, want in zip(run_all(model, feeds), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
