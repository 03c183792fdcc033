"""Smoothing of attention's output, for free: the value projection gives it already divided.

Attention's output is a weighted sum of value rows, channel by channel, so a vector that divides it can divide the
columns of the value projection instead, and no node is left to run. (The outputs of a LayerNormalization feed the
residual too, and GELU is not linear: there smoothing stays a product.)

In: a float model with 3-D ``Attention`` and a plan. Out: the model edited, and the plan that now fits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.plan import ActivationGroup, LinearPlan, Plan
from runtimes.errors import UnsupportedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The columns of a linear that hold the values: its node, its weight and bias, and where they start."""

    node: ir.Node
    weight: ir.Value
    bias: ir.Value
    start: int


def fold_smoothing(model: ir.Model, plan: Plan) -> Plan:
    """Move what can be moved out of ``plan`` into the weights of ``model``; return the plan for the edited model."""
    nodes = {node.name or "": node for node in model.graph}
    linears = {entry.node: entry for entry in plan.linears}
    groups = []
    for group in plan.groups:
        readers = [nodes[name] for name in group.linears if name in nodes]
        columns = _find_columns(group, readers)
        if group.smooth is None or columns is None or (columns.node.name or "") not in linears:
            groups.append(group)
            continue
        _divide(columns, group.smooth)
        source = columns.node.name or ""
        linears[source] = _divide_plan(linears[source], columns.start, group.smooth)
        for reader in readers:
            if reader.inputs[1] is not None:
                _multiply_rows(reader.inputs[1], group.smooth)
        groups.append(replace(group, smooth=None))
    return Plan(groups=tuple(groups), linears=tuple(linears[entry.node] for entry in plan.linears))


def list_free(model: ir.Model, plan: Plan) -> frozenset[str]:
    """Return the activations whose smoothing :func:`fold_smoothing` would move into a weight."""
    return frozenset(group.tensor for group in plan.groups if _can_fold(group, model, plan))


def _can_fold(group: ActivationGroup, model: ir.Model, plan: Plan) -> bool:
    nodes = {node.name or "": node for node in model.graph}
    columns = _find_columns(group, [nodes[name] for name in group.linears if name in nodes])
    return columns is not None and (columns.node.name or "") in {entry.node for entry in plan.linears}


def _find_columns(group: ActivationGroup, readers: Sequence[ir.Node]) -> _Columns | None:
    """Follow the group's activation back through Attention (and a Split) to the value projection.

    None where anything but the group would see a value change: another reader of the activation, of a weight or of the
    projection, a graph output, or attention's cache.
    """
    if group.smooth is None or len(readers) != len(group.linears):
        return None
    activation = readers[0].inputs[0]
    attention = activation.producer() if activation is not None else None
    if attention is None or activation is None or attention.op_type != "Attention" or _keeps_cache(attention):
        return None
    if not _read_only_by(activation, readers) or not all(_scales_rows(node) for node in readers):
        return None
    value, start = attention.inputs[2], 0
    if value is None or not _read_only_by(value, [attention]):
        return None
    producer = value.producer()
    if producer is not None and producer.op_type == "Split":
        sizes = producer.inputs[1].const_value if producer.inputs[1] is not None else None
        index = value.index()
        # With grouped values (fewer value heads than query heads) the channels do not correspond one to one.
        if sizes is None or index is None or int(sizes.numpy()[index]) != len(group.smooth):
            return None
        start = int(sizes.numpy()[:index].sum())
        joined = producer.inputs[0]
        producer = joined.producer() if joined is not None and _read_only_by(joined, [producer]) else None
    return _match_linear(producer, start, len(group.smooth))


def _keeps_cache(attention: ir.Node) -> bool:
    """Whether attention reads or gives out keys and values besides its own."""
    return any(value is not None for value in attention.inputs[4:]) or any(
        value.uses() or value.is_graph_output() for value in attention.outputs[1:]
    )


def _scales_rows(node: ir.Node) -> bool:
    """Whether a reader of the activation can take the smoothing into a weight that is its alone."""
    weight = node.inputs[1] if node.op_type == "MatMul" else None
    return weight is not None and weight.const_value is not None and _read_only_by(weight, [node])


def _read_only_by(value: ir.Value, nodes: Sequence[ir.Node]) -> bool:
    users = [use.node for use in value.uses()]
    return not value.is_graph_output() and len(users) == len(nodes) and all(user in nodes for user in users)


def _match_linear(add: ir.Node | None, start: int, width: int) -> _Columns | None:
    if add is None or add.op_type != "Add" or add.inputs[0] is None or add.inputs[1] is None:
        return None
    product, bias = add.inputs[0].producer(), add.inputs[1]
    if product is None or product.op_type != "MatMul" or bias.const_value is None:
        return None
    weight = product.inputs[1]
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return None
    if not (_read_only_by(weight, [product]) and _read_only_by(bias, [add]) and _read_only_by(add.inputs[0], [add])):
        return None
    outputs = int(weight.const_value.shape[1])
    if start + width > outputs or tuple(bias.const_value.shape) != (outputs,):
        return None
    return _Columns(node=product, weight=weight, bias=bias, start=start)


def _divide(columns: _Columns, smooth: NDArray[np.float32]) -> None:
    end = columns.start + len(smooth)
    for value in (columns.weight, columns.bias):
        array = _read(value).copy()
        array[..., columns.start : end] /= smooth
        value.const_value = ir.tensor(array, name=value.name)


def _multiply_rows(value: ir.Value, smooth: NDArray[np.float32]) -> None:
    value.const_value = ir.tensor(_read(value) * smooth[:, None], name=value.name)


def _read(value: ir.Value) -> NDArray[np.float32]:
    if value.const_value is None:
        raise UnsupportedModel("the weight is not constant", where=value.name, cure="leave the layer in float")
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _divide_plan(entry: LinearPlan, start: int, smooth: NDArray[np.float32]) -> LinearPlan:
    scale = entry.weight_scale.copy()
    scale[start : start + len(smooth)] /= smooth
    delta = entry.bias_delta
    if delta is not None:
        delta = delta.copy()
        delta[start : start + len(smooth)] /= smooth
    return replace(entry, weight_scale=scale, bias_delta=delta)
