"""Blocks of a decoder are rounded by what its linears are fed, which is gathered once and only where needed."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.tape import Tape

from exporter.candidates import linear_inputs
from exporter.candidates.linear_inputs import LinearInputs
from exporter.onnxruntime.block_rounding import BlockRounding
from runtimes.isa import named

DEPTH, WIDTH, ROWS = 64, 32, 40


class Batches:
    """A dataset of two batches."""

    def batches(self):
        generator = np.random.default_rng(0)
        mixed = generator.standard_normal((DEPTH, DEPTH)).astype(np.float32)
        for _ in range(2):
            yield {"x": generator.standard_normal((1, ROWS, DEPTH)).astype(np.float32) @ mixed}


@pytest.fixture
def graph(tmp_path):
    x = ir.Value(name="x", shape=ir.Shape(("batch", "sequence", DEPTH)), type=ir.TensorType(ir.DataType.FLOAT))
    weight = np.random.default_rng(1).standard_normal((DEPTH, WIDTH)).astype(np.float32)
    held = ir.Value(name="w", const_value=ir.tensor(weight, name="w"), shape=ir.Shape(weight.shape),
                    type=ir.TensorType(ir.DataType.FLOAT))  # fmt: skip
    tape = Tape()
    y = tape.op("MatMul", [x, held])
    y.name, y.shape, y.type = "y", ir.Shape(("batch", "sequence", WIDTH)), x.type
    made = ir.Graph([x], [y], nodes=tape.nodes, initializers=[held], opset_imports={"": 21}, name="one")
    for node in made:
        node.name = "linear"
    ir.save(ir.Model(made, ir_version=10), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def make_rounding(graph, data):
    directory = graph.parent / "inputs"
    directory.mkdir()
    inputs = LinearInputs(graph=graph, data=data, directory=directory, threads=1)
    return BlockRounding(inputs=inputs, isa=named("avx2"))


def run(model, feeds):
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_without_data_each_weight_is_rounded_by_itself(graph):
    assert make_rounding(graph, None).methods == ("rtn",)


@pytest.mark.parametrize("arithmetic", ["weights-4", "weights-2"])
def test_what_the_inputs_are_makes_rounding_better(graph, arithmetic):
    rounding = make_rounding(graph, Batches())
    assert rounding.methods == ("rtn", "gptq", "awq")
    feeds = next(iter(Batches().batches()))
    wanted = run(ir.load(graph), feeds)
    errors = {}
    for method in ("rtn", "gptq"):
        model = ir.load(graph)
        rounding.round(model, arithmetic, method)
        errors[method] = float(np.square(run(model, feeds) - wanted).mean())
    assert errors["gptq"] < 0.8 * errors["rtn"]


def test_inputs_are_gathered_once_and_only_where_they_are_needed(graph, monkeypatch):
    gathered = []
    collect = linear_inputs.collect_inputs
    monkeypatch.setattr(linear_inputs, "collect_inputs", lambda *a, **k: gathered.append(1) or collect(*a, **k))
    rounding = make_rounding(graph, Batches())
    rounding.round(ir.load(graph), "weights-4", "rtn")
    assert not gathered
    rounding.round(ir.load(graph), "weights-4", "gptq")
    rounding.round(ir.load(graph), "weights-2", "gptq")
    assert gathered == [1]
