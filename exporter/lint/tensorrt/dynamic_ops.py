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
from exporter.lint.pairs import FIRST_AXIS, name_of
from exporter.lint.requantise import join_scales
from exporter.lint.rule import Note
from exporter.passes.graph import constant, made_by, only_user, opset

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
            count += _rewrite(model, node, product)
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
            integers, weight, step, scale, offset, zero, bias = _pad(node, 7)
            given = _find_float(integers, step, offset)
        case _:
            return None
    if given is None or weight is None or scale is None:
        return None
    return _Product(operator="MatMul", given=given, weight=weight, scale=scale, zero=zero, bias=bias, last=node)


def _read_chain(node: ir.Node) -> _Product | None:
    """Read ``Cast(MatMulInteger(integers, weight, zero point)) * (scale of the integers * scale of the weight)``."""
    integers, weight, offset, zero = _pad(node, 4)
    cast = only_user(node.outputs[0], "Cast")
    last = only_user(cast.outputs[0], "Mul") if cast is not None else None
    if weight is None or cast is None or last is None:
        return None
    factors = made_by(last.inputs[1 if last.inputs[0] is cast.outputs[0] else 0], "Mul")
    for step, scale in (factors.inputs, reversed(factors.inputs)) if factors is not None else ():
        given = _find_float(integers, step, offset)
        if given is not None and scale is not None:
            operator = node.op_type.removesuffix("Integer")
            return _Product(operator=operator, given=given, weight=weight, scale=scale, zero=zero, bias=None, last=last)
    return None


def _find_float(integers: ir.Value | None, step: ir.Value | None, offset: ir.Value | None) -> ir.Value | None:
    """Return what the integers are rounded from, where their own scale and zero point, found at run time, undo that."""
    quantise = made_by(integers, "DynamicQuantizeLinear")
    if quantise is None or step is not quantise.outputs[1] or offset is not quantise.outputs[2]:
        return None
    return quantise.inputs[0]


def _pad(node: ir.Node, count: int) -> list[ir.Value | None]:
    return [*node.inputs, *[None] * (count - len(node.inputs))]


def _rewrite(model: ir.Model, node: ir.Node, found: _Product) -> int:
    stored, scale, zero = constant(found.weight), constant(found.scale), constant(found.zero)
    if stored is None or scale is None or (found.zero is not None and zero is None):
        return 0
    name, axis = name_of(node), 0 if found.operator == "Conv" else stored.ndim - 1
    zero = np.zeros(1, stored.dtype) if zero is None else zero
    if scale.size not in (1, stored.shape[axis]) or zero.size not in (1, scale.size):
        return 0
    if scale.size > 1 and opset(model) < FIRST_AXIS:
        stored, scale = join_scales(stored, scale, zero, axis)
        zero = np.zeros(1, np.int8)
    # ONNX Runtime shapes the scales of a convolution to multiply its output: [outputs, 1, 1].
    shape = (scale.size,) if scale.size > 1 else ()
    zeros = np.ascontiguousarray(np.broadcast_to(zero.reshape(-1), (scale.size,)).reshape(shape))
    constants = {"weight": stored, "scale": scale.reshape(shape), "zero": zeros}
    inputs = [add_constant(model.graph, f"{name}_{word}", array) for word, array in constants.items()]
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
