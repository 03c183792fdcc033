"""Sparse layers over one input become one layer and a split: query, key and value of a decoder.

In: a model after exporter/passes/sparse_linears.py. Out: the graph edited. Every output keeps its values and its scale:
nothing is rounded otherwise. A single token waits for the threads of a small layer as long as for its bytes: with SiLU
inside the gate's layer as well, SmolLM2 with 70 % zeros says one in 1 to 5 % less time (INT8, 2 cores, AVX-512 VNNI).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.graph import constant
from exporter.passes.join_products import WIDEST, split_among
from exporter.passes.sparse_linears import is_sparse, read_linears, read_stored, tell_linears
from runtimes.sparse.storage import StoredWeight, find_excess, stack

# What a layer has before its scales, where it has any, and its bias: X, values, gaps and row starts.
_STORED = 4


def join_sparse(model: ir.Model) -> int:
    """Join every group of sparse layers that differ in their outputs alone; return how many groups.

    A layer with a norm behind it, or an activation, stays alone: that of one would be that of all.
    """
    groups: dict[Hashable, list[ir.Node]] = defaultdict(list)
    for node in model.graph:
        if is_sparse(node) and "epsilon" not in node.attributes and node.attributes["activation"].as_string() == "none":
            groups[node.op_type, node.inputs[0], read_stored(node).block].append(node)
    joined = [nodes for nodes in groups.values() if len(nodes) > 1 and _fits([read_stored(node) for node in nodes])]
    for nodes in joined:
        _join(model.graph, nodes)
    if joined:
        remove_dead(model)
    return len(joined)


def _fits(weights: Sequence[StoredWeight]) -> bool:
    """Whether weights can lie below each other: in whole blocks, and no more than the kernels take."""
    (high, _), (_, inputs) = weights[0].block, weights[0].shape
    outputs = sum(one.shape[0] for one in weights)
    whole = all(one.shape[0] % high == 0 for one in weights)
    int8 = weights[0].values.dtype == np.int8
    return whole and outputs <= WIDEST * inputs and not find_excess((outputs, inputs), int8=int8)


def _join(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    first = nodes[0]
    weights = [read_stored(node) for node in nodes]
    stored = stack(weights)
    arrays: list[NDArray[np.generic]] = [stored.values, stored.gaps, stored.row_starts]
    arrays += [_put_together(nodes, place) for place in range(_STORED, len(first.inputs))]
    name = f"{first.name}_joined"
    # Named after the first one's: layers that share their weights share the joined ones.
    names = [f"{value.name}_joined" for value in first.inputs[1:] if value is not None]
    inputs = [add_constant(graph, *one) for one in zip(names, arrays, strict=True)]
    attributes = {**first.attributes, "out_features": ir.AttrInt64("out_features", stored.shape[0])}
    layer = ir.Node(
        first.domain, first.op_type, [first.inputs[0], *inputs], attributes.values(), num_outputs=1, name=name
    )
    tell_linears(layer, [linear for node in nodes for linear in read_linears(node)])
    graph.insert_before(first, layer)
    split_among(graph, layer, [node.outputs[0] for node in nodes], [one.shape[0] for one in weights])


def _put_together(nodes: Sequence[ir.Node], place: int) -> NDArray[np.generic]:
    """Return the scales or the biases of layers, one after the other."""
    return np.concatenate([array for node in nodes if (array := constant(node.inputs[place])) is not None])
