"""Constant weights that are quantised in the graph are stored as the integers they become.

A model trained in fake quantisation is traced with float weights behind QuantizeLinear; the integers say the same in a
quarter or an eighth of the bytes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.constant_rounding import spread
from exporter.passes.graph import constant

_LIMITS = {ir.DataType.INT8: (-128, 127), ir.DataType.UINT8: (0, 255), ir.DataType.INT4: (-8, 7)}


def store_integers(model: ir.Model) -> int:
    """Compute each QuantizeLinear whose inputs are all constant, in branches too; return how many."""
    changed = sum(_store(model, node) for node in list(model.graph.all_nodes()) if node.op_type == "QuantizeLinear")
    if changed:
        remove_dead(model)
    return changed


def _store(model: ir.Model, node: ir.Node) -> int:
    arrays = [array for array in map(constant, node.inputs) if array is not None]
    kind = _find_kind(node)
    if len(arrays) < 2 or len(arrays) != len(node.inputs) or kind not in _LIMITS or node.outputs[0].is_graph_output():
        return 0
    scale = spread(arrays[1], arrays[0].shape, node)
    zero = spread(arrays[2], arrays[0].shape, node) if len(arrays) == 3 else np.zeros((), np.float32)
    if scale is None or zero is None:
        return 0
    low, high = _LIMITS[kind]
    # Round half to even and saturate, as ONNX QuantizeLinear does.
    steps = np.rint(arrays[0].astype(np.float32) / scale) + zero
    output = node.outputs[0]
    name = output.name or f"{node.name}_integers"
    output.name = f"{name}_computed"
    integers = np.clip(steps, low, high).astype(kind.numpy())
    ir.convenience.replace_all_uses_with(output, add_constant(model.graph, name, integers))
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    return 1


def _find_kind(node: ir.Node) -> ir.DataType:
    """Return what is stored: the type of the zero point, or where there is none what ``output_dtype`` says."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return node.inputs[2].dtype or ir.DataType.UNDEFINED
    return ir.DataType(node.attributes.get_int("output_dtype", ir.DataType.UINT8) or ir.DataType.UINT8)
