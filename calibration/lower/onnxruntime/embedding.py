"""Embedding tables in int8, one scale a row: a quarter of the bytes, and rows keep their own range.

Half of a small encoder is its word embedding. Reading a row costs a gather of integers, one of scales, and a product.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from calibration.lower.edits import add_constant, take_over
from calibration.quantise import quantise_weight

# Smaller tables (token types) are not worth two more nodes.
SMALLEST_TABLE = 64 * 1024


def lower_embeddings(model: ir.Model) -> int:
    """Edit ``model`` in place: constant float tables read by Gather along axis 0 become int8; return how many reads."""
    gathers = [node for node in model.graph if _reads_table(node)]
    for node in gathers:
        _lower(model, node)
    RemoveUnusedNodesPass()(model)
    return len(gathers)


def _reads_table(node: ir.Node) -> bool:
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return False
    table = node.inputs[0]
    if table is None or table.const_value is None or table.is_graph_input() or table.dtype != ir.DataType.FLOAT:
        return False
    # A table that something else reads too (tied to the output layer) would be stored twice.
    tied = any(use.node.op_type != "Gather" for use in table.uses())
    return len(table.const_value.shape) == 2 and table.const_value.size >= SMALLEST_TABLE and not tied


def _lower(model: ir.Model, node: ir.Node) -> None:
    table, indices = node.inputs[0], node.inputs[1]
    if table is None or table.const_value is None:
        return
    values, scale, _ = quantise_weight(table.const_value.numpy(), axis=0)
    stored = add_constant(model.graph, f"{table.name}_q8", values)
    scales = add_constant(model.graph, f"{table.name}_q8_scale", scale[:, None].astype(np.float32))
    rows = ir.node("Gather", [stored, indices], {"axis": 0}, name=f"{node.name}_rows")
    steps = ir.node("Gather", [scales, indices], {"axis": 0}, name=f"{node.name}_steps")
    cast = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}_cast")
    product = ir.node("Mul", [cast.outputs[0], steps.outputs[0]], name=f"{node.name}_int8")
    node.graph.insert_before(node, [rows, steps, cast, product])
    take_over(node.outputs[0], product.outputs[0])
