"""Candidates of a graph with branches: whatever its nodes and values are called, and wherever its weights lie."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from calibration.linears import find_linears
from calibration.plan import ActivationGroup, LinearPlan, Plan
from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs, Workshop
from exporter.onnxruntime.fuse import fuse_for_cpu
from exporter.passes.untie_weights import open_for_lowering
from runtimes.isa import named

WIDTH = 64
THEN = f"""then_branch = wanted () => (float[n, {WIDTH}] then) {{
    val_0 = Gemm<transB=1>(x, w1)  val_1 = Relu(val_0)  then = Relu(val_1) }}"""
ELSE = f"else_branch = unwanted () => (float[n, {WIDTH}] otherwise) {{ a = Relu(x)  otherwise = MatMul(a, w2) }}"


@pytest.fixture
def brought(tmp_path):
    """No node has a name, and each branch keeps its weight."""
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, {WIDTH}] x, bool choice) => (float[n, {WIDTH}] y) {{
        q = MatMul(x, w0)
        p = If(choice)<{THEN}, {ELSE}>
        y = Add(p, q)
    }}""")
    rng = np.random.default_rng(0)
    branches = [attribute.g for node in proto.graph.node for attribute in node.attribute]
    for place, graph in enumerate((proto.graph, *branches)):
        weight = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weight, f"w{place}"))
    onnx.save(proto, tmp_path / "float.onnx")
    return tmp_path / "float.onnx"


def open_workshop(brought, make_plan=None):
    fused = brought.with_name("fused.onnx")
    fuse_for_cpu(brought, fused, merged=False, unsigned=False)
    graphs = FloatGraphs(traced=brought, fused=fused, merged=fused)
    return Workshop(graphs=graphs, directory=brought.parent, isa=named("vnni"), make_plan=make_plan)


def plan_smoothed(graph, *, smoothed):  # noqa: ARG001  as a workshop asks
    model = open_for_lowering(graph)
    (linear,) = find_linears(model)
    group = ActivationGroup(
        tensor=linear.activation, linears=(linear.node,), smooth=np.full(WIDTH, 2, np.float32), scale=0.02,
        zero_point=128, dtype="uint8", bits=8, method="", why="", error=0.0,
    )  # fmt: skip
    scales = 2 * np.abs(model.graph.initializers[linear.weight].const_value.numpy()).max(axis=0) / 127
    entry = LinearPlan(
        node=linear.node, weight=linear.weight, weight_scale=scales.astype(np.float32), weight_zero_point=0,
        weight_bits=8, bias_delta=None, error=0.0, why="",
    )  # fmt: skip
    return Plan(groups=(group,), linears=(entry,))


def answer(path, choice):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)
    return session.run(None, {"x": x, "choice": np.array(choice)})[0]


@pytest.mark.parametrize("arithmetic", ["int8-dynamic", "int8-static", "weights-8"])
def test_they_answer_like_float_at_a_third_of_its_size(arithmetic, brought):
    built = open_workshop(brought, plan_smoothed).build(CandidateSpec(arithmetic=arithmetic))
    for choice in (True, False):
        expected, given = answer(brought, choice), answer(built.path, choice)
        assert np.abs(given - expected).max() < 0.05 * np.abs(expected).max()
    assert built.size_bytes() < 0.36 * brought.stat().st_size
