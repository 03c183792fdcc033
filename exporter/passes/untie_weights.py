"""A weight that is another one's transpose becomes a weight of its own.

A masked language model's output layer multiplies with the transposed word embedding. In float that saves storing the
table twice; in int8 each use wants its own layout, and two tables of integers are still half the float one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.graph import constant, permutation


def untie_weights(model: ir.Model) -> int:
    """Compute each Transpose of a constant matrix that a product reads; return how many."""
    changed = 0
    for node in list(model.graph):
        is_turn = node.op_type == "Transpose" and not node.outputs[0].is_graph_output()
        array = constant(node.inputs[0]) if is_turn else None
        reads = [use.node.op_type for use in node.outputs[0].uses()]
        if array is None or array.ndim != 2 or permutation(node) not in (None, (1, 0)) or set(reads) != {"MatMul"}:
            continue
        output = node.outputs[0]
        name = f"{node.inputs[0].name}_turned" if node.inputs[0] is not None else f"{node.name}_turned"
        weight = add_constant(model.graph, name, np.ascontiguousarray(array.T))
        ir.convenience.replace_all_uses_with(output, weight)
        model.graph.remove(node, safe=True)
        changed += 1
    if changed:
        remove_dead(model)
    return changed


def open_for_lowering(fused: Path) -> ir.Model:
    """Load a fused graph as calibration, plans and lowering see it: every linear with a weight of its own."""
    model = ir.load(fused)
    untie_weights(model)
    return model
