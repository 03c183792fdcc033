"""The three edits every lowering and every graph pass is made of. Needs onnx_ir alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of ``old`` read ``new``, which takes its name, shape and type: plans go by name."""
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.name = f"{old.name}_replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def add_constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register ``array`` as initializer ``name``; what is there already is used again if it holds the same.

    Linears that share a weight share its integers too, unless they want different ones (another smoothing, another
    layout): then the name gets a number.
    """
    wanted, number = name, 1
    while (found := graph.initializers.get(name)) is not None:
        if _holds(found, array):
            return found
        number += 1
        name = f"{wanted}_{number}"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value


def remove_dead(model: ir.Model) -> None:
    """Drop nodes and initializers nothing reads any more, those of branches too."""
    common.RemoveUnusedNodesPass()(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]


def _holds(value: ir.Value, array: NDArray[np.generic]) -> bool:
    if value.const_value is None or value.is_graph_input():
        return False
    held = value.const_value.numpy()
    return held.dtype == array.dtype and np.array_equal(held, array)
