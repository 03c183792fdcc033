"""Weights of few levels as 4-bit integers behind DequantizeLinear, a scale for each block: what TensorRT reads.

In: a graph whose products multiply with floats of any width, and which weights have few levels. Out: the same graph;
the products stay float, a quarter of the bytes of FP16 is read. Two or three levels take 4 bits here as well: TensorRT
knows no narrower ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.passes.graph import constant
from exporter.passes.packed_weights import FewLevels

#: The first operator set with 4-bit integers and scales for blocks.
FIRST_OPSET = 21
# TensorRT-RTX 1.7 builds them all; the larger the fewer scales.
_BLOCKS = (128, 64, 32)


def store_int4(model: ir.Model, weights: Mapping[str, FewLevels]) -> int:
    """Store each of ``weights`` that a MatMul multiplies with in 4 bits, scales in its own type; return how many.

    Args:
        model: Opset 21 or later. A weight may have been converted to FP16 or BF16, and renamed after that type.
        weights: As :func:`exporter.passes.packed_weights.find_few_levels` gave them.
    """
    made: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        stored = node.inputs[1] if node.op_type == "MatMul" else None
        if stored is None or constant(stored) is None:
            continue
        weight = next((few for name, few in weights.items() if stored.name in _list_names(name)), None)
        if weight is None or not weight.turned or _choose_block(weight) is None:
            continue
        if stored not in made:
            made[stored] = _dequantise(model, node, stored, weight)
        node.replace_input_with(1, made[stored])
    if made:
        remove_dead(model)
    return len(made)


def _choose_block(weight: FewLevels) -> int | None:
    """Return how many weights share a scale, as many as can; None where no block fits."""
    width = weight.found.levels.shape[1] // weight.found.scales.shape[1]
    return next((block for block in _BLOCKS if width % block == 0), None)


def _list_names(weight: str) -> tuple[str, ...]:
    return weight, f"{weight}_float16", f"{weight}_bfloat16"


def _dequantise(model: ir.Model, before: ir.Node, stored: ir.Value, weight: FewLevels) -> ir.Value:
    levels, scales = weight.found.levels.T, weight.found.scales.T
    block = _choose_block(weight)
    assert block is not None, "others are left alone"
    blocks = np.repeat(scales, levels.shape[0] // block // scales.shape[0], axis=0)
    kind = stored.dtype or ir.DataType.FLOAT
    integers = add_constant(model.graph, f"{stored.name}_int4", levels.astype(ir.DataType.INT4.numpy()))
    steps = add_constant(model.graph, f"{stored.name}_int4_scale", blocks.astype(kind.numpy()))
    attributes = {"axis": 0, "block_size": block}
    node = ir.node("DequantizeLinear", [integers, steps], attributes, name=f"{stored.name}_int4_dq")
    output = node.outputs[0]
    output.name, output.shape, output.type = f"{stored.name}_int4_floats", stored.shape, ir.TensorType(kind)
    model.graph.insert_before(before, node)
    return output
