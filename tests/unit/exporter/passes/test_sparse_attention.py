"""Attention goes to our kernels only where it means the same there."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.passes.attention import compose_attention, flatten_attention
from exporter.passes.padding_mask import shorten_mask
from exporter.passes.sparse_attention import replace_attention
from tests.unit.exporter.passes.graphs import attention_model, kinds, padded_feeds, run
from tests.unit.runtimes.sparse.single_node import open_model


def make_flat(*, short: bool = True, **options) -> ir.Model:
    model = attention_model(decomposed=False, **options)
    flatten_attention(model)
    assert shorten_mask(model) == short
    return model


def find_attention(model: ir.Model) -> ir.Node:
    (node,) = [node for node in model.graph if "Attention" in node.op_type]
    return node


def run_ours(model: ir.Model, feeds: dict) -> np.ndarray:
    return open_model(ir.to_proto(model).SerializeToString()).run(None, feeds)[0]


def test_attention_with_a_padding_mask_takes_the_mask_as_it_is_fed():
    model = make_flat()
    expected = run(model, padded_feeds())
    assert replace_attention(model) == 1
    onnx.checker.check_model(ir.to_proto(model))
    node = find_attention(model)
    assert (node.domain, node.op_type) == ("ai.stepdown", "ScaledDotProductAttention")
    assert node.inputs[3].producer().op_type == "Cast"
    assert {"Expand", "Where", "Unsqueeze", "Concat", "Shape"}.isdisjoint(kinds(model))
    assert replace_attention(model) == 0
    np.testing.assert_allclose(run_ours(model, padded_feeds()), expected, atol=1e-5)


def test_a_text_of_padding_alone_answers_as_before():
    model, feeds = make_flat(), padded_feeds()
    feeds["attention_mask"][1] = 0
    expected = run(model, feeds)
    replace_attention(model)
    np.testing.assert_allclose(run_ours(model, feeds), expected, atol=1e-5)


def test_attention_without_a_mask_needs_none():
    model = make_flat()
    node = find_attention(model)
    bare = ir.node("Attention", node.inputs[:3], node.attributes, name="bare")
    model.graph.insert_before(node, bare)
    bare.outputs[0].type, bare.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    node.outputs[0].replace_all_uses_with(bare.outputs[0])
    model.graph.remove(node)
    feeds = {"x": padded_feeds()["x"], "attention_mask": padded_feeds()["attention_mask"]}
    expected = run(model, feeds)
    assert replace_attention(model) == 1
    assert len(find_attention(model).inputs) == 3
    np.testing.assert_allclose(run_ours(model, feeds), expected, atol=1e-5)


@pytest.mark.parametrize("mask", ["local", "causal", "padding"])
def test_another_mask_stays_with_onnx_runtime(mask):
    if mask == "padding":  # in its long form
        model = attention_model(decomposed=False)
        flatten_attention(model)
    else:
        model = make_flat(short=False, mask=mask)
    assert replace_attention(model) == 0
    assert find_attention(model).domain == ""


def test_a_bias_by_position_stays_with_onnx_runtime():
    model = attention_model(decomposed=True, placed=True)
    compose_attention(model)
    flatten_attention(model)
    shorten_mask(model)
    assert replace_attention(model) == 0


@pytest.mark.parametrize(
    "attribute",
    [
        ir.AttrInt64("is_causal", 1),
        ir.AttrFloat32("softcap", 30.0),
        ir.AttrInt64("kv_num_heads", 1),
        ir.AttrInt64("q_num_heads", 3),
        ir.AttrFloat32("scale", 0.0),
        ir.AttrFloat32("scale", -0.5),
    ],
)
def test_what_our_operator_cannot_say_stays_with_onnx_runtime(attribute):
    model = make_flat()
    find_attention(model).attributes[attribute.name] = attribute
    assert replace_attention(model) == 0


def test_four_axes_and_unknown_widths_stay_with_onnx_runtime():
    model = attention_model(decomposed=False)
    assert replace_attention(model) == 0
    model = make_flat()
    find_attention(model).inputs[1].shape = None
    assert replace_attention(model) == 0


def test_a_second_output_that_is_read_stays_with_onnx_runtime():
    model = make_flat()
    old = find_attention(model)
    node = ir.node("Attention", old.inputs, old.attributes, num_outputs=2, name="two")
    model.graph.insert_before(old, node)
    old.outputs[0].replace_all_uses_with(node.outputs[0])
    model.graph.remove(old)
    model.graph.outputs.append(node.outputs[1])
    assert replace_attention(model) == 0
