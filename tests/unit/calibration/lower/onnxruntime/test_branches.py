"""Linears in branches become integers too, and what a branch rounds nothing outside of it reads."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from calibration.linears import find_branch_linears, find_linears
from calibration.lower.onnxruntime.dynamic import lower_dynamic
from calibration.lower.onnxruntime.per_token import lower_per_token
from calibration.lower.onnxruntime.weight_only import lower_weight_only

THEN = """then_branch = wanted () => (float[n, 8] then) {
    a = MatMul(x, w0)  b = MatMul(x, w1)  c = Add(a, b)  d = Relu(c)  then = MatMul(d, w2) }"""
ELSE = "else_branch = unwanted () => (float[n, 8] otherwise) { otherwise = MatMul(x, w2) }"


@pytest.fixture
def model():
    """Two linears of a branch and two outside read the same; the branch has another, whose result leaves it."""
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 8] x, bool choice) => (float[n, 8] y) {{
        p = If(choice)<{THEN}, {ELSE}>
        q = MatMul(x, w1)
        r = MatMul(x, w0)
        s = Add(q, r)
        y = Add(p, s)
    }}""")
    rng = np.random.default_rng(0)
    for name in ("w0", "w1", "w2"):
        proto.graph.initializer.append(numpy_helper.from_array(rng.normal(size=(8, 8)).astype(np.float32), name))
    branches = [part.g for part in proto.graph.node[0].attribute]
    for place, node in enumerate(node for graph in (proto.graph, *branches) for node in graph.node):
        node.name = f"n{place}"
    return proto


def answer(proto, choice):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    return session.run(None, {"x": x, "choice": np.array(choice)})[0]


def test_those_of_branches_are_found_apart(model):
    graph = ir.from_proto(model)
    assert [linear.weight for linear in find_linears(graph)] == ["w1", "w0"]
    assert [linear.weight for linear in find_branch_linears(graph)] == ["w0", "w1", "w2", "w2"]


@pytest.mark.parametrize(
    "lower",
    [
        lambda graph, linears: lower_dynamic(graph, linears, weight_bits=8),
        lambda graph, linears: lower_per_token(graph, linears, weight_bits=8),
        lambda graph, linears: lower_weight_only(graph, linears, bits=8),
    ],
    ids=["dynamic", "per token", "weights"],
)
def test_they_become_integers_and_answer_alike(model, lower):
    graph = ir.from_proto(model)
    lower(graph, [*find_branch_linears(graph), *find_linears(graph)])
    done = ir.to_proto(graph)
    assert not any(node.op_type == "MatMul" for node in graph.graph.all_nodes())
    for choice in (True, False):
        expected, given = answer(model, choice), answer(done, choice)
        assert np.abs(given - expected).max() < 0.03 * np.abs(expected).max()


def test_each_branch_rounds_for_itself(model):
    graph = ir.from_proto(model)
    lower_dynamic(graph, [*find_branch_linears(graph), *find_linears(graph)], weight_bits=8)
    readers = {
        node.graph: [other.op_type for other in graph.graph.all_nodes() if other.graph is node.graph]
        for node in graph.graph.all_nodes()
        if "x" in [value.name for value in node.inputs if value is not None]
    }
    assert len(readers) == 3
    assert sorted(kinds.count("DynamicQuantizeLinear") for kinds in readers.values()) == [0, 1, 1]
