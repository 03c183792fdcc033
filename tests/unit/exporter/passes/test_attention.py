import numpy as np
import pytest

from exporter.passes.attention import compose_attention, flatten_attention
from tests.unit.exporter.passes.graphs import attention_model, kinds, padded_feeds, run


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
