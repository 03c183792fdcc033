"""Q/DQ around the inputs and weights of linear layers, and around nothing else.

One QuantizeLinear and one DequantizeLinear for each activation, however many linears read it (query, key and value).
Weights are int8 behind a DequantizeLinear, in the layout they had, with one scale an output channel. No output is
quantised: that takes quantise-dequantise kernels after each product and costs accuracy. Biases stay float, because
TensorRT takes no int32 ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from calibration.linears import Linear
from calibration.lower.edits import add_constant, take_over
from calibration.lower.tensorrt.scales import round_up
from calibration.plan import ActivationGroup, LinearPlan, Plan, quantise_planned_weight
from calibration.quantise import FloatArray, make_grid
from runtimes.errors import UnsupportedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """The nodes that read int8 now, and a bound on the magnitude of each value that smoothing made."""

    nodes: tuple[str, ...]
    smoothed: Mapping[str, float]


def quantise_linears(
    model: ir.Model, linears: Sequence[Linear], plan: Plan, kind: ir.DataType, magnitudes: Mapping[str, float]
) -> Quantised:
    """Edit ``model`` in place: the ``linears`` that ``plan`` covers read int8.

    Args:
        model: A float32 model, each weight an initializer.
        linears: MatMul, Gemm and Conv layers.
        plan: Symmetric int8, made for this model.
        kind: The type that will hold the scales; they are float32 here, with values it can hold.
        magnitudes: Largest magnitude of each float value over the calibration data.

    Raises:
        UnsupportedModel: the plan is not symmetric, or names a node that the graph lacks.
    """
    wanted = {linear.node: linear for linear in linears}
    entries = {entry.node: entry for entry in plan.linears}
    nodes = {node.name or "": node for node in model.graph}
    done: list[str] = []
    smoothed: dict[str, float] = {}
    for group in plan.groups:
        readers = [wanted[name] for name in group.linears if name in wanted]
        if not readers:
            continue
        _require_symmetric(group, readers, nodes)
        first = nodes[readers[0].node]
        value = _smooth(model.graph, group, readers[0], first)
        if group.smooth is not None:
            smoothed[value.name or ""] = _bound_smoothed(group, group.smooth, magnitudes)
        activation = _quantise_activation(model.graph, group, value, first, kind)
        for linear in readers:
            node, entry = nodes[linear.node], entries[linear.node]
            weight = _quantise_weight(model.graph, node, linear, _round_plan(entry, kind), group.smooth)
            node.replace_input_with(0, activation)
            node.replace_input_with(1, weight)
            _correct_bias(model.graph, node, linear, entry.bias_delta)
            done.append(linear.node)
    return Quantised(nodes=tuple(done), smoothed=smoothed)


def insert_pair(graph: ir.Graph, value: ir.Value, scale: ir.Value, zero: ir.Value, before: ir.Node) -> ir.Value:
    """Insert QuantizeLinear and DequantizeLinear of ``value`` before a node; return what the second one gives."""
    quantise = ir.node("QuantizeLinear", [value, scale, zero], name=f"{before.name}_q")
    dequantise = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], name=f"{before.name}_dq")
    describe(quantise.outputs[0], value, ir.DataType.INT8)
    describe(dequantise.outputs[0], value, ir.DataType.FLOAT)
    graph.insert_before(before, [quantise, dequantise])
    return dequantise.outputs[0]


def describe(value: ir.Value, like: ir.Value, kind: ir.DataType) -> None:
    """Give ``value`` the shape of ``like`` and a type, and a name made from it: types are decided value by value."""
    value.shape, value.type = like.shape, ir.TensorType(kind)
    producer = value.producer()
    value.name = f"{producer.name if producer is not None else like.name}_out"


def _require_symmetric(group: ActivationGroup, readers: Sequence[Linear], nodes: Mapping[str, ir.Node]) -> None:
    missing = [linear.node for linear in readers if linear.node not in nodes]
    if missing:
        raise UnsupportedModel("the plan names a node the graph lacks", where=missing[0], cure="plan it again")
    if group.dtype != "int8" or group.zero_point != 0:
        what = f"the plan has {group.dtype} around {group.zero_point}; TensorRT takes int8 around 0"
        raise UnsupportedModel(what, where=group.tensor, cure="plan it with symmetric=True")


def _smooth(graph: ir.Graph, group: ActivationGroup, linear: Linear, first: ir.Node) -> ir.Value:
    """Return what the linears read, divided by the group's smoothing if it has one."""
    value = first.inputs[0]
    if value is None:
        raise UnsupportedModel("the linear reads nothing", where=first.name, cure="plan it again")
    if group.smooth is None:
        return value
    vector = _place_channels((1 / group.smooth).astype(np.float32), linear, first)
    product = ir.node(
        "Mul", [value, add_constant(graph, f"{group.tensor}_smooth", vector)], name=f"{first.name}_smooth"
    )
    describe(product.outputs[0], value, ir.DataType.FLOAT)
    graph.insert_before(first, product)
    return product.outputs[0]


def _bound_smoothed(group: ActivationGroup, smooth: FloatArray, magnitudes: Mapping[str, float]) -> float:
    """Return what a smoothed value stays below. Not the end of its integers: what clipping cuts off comes by here too.

    An unmeasured tensor is listed as such; the range of its integers is all that is known of it.
    """
    if group.tensor not in magnitudes:
        return float(group.scale) * make_grid(group.bits, symmetric=True).high
    return magnitudes[group.tensor] * float((1 / smooth).max())


def _quantise_activation(
    graph: ir.Graph, group: ActivationGroup, value: ir.Value, first: ir.Node, kind: ir.DataType
) -> ir.Value:
    scale = add_constant(graph, f"{group.tensor}_scale", round_up(group.scale, kind))
    zero = add_constant(graph, f"{group.tensor}_zero", np.zeros((), np.int8))
    return insert_pair(graph, value, scale, zero, first)


def _place_channels(vector: FloatArray, linear: Linear, node: ir.Node) -> FloatArray:
    """Return one number a channel, shaped to multiply what the linear reads: a Conv's channels are axis 1."""
    weight = node.inputs[1]
    kernel = len(weight.shape) - 2 if linear.kind == "Conv" and weight is not None and weight.shape is not None else 0
    return vector.reshape(-1, *[1] * kernel)


def _round_plan(entry: LinearPlan, kind: ir.DataType) -> LinearPlan:
    return replace(entry, weight_scale=round_up(entry.weight_scale, kind))


def _quantise_weight(
    graph: ir.Graph, node: ir.Node, linear: Linear, entry: LinearPlan, smooth: FloatArray | None
) -> ir.Value:
    stored = node.inputs[1]
    if stored is None or stored.const_value is None:
        raise UnsupportedModel("the linear has no constant weight", where=linear.node, cure="leave it in float")
    integers = quantise_planned_weight(entry, linear, stored.const_value.numpy(), smooth)
    name = f"{linear.weight}_int8"
    values = add_constant(graph, name, integers)
    scale = add_constant(graph, f"{name}_scale", entry.weight_scale)
    zero = add_constant(graph, f"{name}_zero", np.zeros(entry.weight_scale.shape, np.int8))
    # TensorRT wants the axis written down: it takes 0 where ONNX means 1.
    axis = {"axis": 0 if linear.transposed else 1}
    dequantise = ir.node("DequantizeLinear", [values, scale, zero], axis, name=f"{linear.node}_weight_dq")
    describe(dequantise.outputs[0], stored, ir.DataType.FLOAT)
    graph.insert_before(node, dequantise)
    return dequantise.outputs[0]


def _correct_bias(graph: ir.Graph, node: ir.Node, linear: Linear, delta: FloatArray | None) -> None:
    """Add ``delta`` to the bias there is: the node's own, or that of the one Add after it; else add an Add."""
    if delta is None:
        return
    name = f"{linear.node}_bias_corrected"
    if linear.kind in ("Gemm", "Conv"):
        own = node.inputs[2] if len(node.inputs) > 2 else None
        total = delta if own is None else delta + _read_row(own, len(delta))
        node.resize_inputs(3)
        node.replace_input_with(2, add_constant(graph, name, total.astype(np.float32)))
        return
    output = node.outputs[0]
    found = _find_bias(output, len(delta))
    if found is not None:
        add, index = found
        add.replace_input_with(index, add_constant(graph, name, delta + _read_row(add.inputs[index], len(delta))))
        return
    constant = add_constant(graph, name, delta)
    add = ir.node("Add", [constant, constant], name=f"{linear.node}_correct")
    graph.insert_after(node, add)
    take_over(output, add.outputs[0])
    # Only now: what reads ``output`` would have been made to read the sum, the Add itself included.
    add.replace_input_with(0, output)


def _find_bias(output: ir.Value, width: int) -> tuple[ir.Node, int] | None:
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.op_type != "Add":
        return None
    add, index = uses[0].node, 1 - uses[0].idx
    other = add.inputs[index]
    constant = None if other is None or other.is_graph_input() else other.const_value
    return (add, index) if constant is not None and tuple(constant.shape) == (width,) else None


def _read_row(value: ir.Value | None, width: int) -> FloatArray:
    if value is None or value.const_value is None:
        raise UnsupportedModel("the bias is not constant", where=value.name if value else None, cure="plan it again")
    row: FloatArray = np.broadcast_to(value.const_value.numpy().reshape(-1), (width,)).astype(np.float32)
    return row
