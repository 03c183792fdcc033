"""How fast a linear is as two thin factors, against itself, on this machine.

In: sizes and a rank. Out: the gain, in ONNX Runtime and float32. Both forms are models of one layer, timed in turns.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bench.timing.compare import MIN_ROUNDS, compare
from bench.timing.measure import MeasurePlan, measure_interleaved
from calibration.lower.edits import add_constant
from exporter.write_model import write_model
from runtimes.ort import OnnxRuntime, OrtOptions, describe_onnx

_OPSET, _IR_VERSION = 23, 10
# Where the project's own measurements of encoders are taken: 8 texts of 128 tokens.
_SHAPE = (8, 128)
# As for the layers of sparse models: six short rounds tell 5 % apart.
_PLAN = MeasurePlan(
    blocks=MIN_ROUNDS, block_seconds=0.02, min_runs=3, max_runs=200, discard=1, warmup_seconds=0.05, time_budget_s=4
)


def measure_factor_gain(inputs: int, outputs: int, rank: int, *, threads: int | None = None) -> float:
    """Return the time of a linear over that of its two factors of ``rank``, at 8x128 tokens."""
    rng = np.random.default_rng(0)
    sizes = {"whole": (inputs, outputs), "factors": (inputs, rank, outputs)}
    feeds = {"x": rng.standard_normal((*_SHAPE, inputs)).astype(np.float32)}
    runtime = OnnxRuntime(OrtOptions(threads=threads))
    with tempfile.TemporaryDirectory(prefix="factors.") as folder:
        paths = {
            name: write_model(make_chain(_draw_weights(widths, rng)), Path(folder) / f"{name}.onnx")
            for name, widths in sizes.items()
        }
        with (
            closing(runtime.open(describe_onnx(paths["whole"]))) as whole,
            closing(runtime.open(describe_onnx(paths["factors"]))) as factors,
        ):
            subjects = {"whole": whole.prepare(feeds), "factors": factors.prepare(feeds)}
            samples = measure_interleaved(subjects, _PLAN)
    return compare(samples["whole"], samples["factors"]).ratio


def make_chain(weights: Sequence[NDArray[np.float32]]) -> ir.Model:
    """Return a model of products one after the other, [in, out] each, and a bias of zeros at the end."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", shape=ir.Shape(["batch", "sequence", weights[0].shape[0]]), type=kind)
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": _OPSET}, name="chain")
    value, nodes = x, []
    for place, weight in enumerate(weights):
        nodes.append(
            ir.node("MatMul", [value, add_constant(graph, f"weight_{place}", weight)], name=f"product_{place}")
        )
        value = nodes[-1].outputs[0]
        value.shape, value.type = ir.Shape(["batch", "sequence", weight.shape[1]]), kind
    bias = add_constant(graph, "bias", np.zeros(weights[-1].shape[1], np.float32))
    nodes.append(ir.node("Add", [value, bias], name="add"))
    made = nodes[-1].outputs[0]
    made.name, made.shape, made.type = "y", value.shape, kind
    graph.extend(nodes)
    graph.outputs.append(made)
    return ir.Model(graph, ir_version=_IR_VERSION)


def _draw_weights(widths: Sequence[int], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    return [rng.standard_normal(shape).astype(np.float32) for shape in itertools.pairwise(widths)]
