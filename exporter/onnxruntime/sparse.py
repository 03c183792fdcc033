"""What an export for ONNX Runtime does about zeros in weights: plan, offer, and write down what became of them.

In: the job and its float graphs. Out: the plans of sparse layers, and the ledger. Writes only below the job's ``work``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from bench.recordings.ledger import LedgerRow
from exporter.candidates.target import Job, make_timing_plan
from exporter.candidates.trial import Trial
from exporter.onnxruntime.candidates import CandidateSpec, FloatGraphs
from exporter.passes.sparse_linears import list_sparse
from exporter.probe_feeds import usable_shapes
from exporter.sparsity.costs import CostTable
from exporter.sparsity.in_place import Gains, find_spans, measure_in_place
from exporter.sparsity.kept_gains import open_kept_gains
from exporter.sparsity.plans import SparsePlans
from exporter.sparsity.stored_bytes import count_stored
from runtimes.artifact import Artifact
from runtimes.isa import Isa, saturates_u8s8
from runtimes.onnx_file import read_header
from runtimes.sparse.library import DOMAIN, describe_build, why_unavailable


def plan_sparse(job: Job, isa: Isa, *, timed: bool) -> tuple[SparsePlans, CostTable | None]:
    """Return plans, and the table of times they ask: none where the kernels or this machine do not let layers be timed.

    Layers are timed at the export's shapes and threads, those of a decoder on a single token too: most of what it is
    used for.
    """
    untimed = why_unavailable() if timed else "made for another machine, where no layer can be timed"
    if untimed is not None:
        return SparsePlans(find_gain=None, untimed=untimed.splitlines()[0]), None
    weight_bits = 7 if saturates_u8s8(isa) else 8
    shapes = usable_shapes(job.traced.artifact.inputs, job.options.shapes)
    one_token = ((1, 1),) if job.traced.cache is not None else ()
    costs = CostTable(
        directory=job.work / "layers",
        shapes=tuple(dict.fromkeys((*shapes, *one_token))),
        threads=job.options.threads,
        weight_bits=weight_bits,
        kept=open_kept_gains(threads=job.options.threads, weight_bits=weight_bits),
        per_token=job.traced.cache is not None,
        model_bytes=job.traced.artifact.size_bytes() if one_token else 0,
    )
    return SparsePlans(find_gain=costs.find_gain), costs


def make_ledger(
    sparse: SparsePlans, graphs: FloatGraphs, trials: Sequence[Trial[CandidateSpec]], chosen: CandidateSpec, job: Job
) -> tuple[LedgerRow, ...]:
    """Return a row for each linear of the graph that ships; none where no weight has zeros to speak of.

    Where it ships sparse, what each layer gains in place is measured first.
    """
    graph = graphs.in_float.choose(replace(chosen, plain=False))
    if not sparse.is_pruned(graph):
        return ()
    in_float = {row.layer: row for row in sparse.list_rows(graph, "float32")} if chosen.float_layers else {}
    artifacts = {trial.spec: trial.artifact for trial in trials}
    dense, shipped = artifacts.get(_name_dense(chosen), artifacts[chosen]), artifacts[chosen]
    settled = (_settle(row, in_float, chosen) for row in sparse.list_rows(graph, chosen.values))
    rows = _leave_in_blocks(settled, shipped.path) if chosen.sparse else tuple(settled)
    # A layer left in float has no like in the dense model, which is all integers.
    timed = [row.layer for row in rows if row.is_sparse and row.layer not in chosen.float_layers]
    gains = _measure_in_place(graph, timed, dense, shipped, job)
    rows = tuple(replace(row, gain_in_place=gains.get(row.layer, {})) for row in rows)
    return rows if chosen.plain else count_bytes(rows, graph, dense.path, shipped.path)


def count_bytes(rows: Sequence[LedgerRow], graph: Path, dense: Path, shipped: Path) -> tuple[LedgerRow, ...]:
    """Return the rows for the linears of ``graph`` with what the files of the dense and the shipped model hold."""
    before, after = count_stored(dense, graph), count_stored(shipped, graph)
    return tuple(
        replace(
            row,
            dense_bytes=before.get(row.layer, row.dense_bytes),
            shipped_bytes=after.get(row.layer, row.shipped_bytes),
        )
        for row in rows
    )


def _settle(row: LedgerRow, in_float: Mapping[str, LedgerRow], chosen: CandidateSpec) -> LedgerRow:
    """Return what became of a linear as planned; ``in_float`` has the plans of those left in float."""
    if row.layer in chosen.float_layers:
        kept = in_float[row.layer]
        kept = kept if chosen.sparse else kept.ship_dense(kept.why)
        return replace(kept, why=f"left in float; {kept.why}")
    return row if chosen.sparse else row.ship_dense(f"{row.why}; all in all {chosen.name} won")


def _leave_in_blocks(rows: Iterable[LedgerRow], shipped: Path) -> tuple[LedgerRow, ...]:
    """Return the rows with those dense that the shipped model holds in blocks: a decoder's that lose too much else."""
    stored = list_sparse(ir.load(shipped))
    return tuple(row if row.layer in stored else row.ship_dense(f"{row.why}; more accurate in blocks") for row in rows)


def _name_dense(chosen: CandidateSpec) -> CandidateSpec:
    """Return the candidate without sparse layers, nor layers left in float: what was planned against."""
    return replace(chosen, sparse=False, float_layers=())


def _measure_in_place(graph: Path, layers: Sequence[str], dense: Artifact, sparse: Artifact, job: Job) -> Gains:
    if not layers:
        return {}
    plan = make_timing_plan(job)
    with job.watch.time("time in place"), job.progress.task("timing layers in place", len(plan)) as task:
        return measure_in_place(
            {"dense": dense, "sparse": sparse},
            find_spans(graph, layers),
            plan,
            job.work / "in-place",
            threads=job.options.threads,
            advance=task.advance,
        )


def list_findings(sparse: SparsePlans, costs: CostTable | None, graphs: FloatGraphs) -> tuple[str, ...]:
    """Return where the times of layers are from, and a sentence where weights have zeros and no kernels."""
    if costs is not None:
        return costs.list_findings()
    reason = why_unavailable()
    if reason is None or not sparse.is_pruned(graphs.in_float.fused):
        return ()
    return (f"weights with zeros ship dense: {reason}",)


def describe_kernels(model: Path) -> Mapping[str, Any]:
    """Return what the manifest says of the kernels a finished model needs; nothing where it needs none.

    What makes the same answers is the version; the hash says which build was timed.
    """
    if DOMAIN not in read_header(model).domains:
        return {}
    return {"sparse_kernels": asdict(describe_build())}
