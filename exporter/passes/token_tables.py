"""A look-up by token in the integers of a head that has a scale for every word: one matrix, in the head's layout.

In: a decoder's graph, its head and the look-ups in the same matrix. Out: the graph edited. The head's int8 weight lies
as its product reads it, [width, words]: a look-up takes columns and turns them, which is next to nothing for what a
step reads. A head whose input is divided by factors has them in its weight, and the look-up divides by them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead, take_over
from calibration.lower.onnxruntime.dynamic import store_weight
from calibration.lower.onnxruntime.sites import Site
from calibration.weights.blocks import FloatArray


def share_columns(model: ir.Model, head: Site, tables: Sequence[ir.Node], factors: FloatArray, *, bits: int) -> None:
    """Let each Gather of ``tables`` read what :func:`calibration.lower.onnxruntime.per_token.lower_per_token` stores.

    Args:
        model: A float graph.
        head: The linear, its weight [K, words] multiplied with ``factors`` already.
        tables: Look-ups of rows of the same matrix, turned, without the factors.
        factors: float32 [K].
        bits: Of the head's integers.
    """
    graph = model.graph
    weight, scale, _ = store_weight(graph, head, bits)
    last = add_constant(graph, "token_axis", np.array([-1], np.int64))
    undone = add_constant(graph, f"{head.linear.weight}_undone", np.reciprocal(factors).astype(np.float32))
    for node in tables:
        columns = ir.node("Gather", [weight, node.inputs[1]], {"axis": 1}, name=f"{node.name}_columns")
        rows = ir.node("Transpose", [columns.outputs[0]], {"perm": [1, 2, 0]}, name=f"{node.name}_rows")
        floats = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}_float")
        steps = ir.node("Gather", [scale, node.inputs[1]], {"axis": 0}, name=f"{node.name}_steps")
        wide = ir.node("Unsqueeze", [steps.outputs[0], last], name=f"{node.name}_wide")
        scaled = ir.node("Mul", [floats.outputs[0], wide.outputs[0]], name=f"{node.name}_scaled")
        divided = ir.node("Mul", [scaled.outputs[0], undone], name=f"{node.name}_int8")
        graph.insert_before(node, [columns, rows, floats, steps, wide, scaled, divided])
        take_over(node.outputs[0], divided.outputs[0])
    remove_dead(model)
