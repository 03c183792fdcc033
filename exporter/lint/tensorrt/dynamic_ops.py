"""Products whose activations are quantised by scales found at run time: TensorRT builds with constant scales alone.

The weights are integers already. Without the rounding of activations such a product is a float one with int8 weights,
which TensorRT takes, and which is nearer to what the model means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.lint.pairs import name_of
from exporter.lint.rule import Note
from exporter.passes.graph import constant, made_by, only_user

#: ONNX's operators, and those of com.microsoft that ONNX Runtime's optimizer makes of them.
DYNAMIC = frozenset(
    {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """A product that ends in float: its input in float, its stored weight, and the node whose output it gives."""

    operator: str
    given: ir.Value
    weight: ir.Value
    scale: ir.Value
    zero: ir.Value | None
    bias: ir.Value | None
    last: ir.Node


def check(model: ir.Model) -> Iterator[Note]:
    """Yield operators with scales found at run time."""
    for node in model.graph.all_nodes():
        if node.op_type in DYNAMIC:
            yield Note(
                node=name_of(node),
                what=f"TensorRT has no {node.op_type}; scales must be known when the plan is built",
                cure="for INT8 products quantise the float model with calibration data; --fix keeps the int8 weights",
            )


def keep_weights(model: ir.Model) -> int:
    """Write each such product as a float one that reads the dequantised weight; return how many."""
    count = 0
    for node in list(model.graph.all_nodes()):
        product = _read_product(node)
        if product is not None:
            count += _rewrite(model.graph, node, product)
    if count:
        remove_dead(model)
    return count


def _read_product(node: ir.Node) -> _Product | None:
    match node.op_type:
        case "MatMulInteger" | "ConvInteger":
            return _read_chain(node)
        case "DynamicQuantizeMatMul":
            given, weight, scale, zero, bias = _pad(node, 5)
        case "MatMulIntegerToFloat":
            integers, weight, _, scale, _, zero, bias = _pad(node, 7)
            given = _find_float(integers)
        case _:
            return None
    if given is None or weight is None or scale is None:
        return None
    return _Product(operator="MatMul", given=given, weight=weight, scale=scale, zero=zero, bias=bias, last=node)


def _read_chain(node: ir.Node) -> _Product | None:
    """Read ``Cast(MatMulInteger(integers, weight)) * (scale of the integers * scale of the weight)``."""
    integers, weight, _, zero = _pad(node, 4)
    given = _find_float(integers)
    cast = only_user(node.outputs[0], "Cast")
    last = only_user(cast.outputs[0], "Mul") if cast is not None else None
    if given is None or weight is None or cast is None or last is None:
        return None
    factors = made_by(last.inputs[1 if last.inputs[0] is cast.outputs[0] else 0], "Mul")
    scales = [value for value in factors.inputs if constant(value) is not None] if factors is not None else []
    if len(scales) != 1 or scales[0] is None:
        return None
    operator = node.op_type.removesuffix("Integer")
    return _Product(operator=operator, given=given, weight=weight, scale=scales[0], zero=zero, bias=None, last=last)


def _find_float(integers: ir.Value | None) -> ir.Value | None:
    """Return what the integers are rounded from, by scales found at run time."""
    quantise = made_by(integers, "DynamicQuantizeLinear")
    return quantise.inputs[0] if quantise is not None else None


def _pad(node: ir.Node, count: int) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * (count - len(node.inputs))]


def _rewrite(graph: ir.Graph, node: ir.Node, found: _Product) -> int:
    stored, scale = constant(found.weight), constant(found.scale)
    if stored is None or scale is None:
        return 0
    name, axis = name_of(node), 0 if found.operator == "Conv" else stored.ndim - 1
    if scale.size > 1 and stored.shape[axis] != scale.size:
        return 0
    # ONNX Runtime shapes the scales of a convolution to multiply its output: [outputs, 1, 1].
    shape = (scale.size,) if scale.size > 1 else ()
    inputs = [found.weight, add_constant(graph, f"{name}_scale", scale.reshape(shape))]
    if found.zero is not None:
        zero = constant(found.zero)
        if zero is None or zero.size not in (1, scale.size):
            return 0
        zeros = np.broadcast_to(zero.reshape(-1), (scale.size,)).reshape(shape)
        inputs.append(add_constant(graph, f"{name}_zero", np.ascontiguousarray(zeros)))
    dequantise = ir.node("DequantizeLinear", inputs, {"axis": axis} if shape else {}, name=f"{name}_dq")
    attributes = dict(node.attributes) if found.operator == "Conv" else {}
    product = ir.node(found.operator, [found.given, dequantise.outputs[0]], attributes, name=f"{name}_float")
    new = [dequantise, product]
    if found.bias is not None:
        new.append(ir.node("Add", [product.outputs[0], found.bias], name=f"{name}_bias"))
    for made in new:
        made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    found.last.graph.insert_before(found.last, new)
    take_over(found.last.outputs[0], new[-1].outputs[0])
    found.last.graph.remove(found.last, safe=True)
    return 1
