"""Weights of 4 bits that a model was trained to become floats again, for as long as candidates are made of it.

A linear with a weight of its own can run in any arithmetic; :mod:`exporter.passes.packed_weights` finds the 4 bits
again and stores them, whichever was chosen. Left behind DequantizeLinear, ONNX Runtime makes a MatMulNBits of it, which
is no faster than float on a CPU.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.graph import constant

_PRODUCTS = {"MatMul", "Gemm"}


def spell_out_int4(model: ir.Model) -> int:
    """Compute each DequantizeLinear of constant 4-bit integers that products alone read; return how many."""
    changed = sum(_spell_out(model, node) for node in list(model.graph) if node.op_type == "DequantizeLinear")
    if changed:
        remove_dead(model)
    return changed


def _spell_out(model: ir.Model, node: ir.Node) -> int:
    stored, output = node.inputs[0], node.outputs[0]
    if stored is None or stored.dtype != ir.DataType.INT4 or any(value is None for value in node.inputs):
        return 0
    if output.is_graph_output():
        return 0
    arrays = [array for array in map(constant, node.inputs) if array is not None]
    uses = list(output.uses())
    is_weight = bool(uses) and all(use.node.op_type in _PRODUCTS and use.idx == 1 for use in uses)
    if len(arrays) != len(node.inputs) or (len(arrays) == 3 and arrays[2].any()) or not is_weight:
        return 0
    floats = arrays[0].astype(np.float32) * _widen(arrays[1].astype(np.float32), node, arrays[0].shape)
    weight = add_constant(model.graph, f"{stored.name}_floats", floats.astype(np.float32))
    ir.convenience.replace_all_uses_with(output, weight)
    model.graph.remove(node, safe=True)
    return 1


def _widen(scale: NDArray[np.float32], node: ir.Node, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the scales as they broadcast against ``shape``: one, one for each place of an axis, or for each block."""
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if block:
        return np.repeat(scale, block, axis=axis).take(range(shape[axis]), axis=axis)
    if scale.ndim == 1:
        return scale.reshape([-1 if place == axis % len(shape) else 1 for place in range(len(shape))])
    return scale
