"""Operators that compute on integers themselves, with constant scales: TensorRT wants Q/DQ around float ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead, take_over
from exporter.lint.pairs import FIRST_AXIS, find_output_axis, name_of
from exporter.lint.requantise import join_scales
from exporter.lint.rule import Note
from exporter.passes.graph import constant, opset


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How an integer operator lists its inputs.

    Attributes:
        float_op: The operator it stands for.
        values: Where each (value, scale, zero point) begins.
        output: Where the (scale, zero point) of the output stand.
        bias: Where an int32 bias stands, in steps of the first two scales multiplied.
    """

    float_op: str
    values: tuple[int, ...]
    output: int
    bias: int | None = None


# ONNX's operators, and those of com.microsoft that ONNX Runtime's QOperator format writes.
_FORMS = {
    "QLinearMatMul": _Form(float_op="MatMul", values=(0, 3), output=6),
    "QLinearConv": _Form(float_op="Conv", values=(0, 3), output=6, bias=8),
    "QGemm": _Form(float_op="Gemm", values=(0, 3), output=7, bias=6),
    "QLinearAdd": _Form(float_op="Add", values=(0, 3), output=6),
    "QLinearMul": _Form(float_op="Mul", values=(0, 3), output=6),
    "QLinearSigmoid": _Form(float_op="Sigmoid", values=(0,), output=3),
    "QLinearLeakyRelu": _Form(float_op="LeakyRelu", values=(0,), output=3),
    "QLinearGlobalAveragePool": _Form(float_op="GlobalAveragePool", values=(0,), output=3),
    "QLinearAveragePool": _Form(float_op="AveragePool", values=(0,), output=3),
}


def check(model: ir.Model) -> Iterator[Note]:
    """Yield integer operators."""
    for node in model.graph.all_nodes():
        if is_integer(node):
            yield Note(
                node=name_of(node),
                what=f"TensorRT has no {node.op_type}",
                cure="write it as DequantizeLinear, the float operator, QuantizeLinear (ONNX Runtime: QuantFormat.QDQ)",
            )


def write_pairs(model: ir.Model) -> int:
    """Write them as float operators between pairs, where they are known; return how many."""
    changed = sum(_rewrite(model, node) for node in list(model.graph.all_nodes()) if is_integer(node))
    if changed:
        remove_dead(model)
    return changed


def is_integer(node: ir.Node) -> bool:
    """Whether the operator computes on integers."""
    return node.op_type.startswith("QLinear") or node.op_type == "QGemm"


def _find_form(node: ir.Node) -> _Form | None:
    if node.op_type == "QLinearConcat":  # any number of inputs, after the output's scale and zero point
        return _Form(float_op="Concat", values=tuple(range(2, len(node.inputs), 3)), output=0)
    return _FORMS.get(node.op_type)


def _rewrite(model: ir.Model, node: ir.Node) -> int:
    form = _find_form(node)
    if form is None or node.attributes.get_int("channels_last", 0):
        return 0
    scale, zero = _input(node, form.output), _input(node, form.output + 1)
    if scale is not None and zero is None:
        return 0  # the type of its integers is not written down
    zeros = [_input(node, place + 2) for place in form.values]
    if any(value is not None and constant(value) is None for value in zeros):
        return 0
    bias = _input(node, form.bias) if form.bias is not None else None
    inputs = [_input(node, place) for place in form.values]
    if bias is not None:
        floats = _read_bias(node, bias)
        if floats is None:
            return 0
        inputs.append(add_constant(model.graph, f"{name_of(node)}_bias", floats))
    attributes = {name: value for name, value in node.attributes.items() if name != "channels_last"}
    product = ir.node(form.float_op, inputs, attributes, name=f"{name_of(node)}_float")
    product.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    new = [*_dequantise_inputs(model, node, form, product), product]
    if scale is not None:
        new.append(ir.node("QuantizeLinear", [product.outputs[0], scale, zero], name=f"{name_of(node)}_q"))
    node.graph.insert_before(node, new)
    take_over(node.outputs[0], new[-1].outputs[0])
    node.graph.remove(node, safe=True)
    return 1


def _dequantise_inputs(model: ir.Model, node: ir.Node, form: _Form, product: ir.Node) -> Iterator[ir.Node]:
    for index, place in enumerate(form.values):
        triple = [_input(node, place), _input(node, place + 1), _input(node, place + 2)]
        stored, scale = constant(triple[0]), constant(triple[1])
        axis = find_output_axis(product, index, stored.ndim) if stored is not None else None
        attributes: dict[str, int] = {}
        if stored is not None and scale is not None and scale.size > 1 and axis is not None:
            triple, attributes = _spread_constants(model, node, triple, stored, scale, axis)
        found = ir.node("DequantizeLinear", triple, attributes, name=f"{name_of(node)}_dq{index}")
        found.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        product.replace_input_with(index, found.outputs[0])
        yield found


def _spread_constants(
    model: ir.Model, node: ir.Node, triple: Sequence[ir.Value | None], stored: NDArray[np.generic],
    scale: NDArray[np.generic], axis: int,
) -> tuple[list[ir.Value | None], dict[str, int]]:  # fmt: skip
    """Return what DequantizeLinear reads of a weight with a scale for each output: as many zero points, and the axis.

    Before it had an axis, it knew one scale a tensor.
    """
    zero, name = constant(triple[2]), name_of(node)
    zero = np.zeros(1, stored.dtype) if zero is None else zero
    if opset(model) >= FIRST_AXIS:
        zeros = np.ascontiguousarray(np.broadcast_to(zero.reshape(-1), scale.shape))
        return [*triple[:2], add_constant(model.graph, f"{name}_zeros", zeros)], {"axis": axis}
    joined = (*join_scales(stored, scale, zero, axis), np.zeros((), np.int8))
    words = ("weight", "scale", "zero")
    return [add_constant(model.graph, f"{name}_{word}", array) for word, array in zip(words, joined, strict=True)], {}


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _read_bias(node: ir.Node, bias: ir.Value) -> NDArray[np.float32] | None:
    """An int32 bias counts in steps of both scales multiplied, and of Gemm's factor."""
    integers, left, right = constant(bias), constant(_input(node, 1)), constant(_input(node, 4))
    if integers is None or left is None or right is None:
        return None
    step = left.reshape(-1)[0].astype(np.float64) * right.reshape(-1).astype(np.float64)
    factor = node.attributes.get_float("alpha", 1.0)
    floats: NDArray[np.float32] = (integers.astype(np.float64) * step * factor).astype(np.float32)
    return floats
