"""How large a cache gets: every channel by itself, without padding."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from calibration.cache_peaks import measure_peaks
from runtimes.errors import DataError, UnsupportedModel
from runtimes.generation.cache_spec import CacheSpec
from runtimes.generation.feeds import make_step
from tests.unit.exporter.passes.decoders import CACHE, draw_tokens, make_decoder, open_session


def test_padding_does_not_count(tmp_path):
    ir.save(make_decoder(), tmp_path / "float.onnx")
    ids, mask = draw_tokens(rows=3, length=8)
    mask[:] = 1
    mask[1] = [0] * 7 + [1]
    feeds = make_step(ids, mask, CACHE.empty(3))
    found = measure_peaks(tmp_path / "float.onnx", [feeds])
    for past, present in CACHE.names():
        value = open_session(make_decoder()).run([present], feeds)[0]
        rows = np.concatenate([value[row][:, mask[row] != 0] for row in range(3)], axis=1)
        np.testing.assert_array_equal(found[past], np.abs(rows).max(axis=1))


def test_peaks_need_data_and_a_cache(tmp_path):
    ir.save(make_decoder(), tmp_path / "float.onnx")
    with pytest.raises(DataError, match="nothing to run"):
        measure_peaks(tmp_path / "float.onnx", [])
    fed = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Relu", [fed])
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "y", fed.type, fed.shape
    graph = ir.Graph([fed], list(node.outputs), nodes=[node], opset_imports={"": 20}, name="g")
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "other.onnx")
    with pytest.raises(UnsupportedModel, match="no cache"):
        measure_peaks(tmp_path / "other.onnx", [])


def test_infinity_in_the_cache_is_named(tmp_path):
    model = make_decoder()
    weight = model.graph.initializers["value_w"]
    weight.const_value = ir.tensor(np.full(weight.const_value.shape, np.inf, np.float32), name="value_w")
    ir.save(model, tmp_path / "model.onnx")
    ids, mask = draw_tokens()
    with pytest.raises(UnsupportedModel, match=r"present\.0\.value"):
        measure_peaks(tmp_path / "model.onnx", [make_step(ids, mask, CACHE.empty(len(ids)))])


def write_turning(path):
    """Write a model whose keys and values turn with their position, a hundredth of a turn for each."""
    one, whole, axes = (TensorProto.FLOAT, TensorProto.INT64, ("batch", 1, "past", 1))
    cache = CacheSpec(layers=1, kv_heads=1, head_dim=1)
    inputs = [
        helper.make_tensor_value_info(name, whole, ("batch", length))
        for name, length in (("input_ids", "sequence"), ("attention_mask", "total"), ("position_ids", "sequence"))
    ]
    inputs += [helper.make_tensor_value_info(name, one, axes) for name, _ in cache.names()]
    outputs = [helper.make_tensor_value_info(name, one, ("batch", 1, "total", 1)) for _, name in cache.names()]
    nodes = [
        helper.make_node("Cast", ["position_ids"], ["places"], to=one),
        helper.make_node("Mul", ["places", "angle"], ["angles"]),
        helper.make_node("Sin", ["angles"], ["turned"]),
        helper.make_node("Unsqueeze", ["turned", "ends"], ["key"]),
        *(helper.make_node("Concat", [past, "key"], [present], axis=2) for past, present in cache.names()),
    ]
    stored = [
        helper.make_tensor("angle", one, (), [2 * np.pi / 100]),
        helper.make_tensor("ends", whole, (2,), [1, 3]),
    ]
    graph = helper.make_graph(nodes, "turning", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return cache


def test_keys_that_turn_are_met_along_the_whole_context(tmp_path):
    cache = write_turning(tmp_path / "model.onnx")
    ids = np.ones((20, 5), np.int64)
    feeds = [make_step(part, np.ones_like(part), cache.empty(len(part))) for part in (ids[:7], ids[7:])]
    near = measure_peaks(tmp_path / "model.onnx", feeds)
    assert near["past_key_values.0.key"] == pytest.approx(np.sin(2 * np.pi * 4 / 100), rel=1e-5)
    along = measure_peaks(tmp_path / "model.onnx", feeds, longest=100)
    assert along["past_key_values.0.key"] > 0.98
    short = measure_peaks(tmp_path / "model.onnx", feeds, longest=5)
    np.testing.assert_array_equal(short["past_key_values.0.key"], near["past_key_values.0.key"])
