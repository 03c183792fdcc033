"""Weights that arrive as int8 become uint8 with zero point 128, for CPUs that saturate uint8 x int8 products.

ONNX Runtime runs Q/DQ linears on such CPUs by adding two uint8 x int8 products in 16 bits, which overflow when the
weights use their full range (a model from quantisation-aware training, or one that another tool quantised); its
uint8 x uint8 kernel widens first and is exact. The values stay what they are: w = (q + 128 - 128) * scale.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.graph import constant

_SHIFT = 128


def make_unsigned(model: ir.Model) -> int:
    """Rewrite each DequantizeLinear of constant int8 values, in branches too; return how many."""
    changed = sum(_shift(model, node) for node in list(model.graph.all_nodes()) if node.op_type == "DequantizeLinear")
    if changed:
        remove_dead(model)
    return changed


def _shift(model: ir.Model, node: ir.Node) -> int:
    values, scale = constant(node.inputs[0]), constant(node.inputs[1])
    if values is None or scale is None or values.dtype != np.int8:
        return 0
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant(given) if given is not None else np.zeros(scale.shape, np.int8)
    if zero is None:  # computed, or fed
        return 0
    name = node.inputs[0].name if node.inputs[0] is not None else node.name
    stored = add_constant(model.graph, f"{name}_unsigned", _add(values))
    # One name a reader: two readers of one tensor may have different zero points.
    offset = add_constant(model.graph, f"{node.name or name}_unsigned_zero", _add(zero))
    inputs = [stored, node.inputs[1], offset]
    new = ir.node("DequantizeLinear", inputs, node.attributes, name=node.name)
    output = new.outputs[0]
    output.shape, output.type = node.outputs[0].shape, node.outputs[0].type
    graph = node.graph or model.graph
    graph.insert_before(node, new)
    ir.convenience.replace_all_uses_with(node.outputs[0], output, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return 1


def _add(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    return (values.astype(np.int16) + _SHIFT).astype(np.uint8)
