"""Weights of few levels as 4-bit integers behind DequantizeLinear, a scale for each block: what TensorRT reads.

In: a graph whose products multiply with floats of any width, and which weights have few levels. Out: the same graph;
the products stay float, a quarter of the bytes of FP16 is read. Two or three levels take 4 bits here as well: TensorRT
knows no narrower ones. Or which weights were rounded to blocks of 4 bits, for the linears of any graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.linears import Linear
from calibration.lower.edits import add_constant, remove_dead
from calibration.weights.blocks import Blocks, FloatArray
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
        block = _choose_block(weight) if weight is not None and weight.turned else None
        if weight is None or block is None:
            continue
        if stored not in made:
            scales = _repeat_scales(weight, block)
            made[stored] = _dequantise(model, node, stored, weight.found.levels.T, scales, axis=0, size=block)
        node.replace_input_with(1, made[stored])
    if made:
        remove_dead(model)
    return len(made)


def store_blocks(model: ir.Model, linears: Sequence[Linear], rounded: Mapping[str, Blocks]) -> None:
    """Store the weights of ``linears`` as they were ``rounded``, by node: 4 bits, symmetric; others stay.

    Args:
        model: Opset 21 or later. A weight may have been converted to FP16 or BF16, and its scales are then of that.
        linears: MatMul and Gemm of the graph, as it was before.
        rounded: Blocks that divide the inputs, so that no weight stands behind the last.
    """
    nodes = {node.name: node for node in model.graph}
    for linear in linears:
        blocks, node = rounded.get(linear.node), nodes.get(linear.node)
        stored = node.inputs[1] if node is not None else None
        if blocks is None or node is None or stored is None:
            continue
        levels, steps = blocks.levels.astype(np.int8) - blocks.format.middle, blocks.grid.steps
        if not linear.transposed:
            levels, steps = levels.T, steps.T
        axis = 1 if linear.transposed else 0
        node.replace_input_with(1, _dequantise(model, node, stored, levels, steps, axis=axis, size=blocks.format.size))
    remove_dead(model)


def choose_block_size(depth: int) -> int | None:
    """Return how many inputs share a scale where weights are rounded: 64, which few widths do not divide into."""
    return next((size for size in (64, 32) if depth % size == 0), None)


def _choose_block(weight: FewLevels) -> int | None:
    """Return how many weights share a scale, as many as can; None where no block fits."""
    width = weight.found.levels.shape[1] // weight.found.scales.shape[1]
    return next((block for block in _BLOCKS if width % block == 0), None)


def _list_names(weight: str) -> tuple[str, ...]:
    return weight, f"{weight}_float16", f"{weight}_bfloat16"


def _repeat_scales(weight: FewLevels, block: int) -> FloatArray:
    """Return a scale for each block of inputs [blocks, outputs]."""
    levels, scales = weight.found.levels.T, weight.found.scales.T
    repeated: FloatArray = np.repeat(scales, levels.shape[0] // block // scales.shape[0], axis=0)
    return repeated


def _dequantise(
    model: ir.Model,
    before: ir.Node,
    stored: ir.Value,
    levels: NDArray[np.generic],
    steps: FloatArray,
    *,
    axis: int,
    size: int,
) -> ir.Value:
    """Insert ``levels`` times ``steps``, a step for each ``size`` levels along ``axis``, in place of ``stored``."""
    kind = stored.dtype or ir.DataType.FLOAT
    integers = add_constant(model.graph, f"{stored.name}_int4", levels.astype(ir.DataType.INT4.numpy()))
    scales = add_constant(model.graph, f"{stored.name}_int4_scale", steps.astype(kind.numpy()))
    attributes = {"axis": axis, "block_size": size}
    node = ir.node("DequantizeLinear", [integers, scales], attributes, name=f"{stored.name}_int4_dq")
    output = node.outputs[0]
    output.name, output.shape, output.type = f"{stored.name}_int4_floats", stored.shape, ir.TensorType(kind)
    model.graph.insert_before(before, node)
    return output
