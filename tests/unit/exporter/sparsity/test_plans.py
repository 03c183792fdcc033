"""Which layers ship sparse: by what was timed, and dense with a reason otherwise."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.sparsity.plans import PAYS, SparsePlans

_RNG = np.random.default_rng(0)


def _prune(kind: str) -> np.ndarray:
    """Return a weight [in, out] of 64 x 64 with zeros of a kind."""
    weight = _RNG.standard_normal((64, 64)).astype(np.float32)
    match kind:
        case "unstructured":
            weight[_RNG.random(weight.shape) < 0.9] = 0
        case "few":
            weight[_RNG.random(weight.shape) < 0.2] = 0
        case "blocks":
            weight[np.kron(_RNG.random((64, 4)) < 0.7, np.ones((1, 16), bool))] = 0
        case "2:4":
            order = _RNG.random((64, 16, 4)).argsort(axis=2)
            weight[(order < 2).reshape(64, 64).T] = 0
    return weight


@pytest.fixture
def graph(tmp_path):
    """A chain of linears, each with other zeros."""
    kinds = ["unstructured", "blocks", "few", "2:4", "dense"]
    nodes, arrays, value = [], [], "x"
    for kind in kinds:
        arrays.append(numpy_helper.from_array(_prune(kind), f"w {kind}"))
        nodes.append(helper.make_node("MatMul", [value, f"w {kind}"], [f"h {kind}"], name=kind))
        value = f"h {kind}"
    types = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "sequence", 64]) for name in ("x", value)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", types[:1], types[1:], arrays), opset_imports=[helper.make_opsetid("", 23)]
    )
    onnx.save(model, tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


def _plans(gain: float, asked: list | None = None) -> SparsePlans:
    def find_gain(case, form, values):
        if asked is not None:
            asked.append((form.block, values, case.axes))
        return {"1x16": gain, "8x128": gain}

    return SparsePlans(find_gain=find_gain)


def _rows(plan) -> dict:
    return {row.layer: row for row in plan.rows}


def test_what_is_faster_sparse_ships_sparse_in_its_block(graph):
    plan = _plans(2.0).make_plan(graph, "float32")
    assert plan.blocks == {"unstructured": (1, 1), "blocks": (16, 1)}
    rows = _rows(plan)
    assert rows["unstructured"].kernel == "SparseLinear 1x1"
    assert rows["blocks"].kernel == "SparseLinear 16x1"
    assert rows["unstructured"].gain == {"1x16": 2.0, "8x128": 2.0}
    assert rows["unstructured"].shipped_bytes < 0.2 * rows["unstructured"].dense_bytes == 0.2 * 4 * 64 * 64


def test_what_is_slower_or_as_fast_ships_dense_and_says_what_was_measured(graph):
    for gain in (0.5, PAYS - 0.01):
        plan = _plans(gain).make_plan(graph, "float32")
        assert plan.blocks == {}
        row = _rows(plan)["unstructured"]
        assert (row.kernel, row.shipped_bytes) == ("dense", row.dense_bytes)
        assert f"{gain:.2f} times as fast as dense" in row.why


def test_what_cannot_pay_is_not_timed_and_says_why(graph):
    asked = []
    rows = _rows(_plans(9.0, asked).make_plan(graph, "float32"))
    assert {axes for *_, axes in asked} == {("batch", "sequence", 64), ("tokens", 64)}
    assert (rows["few"].kernel, rows["few"].why) == ("dense", "1x1 pays from 55% zeros")
    assert (rows["2:4"].kernel, rows["2:4"].why) == ("dense", "2:4 does not pay on a CPU")
    assert rows["2:4"].use == "GPU 2:4"
    assert (rows["dense"].kernel, rows["dense"].why) == ("dense", "hardly any zeros")
    assert not rows["dense"].gain


def test_the_faster_of_two_forms_is_taken(graph):
    def find_gain(case, form, values):  # noqa: ARG001
        return {"1x16": 3.0 if form.block == (8, 1) else 2.0}

    assert SparsePlans(find_gain=find_gain).make_plan(graph, "float32").blocks["blocks"] == (8, 1)


def test_what_is_slower_at_one_shape_ships_dense_and_names_it(graph):
    plan = SparsePlans(find_gain=lambda *_: {"1x1": 0.4, "1x16": 2.0, "8x128": 4.0}).make_plan(graph, "float32")
    assert plan.blocks == {}
    why = _rows(plan)["unstructured"].why
    assert why == "1.47 times as fast as dense, in 1x1, but 0.40 times at 1x1"


def test_a_form_that_is_slower_nowhere_is_taken_before_a_faster_one(graph):
    def find_gain(case, form, values):  # noqa: ARG001
        return {"1x1": 1.0, "8x128": 2.0} if form.block == (8, 1) else {"1x1": 0.9, "8x128": 9.0}

    assert SparsePlans(find_gain=find_gain).make_plan(graph, "float32").blocks["blocks"] == (8, 1)


def test_a_gain_too_small_to_be_sure_of_is_called_that(graph):
    row = _rows(_plans(1.02).make_plan(graph, "float32"))["unstructured"]
    assert (row.kernel, row.why) == ("dense", "1.02 times as fast as dense, in 1x1: less than 3% may be chance")


def test_of_two_forms_alike_the_more_promising_one_is_taken(graph):
    def find_gain(case, form, values):  # noqa: ARG001
        return {"1x16": 2.0 if form.block == (16, 1) else 2.0 * (PAYS - 0.01)}

    assert SparsePlans(find_gain=find_gain).make_plan(graph, "float32").blocks["blocks"] == (16, 1)


def test_integers_are_compared_with_integers(graph):
    row = _rows(_plans(2.0).make_plan(graph, "int8"))["unstructured"]
    assert row.kernel == "SparseLinearInt8 1x1"
    assert row.dense_bytes == 64 * 64 + 4 * 64
    assert row.shipped_bytes < row.dense_bytes


def test_a_graph_is_planned_once(graph):
    asked = []
    plans = _plans(2.0, asked)
    assert plans.make_plan(graph, "float32") is plans.make_plan(graph, "float32")
    count = len(asked)
    plans.choose_blocks(graph, "float32")
    assert len(asked) == count


def test_where_nothing_can_be_timed_all_is_dense_and_says_so(graph):
    plans = SparsePlans(find_gain=None, untimed="the kernels are missing")
    assert plans.is_pruned(graph)
    assert not plans.may_pay(graph)
    plan = plans.make_plan(graph, "float32")
    assert plan.blocks == {}
    assert _rows(plan)["unstructured"].why == "the kernels are missing"
    assert _rows(plan)["dense"].why == "hardly any zeros"


def test_looking_at_a_graph_times_nothing(graph):
    asked = []
    plans = _plans(2.0, asked)
    assert plans.is_pruned(graph)
    assert plans.may_pay(graph)
    assert {row.kernel for row in plans.list_rows(graph, "int8")} == {"dense"}
    assert asked == []


def test_a_product_that_no_kernel_takes_has_a_row_that_says_why(tmp_path):
    body = """<ir_version: 10, opset_import: ["" : 23]>
    g (float[n, 64] x) => (float[n, 64] y) { y = Gemm<alpha=0.5>(x, w) }"""
    model = onnx.parser.parse_model(body)
    model.graph.node[0].name = "scaled"
    model.graph.initializer.append(numpy_helper.from_array(_prune("unstructured"), "w"))
    onnx.save(model, tmp_path / "g.onnx")
    plans = _plans(2.0)
    assert plans.is_pruned(tmp_path / "g.onnx")
    assert not plans.may_pay(tmp_path / "g.onnx")
    row = _rows(plans.make_plan(tmp_path / "g.onnx", "float32"))["scaled"]
    assert (row.kernel, row.pattern, row.shape) == ("dense", "unstructured", (64, 64))
    assert "a factor" in row.why


def test_what_is_too_large_for_the_integer_kernels_ships_dense_and_says_so(tmp_path):
    body = """<ir_version: 10, opset_import: ["" : 23]>
    g (float[n, 65537] x) => (float[n, 1] y) { y = MatMul(x, w) }"""
    model = onnx.parser.parse_model(body)
    model.graph.node[0].name = "wide"
    weight = np.zeros((65537, 1), np.float32)
    weight[::100] = 1
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "g.onnx")
    plans = _plans(2.0)
    assert set(plans.choose_blocks(tmp_path / "g.onnx", "float32")) == {"wide"}
    row = _rows(plans.make_plan(tmp_path / "g.onnx", "int8"))["wide"]
    assert row.kernel == "dense"
    assert row.why == "too large for the kernels: in_features is 65537; expected at most 65536"
