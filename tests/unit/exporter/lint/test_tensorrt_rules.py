"""Each rule on a graph that breaks it, and what rewriting makes of it."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from exporter.lint.check_file import fix_file, lint_file
from runtimes.errors import UnsupportedModel
from tests.unit.exporter.lint.quantised_graphs import K, N, answer, distance, draw, node, save, save_linear


def _rules(path):
    return sorted({item.rule for item in lint_file(path, "tensorrt")})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def _fix(path):
    fixed = fix_file(path, path.with_name("fixed.onnx"), "tensorrt")
    onnx.checker.check_model(path.with_name("fixed.onnx"), full_check=True)
    return fixed


def test_a_graph_as_tensorrt_wants_it_has_no_findings(path):
    assert _rules(save_linear(path)) == []
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({}, ())


def test_unsigned_activations_around_the_middle_become_signed_exactly(path):
    save_linear(path, kind=np.uint8, zero=128)
    assert _rules(path) == ["integer-type"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after == pytest.approx(row.before, abs=1e-9) for row in fixed.proof)


def test_unsigned_activations_elsewhere_get_the_range_on_both_sides(path):
    save_linear(path, kind=np.uint8, zero=100)
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after > 0.999 for row in fixed.proof)


def test_a_zero_point_is_named_with_its_node(path):
    (first, second) = lint_file(save_linear(path, zero=7), "tensorrt")
    assert (first.rule, first.node, first.severity) == ("zero-point", "n_q", "error")
    assert "zero point is 7" in first.what
    assert second.node == "n_d"
    assert _fix(path).left == ()


@pytest.mark.parametrize("zero", [128, 100])
def test_unsigned_weights_are_shifted_or_quantised_again(path, zero):
    save_linear(path, weight_zero=zero)
    assert _rules(path) == ["integer-type"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after > 0.9999 for row in fixed.proof)


def test_without_a_zero_point_onnx_means_uint8_and_both_sides_of_a_pair_change(path):
    save_linear(path)
    proto = onnx.load(path)
    for found in proto.graph.node[:2]:
        del found.input[2]
    onnx.save(proto, path)
    assert [item.node for item in lint_file(path, "tensorrt")] == ["n_q", "n_d"]
    fixed = _fix(path)
    assert fixed.left == ()
    # Such integers begin at zero: what is below stays cut off.
    x = draw(8, K)
    assert distance(answer(path.with_name("fixed.onnx"), x=x)[0], answer(path, x=x)[0]) < 0.05


def test_a_zero_point_that_goes_to_an_output_stays_and_is_not_called_fixable(path):
    arrays = {"s": np.array(0.03, np.float32), "z": np.array(7, np.int8)}
    outputs = {"q": (TensorProto.INT8, ["b", K])}
    save(path, [node("QuantizeLinear", ["x", "s", "z"], "q")], outputs, arrays)
    (found,) = lint_file(path, "tensorrt")
    assert (found.rule, found.fixable) == ("zero-point", False)
    assert dict(_fix(path).applied) == {}


@pytest.mark.parametrize("kind", [ml_dtypes.int4, ml_dtypes.uint4])
def test_4_bit_weights_in_blocks_are_taken_where_they_are_signed(path, kind):
    arrays = {"w": np.full((K, N), 3, kind), "ws": np.full((2, N), 0.1, np.float32)}
    nodes = [node("DequantizeLinear", ["w", "ws"], "wd", axis=0, block_size=8), node("MatMul", ["x", "wd"], "y")]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays)
    found = lint_file(path, "tensorrt")
    assert [(item.rule, item.fixable) for item in found] == [("integer-type", False)] * (kind is ml_dtypes.uint4)
    assert all("int4" in item.cure for item in found)


def test_float8_is_taken(path):
    assert _rules(save_linear(path, kind=ml_dtypes.float8_e4m3fn)) == []


def test_a_type_written_twice_and_differently_is_left_to_the_zero_point(path):
    save_linear(path)
    proto = onnx.load(path)
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("output_dtype", TensorProto.UINT8))
    onnx.save(proto, path)
    assert _rules(path) == ["output-type"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"output-type": 1}, ())
    assert all(np.isnan(row.before) and row.after > 0.999 for row in fixed.proof)


def test_a_weight_that_is_quantised_at_build_time_is_stored_as_integers(path):
    scales = np.linspace(0.01, 0.02, N, dtype=np.float32)
    arrays = {"w": draw(K, N), "ws": scales, "wz": np.zeros(N, np.int8)}
    nodes = [
        node("QuantizeLinear", ["w", "ws", "wz"], "wq", axis=1),
        node("DequantizeLinear", ["wq", "ws", "wz"], "wd", axis=1),
        node("MatMul", ["x", "wd"], "y"),
    ]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays)
    assert _rules(path) == ["float-weight"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"float-weight": 1}, ())
    stored = onnx.load(path.with_name("fixed.onnx")).graph
    assert [found.op_type for found in stored.node] == ["DequantizeLinear", "MatMul"]
    (integers,) = (t for t in stored.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 2)
    expected = np.clip(np.rint(arrays["w"] / scales), -128, 127)
    np.testing.assert_array_equal(numpy_helper.to_array(integers), expected)


def test_an_operator_set_after_the_documented_ones_is_a_warning(path):
    (found,) = lint_file(save_linear(path, opset=25), "tensorrt")
    assert (found.rule, found.severity, found.node) == ("opset", "warning", "opset 25")


def test_a_scale_a_channel_before_there_was_an_axis_is_named(path):
    """ONNX Runtime's quantizer writes it, and ONNX Runtime refuses it: nothing can be proved of that graph."""
    (found,) = lint_file(save_linear(path, opset=11), "tensorrt")
    assert (found.rule, found.node, found.fixable) == ("opset", "n_wd", False)
    assert "opset 13" in found.cure
    with pytest.raises(UnsupportedModel, match="rewritten or not"):
        _fix(path)


def test_a_missing_axis_is_written_down(path):
    save_linear(path, write_axis=False)
    assert _rules(path) == ["missing-axis"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"missing-axis": 1}, ())


def test_a_missing_axis_is_the_one_that_fits(path):
    """A tool that meant TensorRT's old 0 wrote a graph that ONNX does not take."""
    arrays = {
        "w": np.ones((N, K), np.int8),
        "ws": np.linspace(0.01, 0.02, N, dtype=np.float32),
        "wz": np.zeros(N, np.int8),
    }
    nodes = [node("DequantizeLinear", ["w", "ws", "wz"], "wd"), node("Gemm", ["x", "wd"], "y", transB=1)]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays)
    found = lint_file(path, "tensorrt")
    assert {item.rule: item.fixable for item in found} == {"missing-axis": True, "weight-axis": True}
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"missing-axis": 1}, ())
    assert all(np.isnan(row.before) and row.after > 0.999 for row in fixed.proof)


def test_scales_that_do_not_fit_their_weight_are_reported_and_left(path):
    save_linear(path, weight_zero=100)
    proto = onnx.load(path)
    next(found for found in proto.graph.node if found.name == "n_wd").attribute[0].i = 0
    onnx.save(proto, path)
    found = lint_file(path, "tensorrt")
    assert {item.rule: item.fixable for item in found} == {"integer-type": False, "weight-axis": False}


def test_scales_along_the_inputs_are_turned(path):
    save_linear(path, axis=0)
    assert _rules(path) == ["weight-axis"]
    assert _fix(path).left == ()


@pytest.mark.parametrize(("scale", "word"), [(0.0, "0"), (np.nan, "nan"), (-1.0, "-1"), (np.inf, "inf")])
def test_a_scale_nothing_can_be_divided_by_is_an_error_without_a_fix(path, scale, word):
    found = [item for item in lint_file(save_linear(path, scale=scale), "tensorrt") if item.rule == "scale"]
    assert [item.node for item in found] == ["n_q", "n_d"]
    assert f"scale is {word}" in found[0].what
    assert not found[0].fixable


@pytest.mark.parametrize(("name", "word"), [("s", "scale"), ("z", "zero point")])
def test_constants_that_are_computed_are_named(path, name, word):
    save_linear(path)
    proto = onnx.load(path)
    for found in proto.graph.node[:2]:
        found.input[1 if name == "s" else 2] = "computed"
    kind = TensorProto.FLOAT if name == "s" else TensorProto.INT8
    shape = onnx.helper.make_tensor_value_info("computed", kind, [])
    proto.graph.input.append(shape)
    onnx.save(proto, path)
    found = [item for item in lint_file(path, "tensorrt") if item.rule == "scale"]
    assert [item.node for item in found] == ["n_q", "n_d"]
    assert f"its {word} is computed" in found[0].what
    assert "calibration data" in found[0].cure


def test_an_integer_bias_becomes_float(path):
    save_linear(path)
    proto = onnx.load(path)
    del proto.graph.node[-1]
    proto.graph.node.extend([node("DequantizeLinear", ["bi", "bs"], "bd"), node("Add", ["m", "bd"], "y0")])
    for name, array in {"bi": np.arange(N, dtype=np.int32), "bs": np.array(0.01, np.float32)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, path)
    assert _rules(path) == ["integer-bias"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"integer-bias": 1}, ())


def test_a_table_is_dequantised_before_its_rows_are_taken(path):
    arrays = {
        "t": np.random.default_rng(0).integers(-100, 100, (50, K)).astype(np.int8), "w": draw(K, N),
        "s": np.array(0.03, np.float32), "z": np.array(7, np.int8),
    }  # fmt: skip
    nodes = [
        node("Gather", ["t", "ids"], "rows"),
        node("DequantizeLinear", ["rows", "s", "z"], "d"),
        node("MatMul", ["d", "w"], "y"),
    ]
    inputs = {"ids": (TensorProto.INT64, ["batch", 3])}
    arrays["t"] = np.resize(arrays["t"], (1000, K))  # the proof draws ids below 1000
    save(path, nodes, {"y": (TensorProto.FLOAT, ["batch", 3, N])}, arrays, inputs=inputs)
    assert _rules(path) == ["moved-constant", "zero-point"]
    assert all(item.fixable for item in lint_file(path, "tensorrt"))
    assert _fix(path).left == ()


def test_a_constant_that_is_no_weight_is_stored_as_float(path):
    after = [node("DequantizeLinear", ["o", "s", "z"], "od"), node("Mul", ["y0", "od"], "y")]
    save_linear(path, after=after, arrays={"o": np.arange(N, dtype=np.int8)})
    assert _rules(path) == ["integer-constant"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"integer-constant": 1}, ())


def test_a_pair_with_the_range_of_a_mask_is_passed_by(path):
    save_linear(path, scale=2.7e36)
    assert _rules(path) == ["mask-range"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after > 0.999 > row.before for row in fixed.proof)


def test_a_mask_stored_as_an_integer_becomes_finite(path):
    """-3.4e38 in steps of a 127th comes back as minus infinity, and that times zero is NaN."""
    after = [
        node("DequantizeLinear", ["mi", "ms", "mz"], "fill"),
        node("Mul", ["zero", "fill"], "mask"),
        node("Add", ["y0", "mask"], "y"),
    ]
    arrays = {
        "mi": np.array([-128], np.int8), "ms": np.array(2.6793888e36, np.float32), "mz": np.array(0, np.int8),
        "zero": np.array([0], np.float32),
    }  # fmt: skip
    save_linear(path, after=after, arrays=arrays)
    assert _rules(path) == ["integer-constant", "mask-range"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(np.isnan(row.before) and row.after > 0.99 for row in fixed.proof)


def test_activations_with_a_scale_a_channel_get_one(path):
    save_linear(path, arrays={"s": np.full(K, 0.03, np.float32), "z": np.zeros(K, np.int8)})
    assert _rules(path) == ["channel-activation", "missing-axis"]
    assert _fix(path).left == ()


def test_fused_operators_of_onnx_runtime_are_named(path):
    nodes = [node("Gelu", ["x"], "y", domain="com.microsoft")]
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", K])}, {})
    (found,) = lint_file(path, "tensorrt")
    assert (found.rule, found.what) == ("operator", "com.microsoft::Gelu is not an operator of ONNX")
    assert "optimizer" in found.cure


def test_16_bit_quantisers_of_onnx_runtime_are_named_with_their_own_cure(path):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], "q", domain="com.microsoft"),
        node("DequantizeLinear", ["q", "s", "z"], "y", domain="com.microsoft"),
    ]
    arrays = {"s": np.array(0.03, np.float32), "z": np.array(100, np.uint16)}
    save(path, nodes, {"y": (TensorProto.FLOAT, ["b", K])}, arrays)
    found = [item for item in lint_file(path, "tensorrt") if item.rule == "operator"]
    assert [item.node for item in found] == ["n_q", "n_y"]
    assert all("quantise to int8" in item.cure for item in found)


def test_fp32_scales_in_an_fp16_graph_are_islands(path):
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(0, np.int8), "w": np.full((K, N), 3, np.int8),
        "ws": np.array(0.01, np.float16), "wz": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [
        node("Relu", ["x"], "r"),
        node("Cast", ["r"], "rf", to=TensorProto.FLOAT),
        node("QuantizeLinear", ["rf", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("Cast", ["d"], "dh", to=TensorProto.FLOAT16),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd"),
        node("MatMul", ["dh", "wd"], "y"),
    ]
    half = TensorProto.FLOAT16
    save(path, nodes, {"y": (half, ["b", N])}, arrays, inputs={"x": (half, ["b", K])})
    assert "float-island" in _rules(path)
    fixed = _fix(path)
    assert fixed.left == ()
    assert fixed.applied["float-island"] == 2


def test_islands_stay_where_the_operator_set_has_no_other_scales(path):
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(0, np.int8), "w": np.full((K, N), 3, np.int8),
        "ws": np.array(0.01, np.float32), "wz": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [
        node("Cast", ["x"], "xf", to=TensorProto.FLOAT),
        node("QuantizeLinear", ["xf", "s", "z"], "q"),
        node("DequantizeLinear", ["q", "s", "z"], "d"),
        node("Cast", ["d"], "dh", to=TensorProto.FLOAT16),
        node("DequantizeLinear", ["w", "ws", "wz"], "wd"),
        node("Cast", ["wd"], "wh", to=TensorProto.FLOAT16),
        node("MatMul", ["dh", "wh"], "y"),
    ]
    half = TensorProto.FLOAT16
    save(path, nodes, {"y": (half, ["b", N])}, arrays, inputs={"x": (half, ["b", K])}, opset=17)
    found = lint_file(path, "tensorrt")
    assert {(item.rule, item.fixable) for item in found} == {("float-island", False)}
    assert dict(_fix(path).applied) == {}


def test_a_weight_dequantised_before_its_transpose_is_stored_turned(path):
    save_linear(path)
    proto = onnx.load(path)
    for found in proto.graph.node:
        if found.name == "n_wd":
            found.name, found.input[0], found.output[0] = "n_wtd", "wt", "wtd"
            found.attribute[0].i = 0
        if found.name == "n_m":
            place = list(proto.graph.node).index(found)
    proto.graph.node.insert(place, node("Transpose", ["wtd"], "wd", perm=[1, 0]))
    weight = next(t for t in proto.graph.initializer if t.name == "w")
    turned = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weight).T), "wt")
    proto.graph.initializer.remove(weight)
    proto.graph.initializer.append(turned)
    onnx.save(proto, path)
    assert _rules(path) == ["transposed-weight"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"transposed-weight": 1}, ())
