"""How large a cache gets: every channel by itself, without padding."""

import numpy as np
import onnx_ir as ir
import pytest

from calibration.cache_peaks import measure_peaks
from runtimes.errors import DataError, UnsupportedModel
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
