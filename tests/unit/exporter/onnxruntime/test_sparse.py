"""What an export does about zeros: which layers are timed, and what manifest, ledger and report say of the outcome."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from exporter.candidates.target import Job
from exporter.candidates.trial import Trial
from exporter.judging.held_out import HeldOut
from exporter.judging.judge import Judgement
from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs, Workshop
from exporter.onnxruntime.sparse import describe_kernels, list_findings, make_ledger, plan_sparse
from exporter.options import ExportOptions
from exporter.passes.sparse_linears import replace_linears
from exporter.progress import SilentProgress
from exporter.sparsity.plans import SparsePlans
from exporter.stopwatch import Stopwatch
from exporter.tracing.trace import Traced
from runtimes.generation.cache_spec import CacheSpec
from runtimes.isa import named
from runtimes.ort import describe_onnx
from runtimes.sparse import library
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


@pytest.fixture
def make_job(tmp_path):
    """Return the job of an export of one graph, timed at one shape."""

    def call(graph: Path) -> Job:
        traced = Traced(
            artifact=describe_onnx(graph),
            task="custom",
            tokenizer=None,
            labels=(),
            parity=(),
            max_length=None,
            findings=(),
        )
        return Job(
            traced=traced,
            options=ExportOptions(model="m", output=tmp_path / "out", shapes=((2, 32),), threads=1),
            held_out=HeldOut(calibration=None, judging=(), tuning=(), vocabulary=10, described="", metric=""),
            statistics=None,
            work=tmp_path / "work",
            progress=SilentProgress(),
            watch=Stopwatch(),
        )

    return call


def _share_graph(graph: Path) -> FloatGraphs:
    return FloatGraphs(traced=graph, fused=graph, merged=graph)


def _prune(share: float, width: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((64, width)) * (rng.random((64, width)) >= share)).astype(np.float32)


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(library, "_NAME", "lib/absent.so")


def test_for_another_machine_no_layer_is_timed(write, make_job):
    graph = write("y = MatMul(x, w)", w=_prune(0.95))
    plans, costs = plan_sparse(make_job(graph), named("avx2"), timed=False)
    assert costs is None
    assert not plans.may_pay(graph)
    (row,) = plans.list_rows(graph, "float32")
    assert (row.kernel, row.why) == ("dense", "made for another machine, where no layer can be timed")
    assert list_findings(plans, costs, _share_graph(graph)) == ()


@pytest.mark.usefixtures("no_kernels")
def test_without_kernels_no_layer_is_timed_and_zeros_are_reason_to_say_so(write, make_job):
    graph = write("y = MatMul(x, w)", w=_prune(0.95))
    plans, costs = plan_sparse(make_job(graph), named("avx2"), timed=True)
    assert costs is None
    assert not plans.may_pay(graph)
    (row,) = plans.list_rows(graph, "int8")
    assert (row.kernel, row.gain) == ("dense", {})
    assert "sparse kernels were not built" in row.why
    (finding,) = list_findings(plans, costs, _share_graph(graph))
    assert finding.startswith("weights with zeros ship dense: ")
    assert "install a C++ compiler" in finding


@pytest.mark.usefixtures("no_kernels")
def test_without_kernels_and_without_zeros_there_is_nothing_to_say(write, make_job):
    graph = write("y = MatMul(x, w)", w=np.ones((64, 64), np.float32))
    plans, costs = plan_sparse(make_job(graph), named("avx2"), timed=True)
    assert list_findings(plans, costs, _share_graph(graph)) == ()


@needs_kernels
def test_layers_are_timed_at_the_shapes_of_the_export_and_kept_for_the_next(write, make_job, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    graph = write("y = MatMul(x, w)", w=_prune(0.95))
    plans, costs = plan_sparse(make_job(graph), named("vnni"), timed=True)
    assert plans.may_pay(graph)
    assert list_findings(plans, costs, _share_graph(graph)) == ()
    (row,) = plans.make_plan(graph, "float32").rows
    assert set(row.gain) == {"2x32"}
    # Two blocks are promising, unless the second is far behind.
    (finding,) = list_findings(plans, costs, _share_graph(graph))
    assert finding in {f"gains of single layers: {number} measured now" for number in (1, 2)}
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1


@needs_kernels
def test_layers_of_a_decoder_are_timed_on_a_single_token_too(write, make_job, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    graph = write("y = MatMul(x, w)", w=_prune(0.95))
    job = make_job(graph)
    cache = CacheSpec(layers=1, kv_heads=1, head_dim=64)
    plans, _ = plan_sparse(replace(job, traced=replace(job.traced, cache=cache)), named("vnni"), timed=True)
    (row,) = plans.make_plan(graph, "float32").rows
    assert set(row.gain) == {"2x32", "1x1"}


@needs_kernels
@pytest.mark.parametrize(("level", "most"), [("avx2", 63), ("vnni", 127)])
def test_integer_layers_are_timed_against_what_ships_dense_there(write, make_job, tmp_path, monkeypatch, level, most):
    """Where products saturate, dense weights leave a bit free."""
    monkeypatch.setenv("STEPDOWN_CACHE", str(tmp_path / "cache"))
    graph = write("y = MatMul(x, w)", w=_prune(0.95))
    job = make_job(graph)
    plans, _ = plan_sparse(job, named(level), timed=True)
    plans.make_plan(graph, "int8")
    (path, *_) = (job.work / "layers").glob("*-dense.onnx")
    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    assert max(int(np.abs(array).max()) for array in stored if array.dtype == np.int8) == most


@needs_kernels
def test_the_manifest_names_the_kernels_of_a_model_that_has_sparse_layers(write, tmp_path):
    path = write("y = MatMul(x, w)", w=np.eye(64, dtype=np.float32))
    assert describe_kernels(path) == {}
    model = ir.load(path)
    replace_linears(model, {"MatMul_0": (1, 1)}, values="float32")
    ir.save(model, tmp_path / "sparse.onnx")
    assert set(describe_kernels(tmp_path / "sparse.onnx")["sparse_kernels"]) == {"version", "sha256"}


@pytest.fixture
def ledger(write, make_job):
    """Build candidates of two layers, one with many zeros, and return the rows for the chosen one."""

    def call(*specs: CandidateSpec, chosen: CandidateSpec, gain: float | None = None, zeros: float = 0.9) -> dict:
        dense = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
        graph = write("m = MatMul(x, w)  y = MatMul(m, v)", w=_prune(zeros), v=dense)
        graphs = _share_graph(graph)
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
        for spec in (*specs, chosen):
            if spec.sparse:  # as the export does, before it builds any
                plans.make_plan(graph, spec.values)
        return {row.layer: row for row in make_ledger(plans, graphs, trials, chosen, make_job(graph))}

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


def test_a_model_without_zeros_has_no_rows(ledger):
    assert ledger(chosen=CandidateSpec(arithmetic="float"), gain=2.0, zeros=0.0) == {}


@needs_kernels
@pytest.mark.parametrize("arithmetic", ["float", "int8-dynamic"])
def test_what_ships_sparse_is_measured_in_its_place(ledger, arithmetic):
    dense = CandidateSpec(arithmetic=arithmetic)
    rows = ledger(dense, chosen=replace(dense, sparse=True), gain=2.0)
    sparse = rows["MatMul_0"]
    assert sparse.kernel == ("SparseLinear 1x1" if arithmetic == "float" else "SparseLinearInt8 1x1")
    assert sparse.gain == {"1x16": 2.0}
    assert set(sparse.gain_in_place) == {"2x32"}
    assert sparse.gain_in_place["2x32"] > 0
    assert sparse.shipped_bytes < 0.5 * sparse.dense_bytes
    assert (rows["MatMul_1"].kernel, rows["MatMul_1"].gain_in_place) == ("dense", {})
    assert rows["MatMul_1"].shipped_bytes == rows["MatMul_1"].dense_bytes


@needs_kernels
def test_where_a_dense_candidate_wins_the_row_says_what_was_measured_and_who_won(ledger):
    dense = CandidateSpec(arithmetic="int8-dynamic")
    row = ledger(replace(dense, sparse=True), chosen=dense, gain=2.0)["MatMul_0"]
    assert (row.kernel, row.shipped_bytes) == ("dense", row.dense_bytes)
    assert row.why == "2.00 times as fast as dense, in 1x1; all in all int8-dynamic won"
    assert row.gain == {"1x16": 2.0}
    assert row.gain_in_place == {}


@needs_kernels
def test_where_plain_float_wins_all_is_dense(ledger):
    rows = ledger(
        CandidateSpec(arithmetic="float", sparse=True), chosen=CandidateSpec(arithmetic="float", plain=True), gain=2.0
    )
    assert {row.kernel for row in rows.values()} == {"dense"}
    assert {row.shipped_bytes for row in rows.values()} == {4 * 64 * 64}
    assert rows["MatMul_0"].why.endswith("all in all float (as traced) won")
