"""Rules that look at stored weights: the axis of their scales, 2:4 sparsity, and weights that hold nothing."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from exporter.lint.check_file import fix_file, lint_file
from tests.unit.exporter.lint.quantised_graphs import K, N, answer, distance, draw, node, save

FLOAT = TensorProto.FLOAT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "fixed.onnx"


def _pruned(axis):
    weight = draw(K, N)
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
    save(path, [node("MatMul", ["x", "w"], "y")], {"y": (TensorProto.FLOAT, ["b", N])}, {"w": weight})
    found = [item.what for item in lint_file(path, "tensorrt")]
    assert len(found) == (word is not None)
    assert all(word in what for what in found)


def test_sparsity_of_unsigned_weights_is_counted_from_their_zero_point(path):
    weight = (_pruned(0) != 0) * 9 + 128
    weight[:4, 0] = 7
    arrays = {"w": weight.astype(np.uint8), "s": np.float32(0.1), "z": np.uint8(128)}
    nodes = [node("DequantizeLinear", ["w", "s", "z"], "wf"), node("MatMul", ["x", "wf"], "y")]
    save(path, nodes, {"y": (FLOAT, ["b", N])}, arrays)
    (found,) = (item for item in lint_file(path, "tensorrt") if item.rule == "sparsity")
    assert "broken in 1 of 80 groups" in found.what


def test_a_depthwise_convolution_has_no_groups_to_fit(path):
    weight = draw(8, 1, 3, 3)
    weight[np.abs(weight) < 0.7] = 0
    inputs = {"x": (FLOAT, ["b", 8, 5, 5])}
    save(path, [node("Conv", ["x", "w"], "y", group=8)], {"y": (FLOAT, ["b", 8, 3, 3])}, {"w": weight}, inputs=inputs)
    assert lint_file(path, "tensorrt") == ()


def test_sparsity_over_inputs_that_are_no_multiple_of_a_group_is_named(path):
    weight = np.concatenate([_pruned(0), draw(2, N)])
    inputs = {"x": (FLOAT, ["b", K + 2])}
    save(path, [node("MatMul", ["x", "w"], "y")], {"y": (FLOAT, ["b", N])}, {"w": weight}, inputs=inputs)
    (found,) = lint_file(path, "tensorrt")
    assert "its 18 inputs are no multiple of 4" in found.what


@pytest.mark.parametrize(
    ("op", "shape", "wrong", "right", "attributes"),
    [
        ("MatMul", (6, 8), 0, 1, {}),
        ("MatMul", (6, 8), -2, 1, {}),
        ("Gemm", (6, 8), 0, 1, {}),
        ("Gemm", (8, 6), -1, 0, {"transB": 1}),
        ("Conv", (8, 6, 3, 3), 1, 0, {}),
        ("ConvTranspose", (6, 8, 3, 3), 0, 1, {}),
        ("ConvTranspose", (6, 8, 3, 3), -4, 1, {}),
    ],
)
def test_scales_are_turned_to_the_outputs_of_each_operator(path, out, op, shape, wrong, right, attributes):
    arrays = {
        "w": np.random.default_rng(1).integers(-100, 100, shape).astype(np.int8), "z": np.zeros(6, np.int8),
        "s": np.linspace(0.01, 0.02, 6, dtype=np.float32),
    }  # fmt: skip
    nodes = [node("DequantizeLinear", ["w", "s", "z"], "wf", axis=wrong), node(op, ["x", "wf"], "y", **attributes)]
    size = (2, 6, 9, 9)[: len(shape)]
    save(path, nodes, {"y": (FLOAT, None)}, arrays, inputs={"x": (FLOAT, ["b", *size[1:]])})
    assert [item.rule for item in lint_file(path, "tensorrt")] == ["weight-axis"]
    assert fix_file(path, out, "tensorrt").left == ()
    (dequantise,) = (found for found in onnx.load(out).graph.node if found.op_type == "DequantizeLinear")
    assert [found.i for found in dequantise.attribute] == [right]
    x = draw(*size)
    assert distance(answer(out, x=x)[0], answer(path, x=x)[0]) < 0.02


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_weight_of_nothing_is_no_trouble(path, out, kind):
    arrays = {"w": np.zeros((K, 0), kind)}
    nodes = [node("MatMul", ["x", "w"], "y")]
    if kind == np.uint8:
        arrays |= {"s": np.float32(0.1), "z": np.uint8(120)}
        nodes = [node("DequantizeLinear", ["w", "s", "z"], "wf"), node("MatMul", ["x", "wf"], "y")]
    save(path, nodes, {"y": (FLOAT, ["b", 0])}, arrays)
    assert fix_file(path, out, "tensorrt").left == ()


def test_a_constant_is_dequantised_before_it_is_split(path, out):
    weight = np.random.default_rng(1).integers(-100, 100, (K, 8)).astype(np.int8)
    split = onnx.helper.make_node("Split", ["w"], ["a", "b"], name="n_split", axis=1, num_outputs=2)
    ends = [node("DequantizeLinear", [name, "s", "z"], f"{name}f") for name in "ab"]
    products = [node("MatMul", ["x", f"{name}f"], f"y{name}") for name in "ab"]
    outputs = {f"y{name}": (FLOAT, ["b", 4]) for name in "ab"}
    save(path, [split, *ends, *products], outputs, {"w": weight, "s": np.float32(0.01), "z": np.int8(0)})
    fixed = fix_file(path, out, "tensorrt")
    assert (dict(fixed.applied), fixed.left) == ({"moved-constant": 1}, ())
    onnx.checker.check_model(out, full_check=True)
    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(out).graph.initializer]
    assert any(array.dtype == np.int8 and array.shape == (K, 8) for array in stored)


def test_parts_of_a_constant_with_scales_of_their_own_stay(path, out):
    split = onnx.helper.make_node("Split", ["w"], ["a", "b"], name="n_split", axis=1, num_outputs=2)
    ends = [node("DequantizeLinear", [name, f"s{name}", "z"], f"{name}f") for name in "ab"]
    products = [node("MatMul", ["x", f"{name}f"], f"y{name}") for name in "ab"]
    arrays = {"w": np.ones((K, 8), np.int8), "sa": np.float32(0.01), "sb": np.float32(0.05), "z": np.int8(0)}
    save(path, [split, *ends, *products], {f"y{name}": (FLOAT, ["b", 4]) for name in "ab"}, arrays)
    (found,) = fix_file(path, out, "tensorrt").left
    assert (found.rule, found.fixable) == ("moved-constant", False)
