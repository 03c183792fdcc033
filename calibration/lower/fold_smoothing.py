"""Smoothing of attention's output, for free: the value projection gives it already divided.

Attention's output is a weighted sum of value rows, channel by channel, so a vector that divides it can divide the
columns of the value projection instead, and no node is left to run. (The outputs of a LayerNormalization feed the
residual too, and GELU is not linear: there smoothing stays a product.)

In: a float model with 3-D ``Attention`` and a plan. Out: the model edited, and the plan that now fits it.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        columns = _find_columns(group, nodes)
        readers = [nodes[name] for name in group.linears if name in nodes]
        plain = all(node.op_type == "MatMul" for node in readers) and len(readers) == len(group.linears)
        if group.smooth is None or columns is None or not plain or (columns.node.name or "") not in linears:
            groups.append(group)
            continue
        _divide(columns, group.smooth)
        source = columns.node.name or ""
        linears[source] = _divide_plan(linears[source], columns.start, group.smooth)
        for name in group.linears:
            weight = nodes[name].inputs[1]
            if weight is not None:
                _multiply_rows(weight, group.smooth)
        groups.append(replace(group, smooth=None))
    return Plan(groups=tuple(groups), linears=tuple(linears[entry.node] for entry in plan.linears))


def _find_columns(group: ActivationGroup, nodes: Mapping[str, ir.Node]) -> _Columns | None:
    """Follow the group's activation back through Attention (and a Split) to the value projection."""
    reader = nodes.get(group.linears[0])
    activation = reader.inputs[0] if reader is not None else None
    attention = activation.producer() if activation is not None else None
    if attention is None or attention.op_type != "Attention" or group.smooth is None:
        return None
    value, start = attention.inputs[2], 0
    if value is None or len(list(value.uses())) != 1:
        return None
    producer = value.producer()
    if producer is not None and producer.op_type == "Split":
        sizes = producer.inputs[1].const_value if producer.inputs[1] is not None else None
        index = value.index()
        # With grouped values (fewer value heads than query heads) the channels do not correspond one to one.
        if sizes is None or index is None or int(sizes.numpy()[index]) != len(group.smooth):
            return None
        start = int(sizes.numpy()[:index].sum())
        producer = producer.inputs[0].producer() if producer.inputs[0] is not None else None
    return _match_linear(producer, start, len(group.smooth))


def _match_linear(add: ir.Node | None, start: int, width: int) -> _Columns | None:
    if add is None or add.op_type != "Add" or add.inputs[0] is None or add.inputs[1] is None:
        return None
    product, bias = add.inputs[0].producer(), add.inputs[1]
    if product is None or product.op_type != "MatMul" or bias.const_value is None:
        return None
    weight = product.inputs[1]
    if weight is None or weight.const_value is None or len(list(weight.uses())) != 1 or len(list(bias.uses())) != 1:
        return None
    if len(weight.const_value.shape) != 2 or start + width > int(weight.const_value.shape[1]):
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
