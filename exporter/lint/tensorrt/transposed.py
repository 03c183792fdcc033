"""Weights are quantised in the layout their operator reads, not before a Transpose."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.pairs import Quantiser, as_quantiser, describe, is_sound, name_of, read_axis
from exporter.lint.rule import Note
from exporter.passes.graph import constant, permutation


def check(model: ir.Model) -> Iterator[Note]:
    """Yield constant integers that are dequantised and then turned."""
    for quantiser, turn in _find(model):
        yield Note(
            node=quantiser.name,
            what=f"the weight is dequantised before {describe(turn)}, and its scales lie along the old axis",
            cure="store the weight turned, with its scales along the outputs",
        )


def turn(model: ir.Model) -> int:
    """Store each such weight turned, and move the axis along; return how many."""
    found = list(_find(model))
    for quantiser, transpose in found:
        node, stored = quantiser.node, constant(quantiser.node.inputs[0])
        if stored is None:
            continue
        order = permutation(transpose) or tuple(reversed(range(stored.ndim)))
        name = f"{transpose.outputs[0].name}_stored"
        values = add_constant(model.graph, name, np.ascontiguousarray(stored.transpose(order)))
        axis = {"axis": order.index(read_axis(node, stored.ndim))} if quantiser.per_channel else {}
        new = ir.node("DequantizeLinear", [values, *node.inputs[1:]], axis, name=f"{name_of(node)}_turned")
        new.outputs[0].name, new.outputs[0].type = f"{name}_dq", node.outputs[0].type
        transpose.graph.insert_before(transpose, new)
        ir.convenience.replace_all_uses_with(transpose.outputs[0], new.outputs[0])
        transpose.graph.remove(transpose, safe=True)
    if found:
        remove_dead(model)
    return len(found)


def _find(model: ir.Model) -> Iterator[tuple[Quantiser, ir.Node]]:
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Transpose" or node.inputs[0] is None or node.outputs[0].is_graph_output():
            continue
        quantiser = as_quantiser(node.inputs[0].producer())
        if quantiser is None or quantiser.node.op_type != "DequantizeLinear" or not is_sound(quantiser):
            continue
        if constant(quantiser.node.inputs[0]) is not None:
            yield quantiser, node
