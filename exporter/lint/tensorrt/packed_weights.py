"""MatMulNBits packs 4- or 8-bit weights in blocks of its own: an operator of ONNX Runtime, and of nobody else.

TensorRT takes weights as int8 with a scale for each output, whose steps are finer than those of 4 bits in a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.inspecting.blockwise_weights import is_packed, unpack_weight
from exporter.lint.pairs import name_of
from exporter.lint.requantise import quantise_weight
from exporter.lint.rule import Note


def check(model: ir.Model) -> Iterator[Note]:
    """Yield MatMulNBits."""
    for node in model.graph.all_nodes():
        if is_packed(node):
            yield Note(
                node=name_of(node),
                what="its weight is packed in a way only ONNX Runtime reads",
                cure="quantise to int8, or to symmetric int4 in Q/DQ form (ONNX Runtime: is_symmetric=True, "
                "quant_format=QuantFormat.QDQ)",
            )


def store_int8(model: ir.Model) -> int:
    """Store each such weight as int8 before a plain MatMul, where it is constant; return how many."""
    changed = sum(_rewrite(model.graph, node) for node in list(model.graph.all_nodes()) if is_packed(node))
    if changed:
        remove_dead(model)
    return changed


def _rewrite(graph: ir.Graph, node: ir.Node) -> int:
    inputs: list[ir.Value | None] = list(node.inputs)
    given, _, scale, _, _, bias = inputs + [None] * (6 - len(inputs))
    weight = unpack_weight(node)
    if weight is None or given is None or scale is None:
        return 0
    name = name_of(node)
    integers, scales = quantise_weight(weight.T, 1, scale.dtype.numpy())
    stored = add_constant(graph, f"{name}_int8", np.ascontiguousarray(integers))
    inputs = [stored, add_constant(graph, f"{name}_scale", scales)]
    dequantise = ir.node("DequantizeLinear", inputs, {"axis": 1}, name=f"{name}_dq")
    new = [dequantise, ir.node("MatMul", [given, dequantise.outputs[0]], name=f"{name}_float")]
    if bias is not None:
        new.append(ir.node("Add", [new[-1].outputs[0], bias], name=f"{name}_bias"))
    for made in new:
        made.outputs[0].type = ir.TensorType(scale.dtype)
    node.graph.insert_before(node, new)
    take_over(node.outputs[0], new[-1].outputs[0])
    node.graph.remove(node, safe=True)
    return 1
