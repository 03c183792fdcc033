"""What the manifest and the ledger say of a finished model."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from exporter.candidates import CandidateSpec, FloatGraphs, Workshop
from exporter.judge import Judgement
from exporter.passes.sparse_linears import replace_linears
from exporter.sparse_plans import SparsePlans
from exporter.sparse_target import describe_kernels, make_ledger
from exporter.trial import Trial
from runtimes.isa import named
from runtimes.sparse.library import why_unavailable

needs_kernels = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


@pytest.fixture
def write(tmp_path):
    """Write a graph with its weights, and return its path."""

    def call(body: str, **weights: np.ndarray):
        text = f"""<ir_version: 10, opset_import: ["" : 23]>
        g (float[batch, sequence, 64] x) => (float[batch, sequence, 64] y) {{ {body} }}"""
        proto = onnx.parser.parse_model(text)
        for name, array in weights.items():
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        for number, node in enumerate(proto.graph.node):
            node.name = f"{node.op_type}_{number}"
        onnx.save(proto, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return call


@needs_kernels
def test_the_manifest_names_the_kernels_of_a_model_that_has_sparse_layers(write, tmp_path):
    path = write("y = MatMul(x, w)", w=np.eye(64, dtype=np.float32))
    assert describe_kernels(path) == {}
    model = ir.load(path)
    replace_linears(model, {"MatMul_0": (1, 1)}, values="float32")
    ir.save(model, tmp_path / "sparse.onnx")
    assert set(describe_kernels(tmp_path / "sparse.onnx")["sparse_kernels"]) == {"version", "sha256"}


@pytest.fixture
def ledger(write):
    """Build candidates of two layers, one with many zeros, and return the rows for the chosen one."""

    def call(*specs: CandidateSpec, chosen: CandidateSpec, gain: float | None = None) -> dict:
        rng = np.random.default_rng(0)
        w = (rng.standard_normal((64, 64)) * (rng.random((64, 64)) < 0.1)).astype(np.float32)
        v = rng.standard_normal((64, 64)).astype(np.float32)
        graph = write("m = MatMul(x, w)  y = MatMul(m, v)", w=w, v=v)
        graphs = FloatGraphs(traced=graph, fused=graph, merged=graph)
        find_gain = (lambda *_: {"1x16": gain}) if gain is not None else None
        plans = SparsePlans(find_gain=find_gain, untimed="" if gain is not None else "nothing can be timed")
        workshop = Workshop(
            graphs=graphs,
            directory=graph.parent,
            isa=named("avx2"),
            make_plan=None,
            choose_blocks=plans.choose_blocks,
        )
        judged = Judgement(metrics={}, drop=0)
        trials = [Trial(spec=spec, artifact=workshop.build(spec), judgement=judged) for spec in (*specs, chosen)]
        # The job times integer layers that ship sparse: here are none.
        return {row.layer: row for row in make_ledger(plans, graphs, trials, chosen, None)}

    return call


def test_a_layer_left_in_float_takes_what_float_takes(ledger):
    dense = CandidateSpec(arithmetic="int8-dynamic")
    rows = ledger(dense, chosen=dense.leave_in_float(("MatMul_0",)))
    int8 = 64 * 64 + 64 * 4 + 64
    assert (rows["MatMul_0"].dense_bytes, rows["MatMul_0"].shipped_bytes) == (int8, 4 * 64 * 64)
    assert (rows["MatMul_1"].dense_bytes, rows["MatMul_1"].shipped_bytes) == (int8, int8)


@needs_kernels
def test_a_layer_left_in_float_ships_sparse_where_that_pays(ledger):
    dense = CandidateSpec(arithmetic="int8-dynamic")
    chosen = replace(dense, sparse=True, float_layers=("MatMul_0", "MatMul_1"))
    rows = ledger(dense, chosen=chosen, gain=2.0)
    assert rows["MatMul_0"].kernel == "SparseLinear 1x1"
    assert rows["MatMul_0"].why == "left in float; 2.00 times as fast as dense, in 1x1"
    assert rows["MatMul_0"].gain_in_place == {}
    assert (rows["MatMul_1"].kernel, rows["MatMul_1"].why) == ("dense", "left in float; hardly any zeros")
    assert rows["MatMul_0"].shipped_bytes < rows["MatMul_1"].shipped_bytes == 4 * 64 * 64


def test_four_bits_take_half_a_byte(ledger):
    rows = ledger(chosen=CandidateSpec(arithmetic="weights-4"))
    assert {row.shipped_bytes for row in rows.values()} == {64 * 64 // 2 + 64 * 2 * 4}
    assert {row.kernel for row in rows.values()} == {"dense"}
    assert rows["MatMul_0"].why == "nothing can be timed"
