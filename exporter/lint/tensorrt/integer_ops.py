"""Operators that compute on integers themselves: TensorRT wants Q/DQ around float ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, take_over
from exporter.lint.pairs import name_of
from exporter.lint.rule import Note
from exporter.passes.graph import constant, remove_dead

_REWRITTEN = frozenset({"QLinearMatMul", "QLinearConv"})
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"})
_CURE_DYNAMIC = "dynamic scales are not known when the plan is built: quantise the float model with calibration data"
_CURE_STATIC = "write it as DequantizeLinear, the float operator, QuantizeLinear (ONNX Runtime: QuantFormat.QDQ)"


def check(model: ir.Model) -> Iterator[Note]:
    """Yield integer operators."""
    for node in model.graph:
        if is_integer(node):
            cure = _CURE_DYNAMIC if node.op_type in _DYNAMIC else _CURE_STATIC
            yield Note(node=name_of(node), what=f"TensorRT has no {node.op_type}", cure=cure)


def write_pairs(model: ir.Model) -> int:
    """Write QLinearMatMul and QLinearConv as float operators between pairs; return how many."""
    changed = sum(_rewrite(model.graph, node) for node in list(model.graph) if node.op_type in _REWRITTEN)
    if changed:
        remove_dead(model)
    return changed


def is_integer(node: ir.Node) -> bool:
    """Whether the operator computes on integers."""
    return node.op_type.startswith("QLinear") or node.op_type in _DYNAMIC | {"MatMulIntegerToFloat", "QGemm"}


def _rewrite(graph: ir.Graph, node: ir.Node) -> int:
    """QLinearMatMul and QLinearConv: (a, scale, zero, b, scale, zero, y scale, y zero[, bias])."""
    left, left_scale, left_zero, right, right_scale, right_zero, scale, zero, *rest = node.inputs
    name = name_of(node)
    axis = 0 if node.op_type == "QLinearConv" else 1
    first = ir.node("DequantizeLinear", [left, left_scale, left_zero], name=f"{name}_left_dq")
    second = ir.node("DequantizeLinear", [right, right_scale, right_zero], {"axis": axis}, name=f"{name}_right_dq")
    inputs = [first.outputs[0], second.outputs[0]]
    if rest and rest[0] is not None:
        bias = _read_bias(rest[0], left_scale, right_scale)
        if bias is None:
            return 0
        inputs.append(add_constant(graph, f"{name}_bias", bias))
    kind = node.op_type.removeprefix("QLinear")
    product = ir.node(kind, inputs, dict(node.attributes), name=f"{name}_float")
    last = ir.node("QuantizeLinear", [product.outputs[0], scale, zero], name=f"{name}_q")
    for given in (first, second, product):
        given.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, [first, second, product, last])
    take_over(node.outputs[0], last.outputs[0])
    graph.remove(node, safe=True)
    return 1


def _read_bias(bias: ir.Value, left_scale: ir.Value | None, right_scale: ir.Value | None) -> NDArray[np.float32] | None:
    """An int32 bias counts in steps of both scales multiplied."""
    integers, left, right = constant(bias), constant(left_scale), constant(right_scale)
    if integers is None or left is None or right is None:
        return None
    floats: NDArray[np.float32] = (
        integers.astype(np.float64) * (left.reshape(()).astype(np.float64) * right.astype(np.float64))
    ).astype(np.float32)
    return floats
