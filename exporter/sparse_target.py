"""What an export for ONNX Runtime does about zeros in weights: plan, offer, and write down what became of them.

In: the job and its float graphs. Out: the plans of sparse layers, and the ledger. Writes only below the job's ``work``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from exporter.candidates import CandidateSpec, FloatGraphs
from exporter.ledger import LedgerRow
from exporter.probe_feeds import usable_shapes
from exporter.sparse_costs import CostTable
from exporter.sparse_plans import SparsePlans
from exporter.target import Job
from runtimes.artifact import hash_file
from runtimes.isa import Isa, saturates_u8s8
from runtimes.sparse.library import library_path, why_unavailable


def plan_sparse(job: Job, isa: Isa, *, timed: bool) -> SparsePlans:
    """Return plans that time layers at the export's shapes and threads, where the kernels and this machine let them."""
    untimed = why_unavailable() if timed else "made for another machine, where no layer can be timed"
    if untimed is not None:
        return SparsePlans(find_gain=None, untimed=untimed.splitlines()[0])
    costs = CostTable(
        directory=job.work / "layers",
        shapes=usable_shapes(job.traced.artifact.inputs, job.options.shapes),
        threads=job.options.threads,
        weight_bits=7 if saturates_u8s8(isa) else 8,
    )
    return SparsePlans(find_gain=costs.find_gain)


def make_ledger(sparse: SparsePlans, graphs: FloatGraphs, chosen: CandidateSpec) -> tuple[LedgerRow, ...]:
    """Return a row for each linear of the graph that ships; none where no weight has zeros to speak of."""
    graph = graphs.merged if chosen.merged else graphs.fused
    if not sparse.is_pruned(graph):
        return ()
    rows = sparse.list_rows(graph, chosen.values)
    if chosen.sparse:
        left = f"left in float: {chosen.name}"
        return tuple(row.ship_dense(left) if row.layer in chosen.float_layers else row for row in rows)
    return tuple(row.ship_dense(f"{row.why}; all in all {chosen.name} won") for row in rows)


def list_findings(sparse: SparsePlans, graphs: FloatGraphs) -> tuple[str, ...]:
    """Return a sentence where weights have zeros and the kernels for them are missing."""
    reason = why_unavailable()
    if reason is None or not sparse.is_pruned(graphs.fused):
        return ()
    return (f"weights with zeros ship dense: {reason}",)


def describe_kernels(chosen: CandidateSpec) -> Mapping[str, Any]:
    """Return what the manifest says of the kernels an artifact needs; nothing where it needs none."""
    if not chosen.sparse:
        return {}
    return {"sparse_kernels": {"version": version("stepdown"), "sha256": hash_file(library_path())}}
