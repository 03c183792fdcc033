"""Operators on integers, as ONNX Runtime's quantisers and optimizer write them: named, rewritten where known."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from exporter.lint.check_file import fix_file, lint_file
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx
from tests.unit.exporter.lint.quantised_graphs import K, N, answer, distance, draw, node, save


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def _save_linears(path):
    arrays = {"w": draw(K, N), "c": draw(N, seed=1), "v": draw(N, N, seed=2)}
    nodes = [
        node("MatMul", ["x", "w"], "m"),
        node("Add", ["m", "c"], "a"),
        node("Relu", ["a"], "r"),
        node("MatMul", ["r", "v"], "y"),
    ]
    inputs = {"x": (TensorProto.FLOAT, ["batch", K])}
    return save(path, nodes, {"y": (TensorProto.FLOAT, ["batch", N])}, arrays, inputs=inputs, opset=17)


def _save_convolutions(path, opset=17):
    """Two convolutions, a shortcut, pooling and a linear."""
    arrays = {
        "k1": draw(8, 3, 3, 3), "b1": draw(8, seed=1), "k2": draw(8, 8, 3, 3, seed=2), "b2": draw(8, seed=3),
        "w": draw(8, 10, seed=4), "b": draw(10, seed=5),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "k1", "b1"], "c1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], "r1"),
        node("Conv", ["r1", "k2", "b2"], "c2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], "s"),
        node("MaxPool", ["s"], "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], "g"),
        node("Flatten", ["g"], "f"),
        node("Gemm", ["f", "w", "b"], "y"),
    ]
    inputs = {"x": (TensorProto.FLOAT, ["batch", 3, 8, 8])}
    return save(path, nodes, {"y": (TensorProto.FLOAT, ["batch", 10])}, arrays, inputs=inputs, opset=opset)


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, *shape):
        self._left = [{"x": draw(*shape, seed=seed)} for seed in range(4)]

    def get_next(self):
        return self._left.pop() if self._left else None


def _rules(path):
    return {item.rule for item in lint_file(path, "tensorrt")}


def _fix(path):
    """Fix and return what is left; nothing may be an error."""
    fixed = fix_file(path, path.with_name("fixed.onnx"), "tensorrt")
    onnx.checker.check_model(path.with_name("fixed.onnx"), full_check=True)
    assert [item for item in fixed.left if item.severity == "error"] == []
    return fixed


def test_a_product_of_integers_becomes_a_float_one_between_pairs(path):
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(128, np.uint8), "w": np.full((K, N), 3, np.int8),
        "ws": np.array(0.01, np.float32), "wz": np.array(0, np.int8), "ys": np.array(0.05, np.float32),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("QLinearMatMul", ["q", "s", "z", "w", "ws", "wz", "ys", "z"], "yq"),
        node("DequantizeLinear", ["yq", "ys", "z"], "y"),
    ]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays)
    assert "integer-operator" in _rules(path)
    assert _fix(path).applied["integer-operator"] == 1


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_convolutional_network_in_operator_form(path, tmp_path, per_channel):
    quantization.quantize_static(
        _save_convolutions(tmp_path / "float.onnx"),
        path,
        _Reader(2, 3, 8, 8),
        quant_format=quantization.QuantFormat.QOperator,
        per_channel=per_channel,
    )
    written = {found.op_type for found in onnx.load(path).graph.node}
    assert {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= written
    assert "integer-operator" in _rules(path)
    fixed = _fix(path)
    assert all(row.after > 0.99 for row in fixed.proof)
    x = draw(4, 3, 8, 8, seed=9)
    (wanted,), (given,) = (answer(file, x=x) for file in (tmp_path / "float.onnx", path.with_name("fixed.onnx")))
    assert distance(given, wanted) < 0.05
    left = {found.op_type for found in onnx.load(path.with_name("fixed.onnx")).graph.node}
    assert not {name for name in left if name.startswith("QLinear") or name == "QGemm"}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("make", [_save_linears, _save_convolutions])
def test_dynamic_products_keep_their_int8_weights(path, tmp_path, make, per_channel):
    quantization.quantize_dynamic(make(tmp_path / "float.onnx"), path, per_channel=per_channel)
    found = [item for item in lint_file(path, "tensorrt") if item.severity == "error"]
    assert {item.rule for item in found} >= {"dynamic-operator"}
    fixed = _fix(path)
    assert all(row.after > 0.9999 for row in fixed.proof)
    stored = onnx.load(path.with_name("fixed.onnx")).graph
    assert sum(t.data_type == TensorProto.INT8 and len(t.dims) > 1 for t in stored.initializer) >= 2
    assert not any("Integer" in found.op_type or "Dynamic" in found.op_type for found in stored.node)


def test_what_the_optimizer_of_onnx_runtime_makes_of_dynamic_products(path, tmp_path):
    dynamic = tmp_path / "dynamic.onnx"
    quantization.quantize_dynamic(_save_linears(tmp_path / "float.onnx"), dynamic)
    OnnxRuntime(OrtOptions(optimized=path)).open(describe_onnx(dynamic)).close()
    assert any(found.domain == "com.microsoft" for found in onnx.load(path, load_external_data=False).graph.node)
    assert "dynamic-operator" in _rules(path)
    assert all(row.after > 0.9999 for row in _fix(path).proof)


def test_a_dynamic_product_of_unknown_form_is_named_with_the_cure(path):
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dyn"),
        node("MatMulInteger", ["q", "w", "z"], "i"),
        node("Cast", ["i"], "y", to=TensorProto.FLOAT),
    ]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, {"w": np.ones((K, N), np.int8)})
    found = lint_file(path, "tensorrt")
    assert [(item.node, item.fixable) for item in found] == [("dyn", False), ("n_i", False)]
    assert "calibration data" in found[0].cure


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_packed_by_onnx_runtime_become_int8(path, tmp_path, bits, symmetric):
    """48 inputs in blocks of 32: the second block of each output is filled up."""
    weight = draw(48, N)
    inputs = {"x": (TensorProto.FLOAT, ["batch", 48])}
    outputs = {"y": (TensorProto.FLOAT, ["batch", N])}
    plain = save(tmp_path / "float.onnx", [node("MatMul", ["x", "w"], "y")], outputs, {"w": weight}, inputs=inputs)
    quantiser = MatMulNBitsQuantizer(onnx.load(plain), bits=bits, block_size=32, is_symmetric=symmetric)
    quantiser.process()
    quantiser.model.save_model_to_file(str(path))
    (found,) = lint_file(path, "tensorrt")
    assert (found.rule, found.severity, found.fixable) == ("packed-weight", "error", True)
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"packed-weight": 1}, ())
    assert all(row.after > 0.9999 for row in fixed.proof)


def _quantise_operators(source, path):
    quantization.quantize_static(
        source, path, _Reader(2, 3, 8, 8), quant_format=quantization.QuantFormat.QOperator, per_channel=True
    )


def _quantise_weights(source, path):
    quantization.quantize_dynamic(source, path, per_channel=True)


@pytest.mark.parametrize("quantise", [_quantise_operators, _quantise_weights])
@pytest.mark.parametrize("opset", [11, 12])
def test_before_quantisers_had_an_axis_weights_get_one_scale(path, tmp_path, quantise, opset):
    source = _save_convolutions(tmp_path / "float.onnx", opset=opset)
    quantise(source, path)
    _fix(path)
    x = draw(4, 3, 8, 8, seed=9)
    (wanted,), (given,) = (answer(file, x=x) for file in (source, path.with_name("fixed.onnx")))
    assert distance(given, wanted) < 0.05


def test_one_zero_point_stands_for_every_channel(path):
    arrays = {
        "s": np.float32(0.03), "z": np.uint8(128), "ys": np.float32(0.5), "wz": np.int8(0),
        "w": np.random.default_rng(0).integers(-100, 100, (4, 4, 3, 3)).astype(np.int8),
        "ws": np.linspace(0.01, 0.04, 4, dtype=np.float32),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q"),
        node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "ys", "z"], "yq"),
        node("DequantizeLinear", ["yq", "ys", "z"], "y"),
    ]
    inputs = {"x": (TensorProto.FLOAT, ["b", 4, 5, 5])}
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", 4, 3, 3])}, arrays, inputs=inputs)
    _fix(path)
    x = draw(2, 4, 5, 5)
    assert distance(answer(path.with_name("fixed.onnx"), x=x)[0], answer(path, x=x)[0]) < 0.03


@pytest.mark.parametrize("attributes", [{}, {"block_size": 16}])
def test_a_packed_weight_that_is_not_as_its_attributes_say_is_left(path, attributes):
    arrays = {"w": np.ones((4, 2, 8), np.uint8), "s": np.ones(4, np.float32)}
    nodes = [node("MatMulNBits", ["x", "w", "s"], "y", domain="com.microsoft", K=K, N=4, bits=4, **attributes)]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", 4])}, arrays)
    assert [(item.rule, item.fixable) for item in lint_file(path, "tensorrt")] == [("packed-weight", False)]
