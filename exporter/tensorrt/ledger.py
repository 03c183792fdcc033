"""The ledger of zeros for TensorRT: which weights are 2:4, in the file that ships too, and what became of them.

In: the prepared graph, the candidate that ships, its plans. Out: a row for each product with a weight. Plans are timed
whole, so no layer has a gain of its own; bytes are those of the graph, for a plan does not tell what a layer takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from bench.recordings.ledger import DENSE, LedgerRow, average_gain
from calibration.linears import find_linears
from exporter.candidates.timing import Speeds
from exporter.passes.untie_weights import open_for_lowering
from exporter.reporting.report import Tier
from exporter.sparsity.linear_zeros import find_stored, survey_linears
from exporter.sparsity.refused_products import Refused, list_refused
from exporter.tensorrt.candidates import TrtSpec, TrtWorkshop
from exporter.tensorrt.plans import Plans
from exporter.weights.zeros import Sparsity, describe_sparsity

SPARSE_KERNEL = "TensorRT 2:4"
# A plan that may hold either; which one, TensorRT decides and a GPU shows.
DENSE_OR_SPARSE = "dense or TensorRT 2:4"
_HARDLY_ANY = "hardly any zeros"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What ships, and how it came to that.

    Attributes:
        chosen: The candidate.
        plans: Of all candidates.
        asked: Whether sparse kernels were allowed.
        tier: How far the export went.
        speeds: By candidate and shape; empty where nothing was timed.
    """

    chosen: TrtSpec
    plans: Plans
    asked: bool
    tier: Tier
    speeds: Speeds


def make_ledger(workshop: TrtWorkshop, shipped: Shipped) -> tuple[LedgerRow, ...]:
    """Return a row for each linear, and for each other product with a weight; none where no weight has zeros."""
    prepared = open_for_lowering(workshop.prepared)
    linears = find_linears(prepared)
    found = survey_linears(prepared, linears)
    lowered = open_for_lowering(workshop.build(shipped.chosen).path)
    stored = survey_linears(lowered, linears)
    sizes = _count_bytes(lowered)
    rows = []
    for linear in linears:
        sparsity, outputs_inputs = found[linear.node], linear.shape[::-1]
        kernel, why = _decide(linear.node, sparsity, shipped, holds=stored[linear.node].two_four)
        rows.append(_make_row(linear.node, outputs_inputs, sparsity, sizes[linear.node], kernel=kernel, why=why))
    rows += map(_describe_refused, list_refused(prepared))
    return tuple(rows) if any(row.pattern != DENSE for row in rows) else ()


def _make_row(
    node: str, shape: tuple[int, int], sparsity: Sparsity, size_bytes: int, *, kernel: str, why: str
) -> LedgerRow:
    return LedgerRow(
        layer=node,
        shape=shape,
        zeros=round(sparsity.zeros, 6),
        pattern=sparsity.pattern,
        use=sparsity.use,
        kernel=kernel,
        why=why,
        dense_bytes=size_bytes,
        shipped_bytes=size_bytes,
    )


def _describe_refused(refused: Refused) -> LedgerRow:
    sparsity = describe_sparsity(refused.weight != 0, multiplied=False)
    why = _HARDLY_ANY if sparsity.pattern == DENSE else refused.why
    shape = (refused.weight.shape[0], refused.weight.shape[1])
    return _make_row(refused.node, shape, sparsity, refused.weight.nbytes, kernel=DENSE, why=why)


def _count_bytes(lowered: ir.Model) -> Mapping[str, int]:
    """Return what the weight of each node takes: integers or floats, without their scales."""
    weights = {node.name or "": find_stored(node.inputs[1]) for node in lowered.graph if len(node.inputs) > 1}
    return {node: stored.nbytes for node, stored in weights.items() if stored is not None}


def _decide(node: str, sparsity: Sparsity, shipped: Shipped, *, holds: bool) -> tuple[str, str]:
    """Return the kernel of a linear and why; ``holds`` says whether its weight is 2:4 in the file that ships."""
    if sparsity.pattern == DENSE:
        return DENSE, _HARDLY_ANY
    if sparsity.pattern != "2:4":
        return DENSE, "TensorRT has kernels for 2:4 alone"
    if not sparsity.two_four:
        return DENSE, sparsity.use.removeprefix("none: ")
    if not holds:
        return DENSE, "2:4 in float, and not as it is stored"
    if not shipped.chosen.sparse:
        return DENSE, f"eligible; {_explain_dense(shipped)}"
    if shipped.tier != "ran":
        return DENSE_OR_SPARSE, "eligible; not timed: a GPU shows which kernel TensorRT picked"
    if node in shipped.plans.left_dense[shipped.chosen]:
        return DENSE, f"eligible; TensorRT picked a dense kernel; {_compare_whole(shipped)}"
    return SPARSE_KERNEL, f"TensorRT picked a sparse kernel; {_compare_whole(shipped)}"


def _explain_dense(shipped: Shipped) -> str:
    """Return why what ships has no sparse kernels."""
    if not shipped.asked:
        return "--sparse-weights was not given"
    if shipped.tier == "lowered":
        return "not timed: no plan was built"
    refused = shipped.plans.refused.get(replace(shipped.chosen, sparse=True))
    if refused is not None:
        return f"the plan with sparse kernels is out: {refused.what}"
    if shipped.tier == "built":
        return "not timed: the plan without sparse kernels ships"
    return f"all in all {shipped.chosen.name} won; {_compare_whole(shipped)}"


def _compare_whole(shipped: Shipped) -> str:
    """Return how fast the plan with sparse kernels is against the one without."""
    sparse, dense = (shipped.speeds.get(replace(shipped.chosen, sparse=flag).name) for flag in (True, False))
    if not sparse or not dense:
        return "not timed against its like"
    ratios = {shape: sparse[shape].ratio / dense[shape].ratio for shape in sparse}
    return f"the plan with sparse kernels is {average_gain(ratios):.2f} times as fast as without"
