"""What ONNX Runtime's tools write by themselves: the marks by which a lint knows them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.peers import onnxruntime_defaults

BATCHES = [{"x": np.random.default_rng(seed).standard_normal((2, 16)).astype(np.float32)} for seed in range(3)]


@pytest.fixture
def model(tmp_path):
    generator = np.random.default_rng(0)
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in
               {"w": (16, 32), "b": (32,), "v": (32, 16)}.items()}  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="first"),
        helper.make_node("Add", ["m", "b"], ["a"], name="bias"),
        helper.make_node("MatMul", ["a", "v"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def list_ops(path):
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


@pytest.mark.parametrize(
    ("preset", "ops"),
    [
        ("default", {"QuantizeLinear", "DequantizeLinear", "MatMul"}),
        ("u8s8", {"QuantizeLinear", "DequantizeLinear", "MatMul"}),
        ("percentile", {"QuantizeLinear", "DequantizeLinear", "MatMul"}),
        ("optimum-tensorrt", {"QuantizeLinear", "DequantizeLinear", "MatMul"}),
        ("operators", {"QuantizeLinear", "DequantizeLinear", "QLinearMatMul"}),
    ],
)
def test_static_presets(model, tmp_path, preset, ops):
    out = tmp_path / "out.onnx"
    onnxruntime_defaults.quantise_static(model, out, BATCHES, preset)
    assert ops <= list_ops(out)


def test_dynamic_and_4_bit(model, tmp_path):
    for name, make, op in (
        ("dynamic", onnxruntime_defaults.quantise_dynamic, "MatMulInteger"),
        ("optimum", onnxruntime_defaults.quantise_like_optimum, "MatMulInteger"),
        ("4-bit", onnxruntime_defaults.quantise_4_bit, "MatMulNBits"),
    ):
        out = tmp_path / f"{name}.onnx"
        make(model, out)
        assert op in list_ops(out)


def test_what_is_made_of_a_quantised_graph(model, tmp_path):
    static, narrow, optimised = (tmp_path / f"{name}.onnx" for name in ("static", "narrow", "optimised"))
    onnxruntime_defaults.quantise_static(model, static, BATCHES, "optimum-tensorrt")
    onnxruntime_defaults.narrow_floats(static, narrow)
    assert onnx.load(narrow).graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    onnxruntime_defaults.optimise(static, optimised)
    assert optimised.is_file()
