"""The table of a decoder's tokens, and the head that often is the same matrix, in blocks of few bits.

In: a float graph and a form. Out: the same graph with GatherBlockQuantized for Gather and MatMulNBits for the head.
Both operators read one packed tensor: [rows, blocks, bytes] for the product, seen as [rows, bytes] by the look-up; the
view is made once, when ONNX Runtime loads the model. Layouts: ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, take_over
from calibration.lower.onnxruntime.weight_only import store_blocks
from calibration.weights.blocks import Blocks, FloatArray
from exporter.passes.graph import constant
from runtimes.generation.cache_spec import IDS


def find_tables(model: ir.Model) -> tuple[ir.Node, ...]:
    """Return the look-ups of rows of a float table by token."""
    return tuple(node for node in model.graph if _looks_up_tokens(node))


def read_table(node: ir.Node) -> FloatArray:
    """Return the table of a look-up, float32 [rows, width]."""
    return np.asarray(constant(node.inputs[0]), np.float32)


def place_table(model: ir.Model, node: ir.Node, name: str, blocks: Blocks) -> None:
    """Let a look-up read ``blocks``, stored as the weight ``name``; the float node is left to the caller."""
    graph, layout = model.graph, blocks.format
    weight, steps, zeros = store_blocks(graph, name, blocks)
    shape = add_constant(graph, f"{name}_flat", np.array([0, -1], np.int64))
    flat = ir.node("Reshape", [weight, shape], name=f"{node.name}_flat")
    attributes = {"bits": layout.bits, "block_size": layout.size, "gather_axis": 0, "quantize_axis": 1}
    inputs = [flat.outputs[0], node.inputs[1], steps, zeros]
    rows = ir.node("GatherBlockQuantized", inputs, attributes, domain="com.microsoft", name=f"{node.name}_rows")
    new = [flat, rows]
    if blocks.depth % layout.size:
        new.append(_cut(graph, node, rows.outputs[0], blocks.depth))
    graph.insert_before(node, new)
    take_over(node.outputs[0], new[-1].outputs[0])


def _looks_up_tokens(node: ir.Node) -> bool:
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return False
    indices, table = node.inputs[1], constant(node.inputs[0])
    if indices is None or indices.name != IDS or not indices.is_graph_input():
        return False
    return table is not None and table.ndim == 2 and table.dtype == np.float32


def _cut(graph: ir.Graph, node: ir.Node, rows: ir.Value, width: int) -> ir.Node:
    """Drop what fills up the last block."""
    bounds = [add_constant(graph, f"{node.name}_{name}", np.array([at], np.int64)) for name, at in _bounds(width)]
    return ir.node("Slice", [rows, *bounds], name=f"{node.name}_cut")


def _bounds(width: int) -> tuple[tuple[str, int], ...]:
    return ("start", 0), ("end", width), ("axis", -1)
