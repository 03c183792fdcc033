"""ONNX Runtime's quantisers on a model of two products: what they quantise, and that nothing is left behind."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.peers import onnxruntime_tools

BATCHES = [{"input_ids": np.arange(length, dtype=np.int64)[None]} for length in (3, 7)]


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"table": (10, 8), "weight": (8, 8)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], name="lookup"),
        helper.make_node("MatMul", ["embedded", "weight"], ["linear"], name="linear"),
        helper.make_node("Transpose", ["embedded"], ["turned"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["turned", "linear"], ["y"], name="attention"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 8])],
        [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in arrays.items()
        ],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def count(path, op):
    return sum(node.op_type == op for node in onnx.load(path).graph.node)


def test_dynamic_uses_integer_products_and_seven_bits(model, tmp_path):
    out = tmp_path / "out.onnx"
    onnxruntime_tools.quantize_dynamic(model, out)
    assert count(out, "MatMulInteger") >= 1
    weights = [numpy_helper.to_array(one) for one in onnx.load(out).graph.initializer]
    assert max(int(np.abs(one).max()) for one in weights if one.dtype == np.int8) <= 64


def test_default_placement_quantises_both_products_and_linears_only_one(model, tmp_path):
    everything, linears = tmp_path / "all.onnx", tmp_path / "linears.onnx"
    onnxruntime_tools.quantize_static(model, everything, BATCHES, activations="s8")
    onnxruntime_tools.quantize_static(model, linears, BATCHES, activations="u8", linears_only=True)
    assert count(everything, "QuantizeLinear") > count(linears, "QuantizeLinear") == 1


@pytest.mark.parametrize("method", ["minmax", "percentile"])
@pytest.mark.parametrize("linears_only", [True, False])
def test_what_tensorrt_takes_is_symmetric_and_has_no_integer_bias(model, tmp_path, capsys, method, linears_only):
    out = tmp_path / "out.onnx"
    onnxruntime_tools.quantize_for_tensorrt(model, out, BATCHES[:1] * 2, linears_only=linears_only, method=method)
    held = {one.name: numpy_helper.to_array(one) for one in onnx.load(out).graph.initializer}
    quantised = [node for node in onnx.load(out).graph.node if node.op_type == "QuantizeLinear"]
    assert quantised
    assert {(held[node.input[2]].dtype.name, held[node.input[2]].item()) for node in quantised} == {("int8", 0)}
    assert not any(array.dtype == np.int32 for array in held.values())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_calibration_gives_ranges_and_leaves_no_file(model, method):
    assert onnxruntime_tools.calibrate(model, BATCHES[:1] * 2, method) >= 2
    assert [path.name for path in model.parent.iterdir()] == ["m.onnx"]
