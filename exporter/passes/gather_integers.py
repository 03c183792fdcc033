"""Tables of integers are looked up as integers, and only the rows that were found are scaled.

A quantised embedding is traced as a table behind DequantizeLinear that Gather reads: ONNX Runtime would scale all of it
at every run, 12 million values for a few hundred of MiniLM.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.passes.constant_rounding import is_symmetric
from exporter.passes.graph import constant, made_by

_CONTRIB = "com.microsoft"
# What GatherBlockQuantized takes and reads as DequantizeLinear does (ContribOperators.md of ONNX Runtime).
_BLOCK_TYPES = {ir.DataType.INT4, ir.DataType.UINT4}
_BLOCK_SIZES = {2**power for power in range(4, 16)}


def gather_integers(model: ir.Model) -> int:
    """Rewrite each Gather along axis 0 of a constant symmetric table with a scale a row or a block; return how many."""
    changed = sum(_rewrite(model, node) for node in list(model.graph) if node.op_type == "Gather")
    if changed:
        remove_dead(model)
    return changed


def _rewrite(model: ir.Model, node: ir.Node) -> int:
    scaled = made_by(node.inputs[0], "DequantizeLinear")
    if scaled is None or scaled.inputs[0] is None or node.attributes.get_int("axis", 0) != 0:
        return 0
    table, scale, kind = constant(scaled.inputs[0]), constant(scaled.inputs[1]), scaled.inputs[0].dtype
    if table is None or scale is None or table.ndim != 2 or not is_symmetric(scaled):
        return 0
    axis, block = scaled.attributes.get_int("axis", 1), scaled.attributes.get_int("block_size", 0)
    if block:
        takes = axis == 1 and kind in _BLOCK_TYPES and block in _BLOCK_SIZES
        return _gather_blocks(model, node, scaled, block) if takes else 0
    if scale.ndim == 1 and axis == 0 and kind == ir.DataType.INT8 and scale.dtype == np.float32:
        return _gather_rows(model, node, scaled)
    return 0


def _gather_rows(model: ir.Model, node: ir.Node, scaled: ir.Node) -> int:
    table, scale, indices = scaled.inputs[0], scaled.inputs[1], node.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    column = add_constant(model.graph, f"{scale.name}_column", scale.const_value.numpy()[:, None])
    rows = ir.node("Gather", [table, indices], {"axis": 0}, name=f"{node.name}_rows")
    steps = ir.node("Gather", [column, indices], {"axis": 0}, name=f"{node.name}_steps")
    cast = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}_cast")
    product = ir.node("Mul", [cast.outputs[0], steps.outputs[0]], name=f"{node.name}_scaled")
    return _replace(node, [rows, steps, cast, product])


def _gather_blocks(model: ir.Model, node: ir.Node, scaled: ir.Node, block: int) -> int:
    model.graph.opset_imports.setdefault(_CONTRIB, 1)
    attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": block}
    inputs = [scaled.inputs[0], node.inputs[1], scaled.inputs[1]]
    name = f"{node.name}_blocks"
    return _replace(node, [ir.node("GatherBlockQuantized", inputs, attributes, domain=_CONTRIB, name=name)])


def _replace(node: ir.Node, new: list[ir.Node]) -> int:
    assert node.graph is not None
    node.graph.insert_before(node, new)
    take_over(node.outputs[0], new[-1].outputs[0])
    return 1
