"""The two edits every lowering and every graph pass is made of. Needs onnx_ir alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def take_over(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of ``old`` read ``new``, which takes its name, shape and type: plans go by name."""
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.name = f"{old.name}_replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def add_constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register ``array`` as initializer ``name`` (an equal name is reused: one weight shared by two linears)."""
    found = graph.initializers.get(name)
    if found is not None:
        return found
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))
    graph.register_initializer(value)
    return value
