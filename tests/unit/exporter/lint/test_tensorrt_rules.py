"""Each rule on a graph that breaks it, and what rewriting makes of it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.lint.check_file import fix_file, lint_file
from exporter.lint.rule import run_rules
from exporter.lint.tensorrt import RULES
from runtimes.errors import CorruptArtifact, UsageError

K, N = 16, 20


def _draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _node(op, inputs, output, domain="", **attributes):
    return helper.make_node(op, inputs, [output], name=f"n_{output}", domain=domain, **attributes)


def _save(path, nodes, outputs, arrays, *, inputs=None, opset=21):
    inputs = inputs or {"x": (TensorProto.FLOAT, ["b", K])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def _linear(path, *, kind=np.int8, zero=0, weight_zero=0, axis=1, write_axis=True, after=(), scale=0.03, arrays=None):
    """x -> Q -> DQ -> MatMul with an int8 weight -> Add, and what ``after`` says."""
    weight_kind = np.uint8 if weight_zero else np.int8
    channels = (K, N)[axis]
    stored = np.random.default_rng(1).integers(-100, 100, (K, N)) + weight_zero
    constants = {
        "s": np.array(scale, np.float32),
        "z": np.array(zero, kind),
        "w": stored.astype(weight_kind),
        "ws": np.linspace(0.01, 0.02, channels, dtype=np.float32),
        "wz": np.full(channels, weight_zero, weight_kind),
        "c": _draw(N),
        **(arrays or {}),
    }
    along = {"axis": axis} if write_axis else {}
    nodes = [
        _node("QuantizeLinear", ["x", "s", "z"], "q"),
        _node("DequantizeLinear", ["q", "s", "z"], "d"),
        _node("DequantizeLinear", ["w", "ws", "wz"], "wd", **along),
        _node("MatMul", ["d", "wd"], "m"),
        _node("Add", ["m", "c"], "y0"),
        *after,
    ]
    last = after[-1].output[0] if after else "y0"
    return _save(path, nodes, {last: (TensorProto.FLOAT, ["b", N])}, constants)


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
    assert _rules(_linear(path)) == []
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({}, ())


def test_unsigned_activations_around_the_middle_become_signed_exactly(path):
    _linear(path, kind=np.uint8, zero=128)
    assert _rules(path) == ["integer-type"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after == pytest.approx(row.before, abs=1e-9) for row in fixed.proof)


def test_unsigned_activations_elsewhere_get_the_range_on_both_sides(path):
    _linear(path, kind=np.uint8, zero=100)
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after > 0.999 for row in fixed.proof)


def test_a_zero_point_is_named_with_its_node(path):
    (first, second) = lint_file(_linear(path, zero=7), "tensorrt")
    assert (first.rule, first.node, first.severity) == ("zero-point", "n_q", "error")
    assert "zero point is 7" in first.what
    assert second.node == "n_d"
    assert _fix(path).left == ()


def test_unsigned_weights_are_shifted_or_quantised_again(path):
    _linear(path, weight_zero=128)
    assert _rules(path) == ["integer-type"]
    assert _fix(path).left == ()


def test_a_missing_axis_is_written_down(path):
    _linear(path, write_axis=False)
    assert _rules(path) == ["missing-axis"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"missing-axis": 1}, ())


def test_scales_along_the_inputs_are_turned(path):
    _linear(path, axis=0)
    assert _rules(path) == ["weight-axis"]
    assert _fix(path).left == ()


@pytest.mark.parametrize(("scale", "word"), [(0.0, "0"), (np.nan, "nan"), (-1.0, "-1"), (np.inf, "inf")])
def test_a_scale_nothing_can_be_divided_by_is_an_error_without_a_fix(path, scale, word):
    found = [item for item in lint_file(_linear(path, scale=scale), "tensorrt") if item.rule == "scale"]
    assert [item.node for item in found] == ["n_q", "n_d"]
    assert f"scale is {word}" in found[0].what
    assert not found[0].fixable


def test_an_integer_bias_becomes_float(path):
    _linear(path)
    proto = onnx.load(path)
    del proto.graph.node[-1]
    proto.graph.node.extend([_node("DequantizeLinear", ["bi", "bs"], "bd"), _node("Add", ["m", "bd"], "y0")])
    for name, array in {"bi": np.arange(N, dtype=np.int32), "bs": np.array(0.01, np.float32)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, path)
    assert _rules(path) == ["integer-bias"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"integer-bias": 1}, ())


def test_a_quantised_output_is_passed_by_and_comes_nearer_to_float(path):
    after = [
        _node("QuantizeLinear", ["y0", "os", "z"], "oq"),
        _node("DequantizeLinear", ["oq", "os", "z"], "od"),
        _node("Sigmoid", ["od"], "y"),
    ]
    _linear(path, after=after, arrays={"os": np.array(0.5, np.float32)})
    assert _rules(path) == ["output-pair"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after > row.before for row in fixed.proof)


def test_a_pair_before_an_operator_that_gives_float_is_passed_by(path):
    after = [
        _node("Sigmoid", ["y0"], "g"),
        _node("QuantizeLinear", ["g", "os", "z"], "oq"),
        _node("DequantizeLinear", ["oq", "os", "z"], "od"),
        _node("Exp", ["od"], "y"),
    ]
    _linear(path, after=after, arrays={"os": np.array(0.01, np.float32)})
    assert _rules(path) == ["one-sided"]
    assert _fix(path).left == ()


def test_a_pair_with_the_range_of_a_mask_is_passed_by(path):
    _linear(path, scale=2.7e36)
    assert _rules(path) == ["mask-range"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(row.after > 0.999 > row.before for row in fixed.proof)


def test_a_mask_stored_as_an_integer_becomes_finite(path):
    """-3.4e38 in steps of a 127th comes back as minus infinity, and that times zero is NaN."""
    after = [
        _node("DequantizeLinear", ["mi", "ms", "mz"], "fill"),
        _node("Mul", ["zero", "fill"], "mask"),
        _node("Add", ["y0", "mask"], "y"),
    ]
    arrays = {
        "mi": np.array([-128], np.int8), "ms": np.array(2.6793888e36, np.float32), "mz": np.array(0, np.int8),
        "zero": np.array([0], np.float32),
    }  # fmt: skip
    _linear(path, after=after, arrays=arrays)
    assert _rules(path) == ["mask-range"]
    fixed = _fix(path)
    assert fixed.left == ()
    assert all(np.isnan(row.before) and row.after > 0.99 for row in fixed.proof)


def test_an_addition_between_two_pairs_does_not_excuse_the_one_behind_the_product(path):
    after = [
        _node("QuantizeLinear", ["y0", "os", "z"], "oq"),
        _node("DequantizeLinear", ["oq", "os", "z"], "od"),
        _node("Relu", ["od"], "r"),
        _node("QuantizeLinear", ["r", "os", "z"], "rq"),
        _node("DequantizeLinear", ["rq", "os", "z"], "rd"),
        _node("Exp", ["rd"], "y"),
    ]
    _linear(path, after=after, arrays={"os": np.array(0.5, np.float32)})
    assert _rules(path) == ["one-sided", "output-pair"]
    assert _fix(path).left == ()


def test_the_input_pair_of_the_next_product_is_no_output_pair(path):
    after = [
        _node("QuantizeLinear", ["y0", "os", "z"], "oq"),
        _node("DequantizeLinear", ["oq", "os", "z"], "od"),
        _node("DequantizeLinear", ["v", "vs", "vz"], "vd", axis=1),
        _node("MatMul", ["od", "vd"], "y"),
    ]
    arrays = {
        "os": np.array(0.5, np.float32),
        "v": np.ones((N, N), np.int8),
        "vs": np.ones(N, np.float32),
        "vz": np.zeros(N, np.int8),
    }
    assert _rules(_linear(path, after=after, arrays=arrays)) == []


def test_activations_with_a_scale_a_channel_get_one(path):
    _linear(path, arrays={"s": np.full(K, 0.03, np.float32), "z": np.zeros(K, np.int8)})
    assert _rules(path) == ["channel-activation", "missing-axis"]
    assert _fix(path).left == ()


def test_integer_operators_become_pairs(path):
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(128, np.uint8), "w": np.full((K, N), 3, np.int8),
        "ws": np.array(0.01, np.float32), "wz": np.array(0, np.int8), "ys": np.array(0.05, np.float32),
    }  # fmt: skip
    nodes = [
        _node("QuantizeLinear", ["x", "s", "z"], "q"),
        _node("QLinearMatMul", ["q", "s", "z", "w", "ws", "wz", "ys", "z"], "yq"),
        _node("DequantizeLinear", ["yq", "ys", "z"], "y"),
    ]
    _save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, arrays)
    assert "integer-operator" in _rules(path)
    fixed = _fix(path)
    assert [item for item in fixed.left if item.severity == "error"] == []


def test_dynamic_quantisation_is_refused_with_the_cure(path):
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dyn"),
        _node("MatMulInteger", ["q", "w", "z"], "i"),
        _node("Cast", ["i"], "y", to=TensorProto.FLOAT),
    ]
    _save(path, nodes, {"y": (TensorProto.FLOAT, ["b", N])}, {"w": np.ones((K, N), np.int8)})
    found = lint_file(path, "tensorrt")
    assert [item.node for item in found] == ["dyn", "n_i"]
    assert "calibration data" in found[0].cure


def test_fused_operators_of_onnx_runtime_are_named(path):
    nodes = [_node("Gelu", ["x"], "y", domain="com.microsoft")]
    _save(path, nodes, {"y": (TensorProto.FLOAT, ["b", K])}, {})
    (found,) = lint_file(path, "tensorrt")
    assert (found.rule, found.what) == ("operator", "com.microsoft::Gelu is not an operator of ONNX")
    assert "optimizer" in found.cure


def test_fp32_scales_in_an_fp16_graph_are_islands(path):
    arrays = {
        "s": np.array(0.03, np.float32), "z": np.array(0, np.int8), "w": np.full((K, N), 3, np.int8),
        "ws": np.array(0.01, np.float16), "wz": np.array(0, np.int8),
    }  # fmt: skip
    nodes = [
        _node("Relu", ["x"], "r"),
        _node("Cast", ["r"], "rf", to=TensorProto.FLOAT),
        _node("QuantizeLinear", ["rf", "s", "z"], "q"),
        _node("DequantizeLinear", ["q", "s", "z"], "d"),
        _node("Cast", ["d"], "dh", to=TensorProto.FLOAT16),
        _node("DequantizeLinear", ["w", "ws", "wz"], "wd"),
        _node("MatMul", ["dh", "wd"], "y"),
    ]
    half = TensorProto.FLOAT16
    _save(path, nodes, {"y": (half, ["b", N])}, arrays, inputs={"x": (half, ["b", K])})
    assert "float-island" in _rules(path)
    fixed = _fix(path)
    assert fixed.left == ()
    assert fixed.applied["float-island"] == 2


def test_a_weight_dequantised_before_its_transpose_is_stored_turned(path):
    _linear(path)
    proto = onnx.load(path)
    for node in proto.graph.node:
        if node.name == "n_wd":
            node.name, node.input[0], node.output[0] = "n_wtd", "wt", "wtd"
            node.attribute[0].i = 0
        if node.name == "n_m":
            place = list(proto.graph.node).index(node)
    proto.graph.node.insert(place, _node("Transpose", ["wtd"], "wd", perm=[1, 0]))
    weight = next(t for t in proto.graph.initializer if t.name == "w")
    turned = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(weight).T), "wt")
    proto.graph.initializer.remove(weight)
    proto.graph.initializer.append(turned)
    onnx.save(proto, path)
    assert _rules(path) == ["transposed-weight"]
    fixed = _fix(path)
    assert (dict(fixed.applied), fixed.left) == ({"transposed-weight": 1}, ())


def _pruned(axis):
    weight = _draw(K, N)
    groups = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    groups[:, :2] = 0
    return np.moveaxis(groups.reshape((N, K) if axis == 0 else (K, N)), -1, axis)


@pytest.mark.parametrize(
    ("axis", "broken", "word"),
    [(0, False, None), (0, True, "broken in 1 of 80 groups"), (1, False, "holds along axis 1, the outputs")],
)
def test_sparsity_is_whole_and_along_the_inputs(path, axis, broken, word):
    weight = np.ascontiguousarray(_pruned(axis))
    if broken:
        weight[:4, 0] = 1
    _save(path, [_node("MatMul", ["x", "w"], "y")], {"y": (TensorProto.FLOAT, ["b", N])}, {"w": weight})
    found = [item.what for item in lint_file(path, "tensorrt")]
    assert len(found) == (word is not None)
    assert all(word in what for what in found)


def test_an_unknown_target_and_the_input_as_output_are_refused(path):
    _linear(path)
    with pytest.raises(UsageError, match="no rules for"):
        lint_file(path, "coreml")
    with pytest.raises(UsageError, match="the output is the input"):
        fix_file(path, path, "tensorrt")


def test_a_file_that_is_no_model_is_refused(path):
    path.write_bytes(b"not a model")
    with pytest.raises(CorruptArtifact):
        lint_file(path, "tensorrt")


def test_rules_have_names_of_their_own():
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert run_rules(ir.Model(ir.Graph([], [], nodes=[]), ir_version=10), RULES) == ()
