"""Linears of a model that was trained with its rounding become float linears again: nothing else merges or prunes.

What was learned stays in the weights, which are still whole numbers of their steps; what linears read is not rounded
any more. A lowering that comes after rounds both once more: to the same integers, where a row reaches the largest.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.constant_rounding import dequantise
from exporter.passes.graph import constant, made_by

_PRODUCTS = ("MatMul", "Gemm")
_INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8)


def undo_rounding(model: ir.Model) -> int:
    """Give linears with a constant 8-bit weight its floats, and what they read as it was; return how many."""
    changed = sum(_undo(model, node) for node in list(model.graph.all_nodes()) if node.op_type in _PRODUCTS)
    if changed:
        remove_dead(model)
    return changed


def _undo(model: ir.Model, node: ir.Node) -> int:
    scaled = made_by(node.inputs[1], "DequantizeLinear")
    stored = scaled.inputs[0] if scaled is not None else None
    floats = dequantise(scaled) if scaled is not None else None
    if floats is None or floats.ndim != 2 or stored is None or stored.dtype not in _INTEGERS:
        return 0
    node.replace_input_with(1, add_constant(model.graph, f"{stored.name}_floats", floats))
    node.replace_input_with(0, _read_unrounded(node.inputs[0]))
    return 1


def _read_unrounded(value: ir.Value | None) -> ir.Value | None:
    """Return what a value was before it was rounded to 8 bits and back, with the same constants; else itself."""
    back = made_by(value, "DequantizeLinear")
    there = made_by(back.inputs[0], "QuantizeLinear") if back is not None else None
    if back is None or there is None or back.inputs[0] is None or back.inputs[0].dtype not in _INTEGERS:
        return value
    same = len(back.inputs) == len(there.inputs) and all(
        _is_same(one, other) for one, other in zip(back.inputs[1:], there.inputs[1:], strict=True)
    )
    return there.inputs[0] if same else value


def _is_same(one: ir.Value | None, other: ir.Value | None) -> bool:
    left, right = constant(one), constant(other)
    return left is not None and right is not None and np.array_equal(left, right)
