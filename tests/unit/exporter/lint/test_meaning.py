"""Fixing changes how a graph is rounded, and nothing else that it computes: compared with the float source."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization

from exporter.lint.check_file import fix_file, lint_file
from tests.unit.exporter.lint.quantised_graphs import K, N, answer, distance, draw, node, save

FLOAT, ONE = TensorProto.FLOAT, np.float32
LINEAR = {"w": np.random.default_rng(1).integers(-100, 100, (K, N)).astype(np.int8), "ws": ONE(0.01), "wz": np.int8(0)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "fixed.onnx"


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, *shape):
        self._left = [{"x": draw(*shape, seed=seed)} for seed in range(4)]

    def get_next(self):
        return self._left.pop() if self._left else None


def _quantise(x="x", given="xf", kind=np.int8, zero=0, scale=0.03, back=None, **attributes):
    """A pair, and its constants; ``back``: the scale of the DequantizeLinear, if it is another."""
    arrays = {f"{given}_s": np.asarray(scale, ONE), f"{given}_z": np.asarray(zero, kind)}
    names = [f"{given}_s", f"{given}_z"]
    if back is not None:
        arrays[f"{given}_b"] = np.asarray(back, ONE)
    nodes = [
        node("QuantizeLinear", [x, *names], f"{given}_q", **attributes),
        node("DequantizeLinear", [f"{given}_q", f"{given}_b" if back is not None else names[0], names[1]], given,
             **attributes),
    ]  # fmt: skip
    return nodes, arrays


WEIGHT = [node("DequantizeLinear", ["w", "ws", "wz"], "wf")]


def _save_mlp(path):
    arrays = {"a": draw(K, N), "c": draw(N, seed=1), "v": draw(6, N, seed=2), "d": draw(6, seed=3)}
    nodes = [
        node("MatMul", ["x", "a"], "m"),
        node("Add", ["m", "c"], "h"),
        node("Relu", ["h"], "r"),
        node("Gemm", ["r", "v", "d"], "y", transB=1),
    ]
    return save(path, nodes, {"y": (FLOAT, ["b", 6])}, arrays, opset=17), (64, K)


def _save_convolutions(low, high):
    def write(path):
        arrays = {
            "k1": draw(16, 3, 3, 3), "b1": draw(16, seed=1), "k2": draw(6, 16, 3, 3, seed=2), "low": ONE(low),
            "high": ONE(high),
        }  # fmt: skip
        nodes = [
            node("Conv", ["x", "k1", "b1"], "c", pads=[1] * 4),
            node("Clip", ["c", "low", "high"], "r"),
            node("Conv", ["r", "k2"], "y", pads=[1] * 4),
        ]
        inputs = {"x": (FLOAT, ["batch", 3, 8, 8])}
        return save(path, nodes, {"y": (FLOAT, ["batch", 6, 8, 8])}, arrays, inputs=inputs, opset=17), (4, 3, 8, 8)

    return write


@pytest.mark.parametrize("form", ["QOperator", "QDQ"])
@pytest.mark.parametrize("make", [_save_mlp, _save_convolutions(0, 6), _save_convolutions(-1, 1)])
def test_what_is_left_of_a_relu_or_clip_is_kept(path, out, tmp_path, make, form):
    """ONNX Runtime leaves them to the range of the integers: without it the error would be from 0.6 to 1.2."""
    source, shape = make(tmp_path / "float.onnx")
    quantization.quantize_static(source, path, _Reader(*shape), quant_format=quantization.QuantFormat[form])
    assert not {found.op_type for found in onnx.load(path).graph.node} & {"Relu", "Clip"}
    fixed = fix_file(path, out, "tensorrt")
    assert not [item for item in fixed.left if item.severity == "error"]
    x = draw(*shape, seed=9)
    (wanted,), (before,), (after,) = (answer(file, x=x) for file in (source, path, out))
    assert distance(after, wanted) < distance(before, wanted) + 0.01 < 0.1
    assert dict(fix_file(out, tmp_path / "again.onnx", "tensorrt").applied) == {}


@pytest.mark.parametrize(
    ("kind", "zero"), [(np.int8, -128), (np.uint8, 0), (np.int8, 127), (np.uint8, 90), (np.int8, 0)]
)
@pytest.mark.parametrize("last", ["MatMul", "Exp"])
def test_what_saturates_goes_on_doing_so(path, out, kind, zero, last):
    """Before a product the range is made symmetric, before Exp the pair is passed by."""
    pair, arrays = _quantise(kind=kind, zero=zero, scale=0.02)
    tail = [*WEIGHT, node("MatMul", ["xf", "wf"], "y")] if last == "MatMul" else [node("Exp", ["xf"], "y")]
    save(path, [*pair, *tail], {"y": (FLOAT, ["b", N if last == "MatMul" else K])}, arrays | LINEAR)
    fixed = fix_file(path, out, "tensorrt")
    assert fixed.left == ()
    x = draw(8, K) * 9
    assert distance(answer(out, x=x)[0], answer(path, x=x)[0]) < 0.02


def test_no_clip_where_nothing_can_be_cut_off(path, out):
    """Softmax ends where its range does; a Clip would keep attention from being fused."""
    pair, arrays = _quantise("soft", kind=np.uint8, scale=1 / 255)
    nodes = [node("Softmax", ["x"], "soft"), *pair, *WEIGHT, node("MatMul", ["xf", "wf"], "y")]
    save(path, nodes, {"y": (FLOAT, ["b", N])}, arrays | LINEAR)
    assert fix_file(path, out, "tensorrt").left == ()
    assert "Clip" not in {found.op_type for found in onnx.load(out).graph.node}


def test_an_old_operator_set_gets_its_own_clip(path, out):
    pair, arrays = _quantise(kind=np.uint8, zero=60)
    nodes = [*pair, *WEIGHT, node("MatMul", ["xf", "wf"], "y")]
    save(path, nodes, {"y": (FLOAT, ["b", N])}, arrays | LINEAR, opset=10)
    assert fix_file(path, out, "tensorrt").left == ()
    onnx.checker.check_model(out, full_check=True)
    x = draw(8, K) * 9
    assert distance(answer(out, x=x)[0], answer(path, x=x)[0]) < 0.02


@pytest.mark.parametrize("last", ["MatMul", "Exp"])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_a_factor_between_quantising_and_dequantising_stays(path, out, last, kind):
    pair, arrays = _quantise(kind=kind, scale=0.02, back=0.002)
    tail = [*WEIGHT, node("MatMul", ["xf", "wf"], "y")] if last == "MatMul" else [node("Exp", ["xf"], "y")]
    save(path, [*pair, *tail], {"y": (FLOAT, ["b", N if last == "MatMul" else K])}, arrays | LINEAR)
    fix_file(path, out, "tensorrt")
    x = draw(8, K)
    assert distance(answer(out, x=x)[0], answer(path, x=x)[0]) < 0.01


def test_two_dequantisers_around_different_zero_points_stay_as_they_are(path, out):
    first, arrays = _quantise(kind=np.uint8, zero=100)
    second = node("DequantizeLinear", ["xf_q", "xf_s", "other"], "xg")
    products = [node("MatMul", [name, "wf"], f"y_{name}") for name in ("xf", "xg")]
    outputs = {f"y_{name}": (FLOAT, ["b", N]) for name in ("xf", "xg")}
    save(path, [*first, second, *WEIGHT, *products], outputs, arrays | LINEAR | {"other": np.uint8(90)})
    assert {item.fixable for item in lint_file(path, "tensorrt") if item.rule == "integer-type"} == {False}
    fix_file(path, out, "tensorrt")
    x = draw(8, K)
    for given, wanted in zip(answer(out, x=x), answer(path, x=x), strict=True):
        assert distance(given, wanted) < 0.01


def test_a_quantiser_between_a_constant_scale_and_a_computed_one_is_not_half_rewritten(path, out):
    first, arrays = _quantise(kind=np.uint8, zero=100)
    second = node("DequantizeLinear", ["xf_q", "given", "xf_z"], "xg")
    products = [node("MatMul", [name, "wf"], f"y_{name}") for name in ("xf", "xg")]
    outputs = {f"y_{name}": (FLOAT, ["b", N]) for name in ("xf", "xg")}
    inputs = {"x": (FLOAT, ["b", K]), "given": (FLOAT, [])}
    save(path, [*first, second, *WEIGHT, *products], outputs, arrays | LINEAR, inputs=inputs)
    assert dict(fix_file(path, out, "tensorrt").applied) == {}


def _save_channels(path, back=None):
    scales = np.linspace(0.01, 0.04, K, dtype=ONE)
    pair, arrays = _quantise(scale=scales, zero=np.zeros(K), back=back and scales[::-1], axis=-1)
    nodes = [*pair, *WEIGHT, node("MatMul", ["xf", "wf"], "y")]
    return save(path, nodes, {"y": (FLOAT, ["b", N])}, arrays | LINEAR)


def test_channels_that_get_one_scale_keep_their_ranges(path, out):
    assert fix_file(_save_channels(path), out, "tensorrt").left == ()
    x = draw(8, K) * 9
    assert distance(answer(out, x=x)[0], answer(path, x=x)[0]) < 0.02


def test_channels_that_are_scaled_between_do_not_get_one(path, out):
    assert dict(fix_file(_save_channels(path, back=True), out, "tensorrt").applied) == {}


DYNAMIC = [
    helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"], name="dyn"),
    node("MatMulInteger", ["q", "w", "qz", "wz"], "i"),
    node("Cast", ["i"], "c", to=FLOAT),
]


@pytest.mark.parametrize("given", ["twice", "step"])
def test_a_dynamic_product_times_something_else_stays(path, out, given):
    """The factor is the double of its own scale, or an input of the graph."""
    nodes = [
        *DYNAMIC,
        node("Mul", ["qs", "two"], "twice"),
        node("Mul", [given, "ws"], "f"),
        node("Mul", ["c", "f"], "y"),
    ]
    inputs = {"x": (FLOAT, ["b", K]), "step": (FLOAT, [1])}
    save(path, nodes, {"y": (FLOAT, ["b", N])}, LINEAR | {"two": ONE(2)}, inputs=inputs)
    assert {item.fixable for item in lint_file(path, "tensorrt")} == {False}
    assert dict(fix_file(path, out, "tensorrt").applied) == {}


@pytest.mark.parametrize("last", ["MatMul", "Gemm"])
def test_a_weight_that_two_products_read_both_ways_is_stored_for_each(path, out, last):
    readers = [node("MatMul", ["x", "wf"], "y1"), node("Gemm", ["x", "wf"], "y2", transB=1)]
    arrays = {
        "w": np.random.default_rng(1).integers(-100, 100, (K, K)).astype(np.int8), "wz": np.zeros(K, np.int8),
        "ws": np.linspace(0.001, 0.1, K, dtype=ONE),
    }  # fmt: skip
    nodes = [node("DequantizeLinear", ["w", "ws", "wz"], "wf", axis=1), *readers[:: 1 if last == "Gemm" else -1]]
    save(path, nodes, {"y1": (FLOAT, ["b", K]), "y2": (FLOAT, ["b", K])}, arrays)
    found = lint_file(path, "tensorrt")
    assert [(item.rule, item.fixable) for item in found] == [("weight-axis", True)]
    assert fix_file(path, out, "tensorrt").left == ()
    x = draw(8, K)
    (first, second), wanted = answer(out, x=x), answer(path, x=x)
    np.testing.assert_allclose(first, wanted[0], rtol=1e-4, atol=1e-4)  # this reader had it right
    assert distance(second, wanted[1]) < 0.02


def test_an_output_of_the_graph_keeps_its_type(path, out):
    pair, arrays = _quantise()
    nodes = [*pair, node("Cast", ["xf"], "xh", to=TensorProto.FLOAT16), node("MatMul", ["xh", "h"], "y")]
    outputs = {"y": (TensorProto.FLOAT16, ["b", N]), "xf": (FLOAT, ["b", K])}
    save(path, nodes, outputs, arrays | {"h": draw(K, N).astype(np.float16)})
    fix_file(path, out, "tensorrt")
    x = draw(8, K)
    assert [value.dtype for value in answer(out, x=x)] == [value.dtype for value in answer(path, x=x)]


def test_two_outputs_of_one_quantiser_stay_two(path, out):
    pair, arrays = _quantise("h")
    nodes = [node("Neg", ["x"], "h"), *pair, node("DequantizeLinear", ["xf_q", "xf_s", "xf_z"], "xg")]
    save(path, nodes, {"xf": (FLOAT, ["b", K]), "xg": (FLOAT, ["b", K])}, arrays)
    fix_file(path, out, "tensorrt")
    x = draw(8, K) * 9
    for given, wanted in zip(answer(out, x=x), answer(path, x=x), strict=True):
        assert distance(given, wanted) < 0.02
