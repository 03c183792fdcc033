"""Weights of 4 bits that a model was trained to become floats again, for as long as candidates are made of it.

A linear with a weight of its own can run in any arithmetic; :mod:`exporter.passes.packed_weights` finds the 4 bits
again and stores them, whichever was chosen. Left behind DequantizeLinear, ONNX Runtime makes a MatMulNBits of it, which
is no faster than float on a CPU.
"""

from __future__ import annotations

import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.constant_rounding import dequantise, is_symmetric

_PRODUCTS = {"MatMul", "Gemm"}


def spell_out_int4(model: ir.Model) -> int:
    """Compute each DequantizeLinear of constant 4-bit integers that products alone read; return how many."""
    changed = sum(
        _spell_out(model, node) for node in list(model.graph.all_nodes()) if node.op_type == "DequantizeLinear"
    )
    if changed:
        remove_dead(model)
    return changed


def _spell_out(model: ir.Model, node: ir.Node) -> int:
    stored, output = node.inputs[0], node.outputs[0]
    if stored is None or stored.dtype != ir.DataType.INT4 or output.is_graph_output():
        return 0
    uses = list(output.uses())
    is_weight = bool(uses) and all(use.node.op_type in _PRODUCTS and use.idx == 1 for use in uses)
    floats = dequantise(node)
    if floats is None or not is_symmetric(node) or not is_weight:
        return 0
    weight = add_constant(model.graph, f"{stored.name}_floats", floats)
    ir.convenience.replace_all_uses_with(output, weight)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    return 1
