"""Products of integers over one input become one product and a split: query, key and value of a decoder.

In: a decoder's graph whose weights are rounded. Out: the graph edited. Every column keeps its integers and its scales:
nothing is rounded otherwise. A single token waits for the threads of a small product as long as for its bytes: SmolLM2
says one in 3 % less time in blocks of 8 bits, in 4 to 5 % less in INT8 (2 cores with AVX-512 VNNI).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.passes.graph import constant, made_by, only_user

# By operator: which of its inputs belong to columns, and the axis these lie along.
_COLUMNS: Mapping[str, Mapping[int, int]] = {
    "MatMulNBits": {1: 0, 2: 0, 3: 0, 5: 0},
    "MatMulIntegerToFloat": {1: 1, 3: 0, 5: 0, 6: 0},
}
#: The split copies what it splits. With gate and up of SmolLM2, 5.3 times as wide as what they read, joined too, INT8
#: reads a prompt of 512 tokens in 4 % more time, and says a token in no less.
WIDEST = 3


def join_products(model: ir.Model) -> int:
    """Join every group of products that read the same and differ in their columns alone; return how many groups."""
    groups: dict[Hashable, list[ir.Node]] = defaultdict(list)
    for node in model.graph.all_nodes():
        if node.op_type in _COLUMNS and all(constant(node.inputs[place]) is not None for place in _list_places(node)):
            groups[_describe(node)].append(node)
    joined = [nodes for nodes in groups.values() if len(nodes) > 1 and _is_narrow(nodes)]
    for nodes in joined:
        _join(model.graph, nodes)
    if joined:
        remove_dead(model)
    return len(joined)


def _list_places(node: ir.Node) -> tuple[int, ...]:
    """Return which inputs that are there belong to columns."""
    given = dict(enumerate(node.inputs))
    return tuple(place for place in _COLUMNS[node.op_type] if given.get(place) is not None)


def _describe(node: ir.Node) -> Hashable:
    """Return what products have in common that can be one."""
    places = _list_places(node)
    shared = tuple(value for place, value in enumerate(node.inputs) if place not in places)
    attributes = frozenset((name, attribute.value) for name, attribute in node.attributes.items() if name != "N")
    return node.graph, node.op_type, places, shared, attributes, _find_scaling(node) is not None


def _is_narrow(nodes: Sequence[ir.Node]) -> bool:
    sizes = [_find_size(node) for node in nodes]
    return sum(width for _, width in sizes) <= WIDEST * sizes[0][0]


def _find_size(node: ir.Node) -> tuple[int, int]:
    """Return how many inputs and how many columns a product has."""
    if "N" in node.attributes:
        return node.attributes["K"].as_int(), node.attributes["N"].as_int()
    weight = constant(node.inputs[1])
    assert weight is not None
    return weight.shape[0], weight.shape[1]


def _join(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    first, places = nodes[0], _list_places(nodes[0])
    inputs, attributes = list(first.inputs), dict(first.attributes)
    for place in places:
        stored = first.inputs[place]
        assert stored is not None
        # Named after the first one's: layers that share their weights share the joined ones.
        inputs[place] = add_constant(graph, f"{stored.name}_joined", _stack(nodes, place))
    widths = [_find_size(node)[1] for node in nodes]
    if "N" in attributes:
        attributes["N"] = ir.AttrInt64("N", sum(widths))
    name, scaling = f"{first.name}_joined", _find_scaling(first)
    new = [ir.Node(first.domain, first.op_type, inputs, attributes.values(), num_outputs=1, name=name)]
    if scaling is not None:
        new.append(ir.node("Mul", [new[-1].outputs[0], scaling.inputs[1]], name=f"{name}_scaled"))
    (first.graph or graph).insert_before(first, new)
    split_among(graph, new[-1], [(_find_scaling(node) or node).outputs[0] for node in nodes], widths)


def split_among(graph: ir.Graph, joined: ir.Node, old: Sequence[ir.Value], widths: Sequence[int]) -> None:
    """Split the last axis of what ``joined`` gives: so many columns to the readers of each of the ``old`` values.

    Args:
        graph: The model's, which holds constants, whichever graph ``joined`` is in.
        joined: A node that has been inserted.
        old: What each part takes the place of.
        widths: Columns of each.
    """
    sizes = add_constant(graph, f"{joined.name}_sizes", np.array(widths, np.int64))
    split = ir.node(
        "Split", [joined.outputs[0], sizes], {"axis": -1}, num_outputs=len(old), name=f"{joined.name}_split"
    )
    (joined.graph or graph).insert_after(joined, split)
    for value, part in zip(old, split.outputs, strict=True):
        take_over(value, part)


def _stack(nodes: Sequence[ir.Node], place: int) -> NDArray[np.generic]:
    """Return the columns of products beside each other."""
    arrays = [array for node in nodes if (array := constant(node.inputs[place])) is not None]
    return np.concatenate(arrays, axis=_COLUMNS[nodes[0].op_type][place])


def _find_scaling(node: ir.Node) -> ir.Node | None:
    """Return the node that multiplies a product with the magnitudes its rows were divided by, if there is one."""
    rounded = made_by(node.inputs[0], "QuantizeLinear")
    share = made_by(rounded.inputs[0], "Div") if rounded is not None else None
    scaling = only_user(node.outputs[0], "Mul")
    is_undone = share is not None and scaling is not None and scaling.inputs[1] is share.inputs[1]
    return scaling if is_undone else None
