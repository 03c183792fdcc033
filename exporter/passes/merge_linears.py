"""Linears that read the same tensor (query, key, value) become one matrix product and a split.

One large product has less overhead than three small ones; the split copies. Whether it pays depends on the shape and
the CPU, so it is a candidate, not a rule.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.passes.graph import constant, only_user


@dataclass(frozen=True, slots=True, kw_only=True)
class _Biased:
    """One ``x @ weight + bias``; ``name`` is the weight's."""

    product: ir.Node
    add: ir.Node
    name: str
    weight: np.ndarray
    bias: np.ndarray


def merge_linears(model: ir.Model) -> int:
    """Merge every group of biased products over one input, in branches too; return how many groups."""
    groups: dict[tuple[ir.Value, object], list[_Biased]] = defaultdict(list)
    for node in model.graph.all_nodes():
        found = _match(node)
        if found is not None and node.inputs[0] is not None:
            groups[node.inputs[0], node.graph].append(found)
    shared = {read: parts for read, parts in groups.items() if len(parts) > 1}
    for (value, _), parts in shared.items():
        _merge(model.graph, value, parts)
    if shared:
        remove_dead(model)
    return len(shared)


def _match(node: ir.Node) -> _Biased | None:
    if node.op_type != "MatMul":
        return None
    weight, add = constant(node.inputs[1]), only_user(node.outputs[0], "Add")
    if weight is None or weight.ndim != 2 or add is None:
        return None
    bias = next((c for c in map(constant, add.inputs) if c is not None), None)
    if bias is None or bias.ndim != 1 or len(bias) != weight.shape[1] or weight.dtype != np.float32:
        return None
    name = (node.inputs[1].name if node.inputs[1] is not None else None) or f"{node.name}.weight"
    return _Biased(product=node, add=add, name=name, weight=weight, bias=bias)


def _merge(graph: ir.Graph, value: ir.Value, parts: list[_Biased]) -> None:
    name = f"{parts[0].product.name}_merged"
    # Named after the weight: layers that share theirs share the merged one.
    stored = f"{parts[0].name}_merged"
    weight = add_constant(graph, stored, np.concatenate([p.weight for p in parts], axis=1))
    bias = add_constant(graph, f"{stored}.bias", np.concatenate([p.bias for p in parts]))
    sizes = add_constant(graph, f"{stored}.sizes", np.array([len(p.bias) for p in parts], np.int64))
    product = ir.node("MatMul", [value, weight], name=name)
    add = ir.node("Add", [product.outputs[0], bias], name=f"{name}_bias")
    split = ir.node("Split", [add.outputs[0], sizes], {"axis": -1}, num_outputs=len(parts), name=f"{name}_split")
    if value.shape is not None:
        wide = ir.Shape([*value.shape[:-1], int(sum(len(p.bias) for p in parts))])
        for output in (product.outputs[0], add.outputs[0]):
            output.shape, output.type = wide, value.type
    (parts[0].product.graph or graph).insert_before(parts[0].product, [product, add, split])
    for part, output in zip(parts, split.outputs, strict=True):
        take_over(part.add.outputs[0], output)
