"""Constant weights that are quantised in the graph are stored as the integers they become.

A model trained in fake quantisation is traced with float weights behind QuantizeLinear; the integers say the same in a
quarter of the bytes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.graph import constant

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


def store_integers(model: ir.Model) -> int:
    """Compute each QuantizeLinear whose inputs are all constant; return how many."""
    changed = sum(_store(model, node) for node in list(model.graph) if node.op_type == "QuantizeLinear")
    if changed:
        remove_dead(model)
    return changed


def _store(model: ir.Model, node: ir.Node) -> int:
    arrays = [array for array in map(constant, node.inputs) if array is not None]
    if len(arrays) != 3 or len(node.inputs) != 3:
        return 0
    values, scale, zero = arrays
    if zero.dtype.name not in _LIMITS or scale.ndim > 1:
        return 0
    integers = _quantise(values, scale, zero, node.attributes.get_int("axis", 1))
    output = node.outputs[0]
    name = output.name or f"{node.name}_integers"
    output.name = f"{name}_computed"
    ir.convenience.replace_all_uses_with(output, add_constant(model.graph, name, integers))
    model.graph.remove(node, safe=True)
    return 1


def _quantise(
    values: NDArray[np.generic], scale: NDArray[np.generic], zero: NDArray[np.generic], axis: int
) -> NDArray[np.generic]:
    """Round half to even and saturate, as ONNX QuantizeLinear does."""
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero_wide = scale.reshape(shape), zero.reshape(shape)
    else:
        scale, zero_wide = scale.reshape(()), zero.reshape(())
    low, high = _LIMITS[zero.dtype.name]
    steps = np.rint(values.astype(np.float32) / scale.astype(np.float32)) + zero_wide.astype(np.float32)
    return np.clip(steps, low, high).astype(zero.dtype)
