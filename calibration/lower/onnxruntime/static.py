"""Static INT8: activations quantised by the calibrated scale, weights int8 per output channel.

Two forms of one plan. ``integer``: QuantizeLinear and ONNX Runtime's MatMulIntegerToFloat, which adds the bias; the
fastest on a CPU. ``qdq``: QuantizeLinear and DequantizeLinear around a float MatMul, in the standard operator set;
what every other runtime reads, and no output is quantised (on MiniLM an output Q takes the token cosine from 0.93
to 0.64). Smoothing is a product before the activation is quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from calibration.linears import Linear
from calibration.lower.edits import add_constant
from calibration.lower.onnxruntime.sites import Site, find_sites, replace_site, require_contrib
from calibration.plan import ActivationGroup, LinearPlan, Plan, quantise_planned_weight

Form = Literal["integer", "qdq"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quantised:
    """An integer tensor and its constants."""

    value: ir.Value
    scale: ir.Value
    zero: ir.Value


def lower_static(model: ir.Model, linears: Sequence[Linear], plan: Plan, *, form: Form) -> None:
    """Edit ``model`` in place: the ``linears`` that ``plan`` covers run in static INT8, the others stay as they are.

    Args:
        model: A float model.
        linears: MatMul and Gemm layers to lower.
        plan: Scales and zero points, made for this model.
        form: ``integer`` or ``qdq``.
    """
    if form == "integer":
        require_contrib(model)
    plans = {entry.node: entry for entry in plan.linears}
    groups = {name: group for group in plan.groups for name in group.linears}
    quantised: dict[ir.Value, _Quantised] = {}
    for site in find_sites(model, [linear for linear in linears if linear.node in plans]):
        entry = plans[site.linear.node]
        new: list[ir.Node] = []
        if site.activation not in quantised:
            quantised[site.activation] = _quantise_activation(model, site, groups[site.linear.node], new)
        weight = _store_weight(model, site, entry, groups[site.linear.node])
        bias = _store_bias(model, site, entry)
        multiply = _multiply_integers if form == "integer" else _multiply_dequantised
        multiply(site, quantised[site.activation], weight, bias, new)
        replace_site(site, new)
    RemoveUnusedNodesPass()(model)


def _quantise_activation(model: ir.Model, site: Site, group: ActivationGroup, new: list[ir.Node]) -> _Quantised:
    name, value = site.activation.name, site.activation
    if group.smooth is not None:
        inverse = add_constant(model.graph, f"{name}_smooth", (1 / group.smooth).astype(np.float32))
        product = ir.node("Mul", [value, inverse], name=f"{site.linear.node}_smooth")
        product.outputs[0].shape, product.outputs[0].type = value.shape, value.type
        new.append(product)
        value = product.outputs[0]
    scale = add_constant(model.graph, f"{name}_scale", np.array(group.scale, np.float32))
    zero = add_constant(model.graph, f"{name}_zero", np.array(group.zero_point, group.dtype))
    node = ir.node("QuantizeLinear", [value, scale, zero], name=f"{site.linear.node}_q")
    node.outputs[0].shape = value.shape
    node.outputs[0].type = ir.TensorType(ir.DataType.UINT8 if group.dtype == "uint8" else ir.DataType.INT8)
    new.append(node)
    return _Quantised(value=node.outputs[0], scale=scale, zero=zero)


def _store_weight(model: ir.Model, site: Site, entry: LinearPlan, group: ActivationGroup) -> _Quantised:
    # The site holds the weight as [K, N], however the model stores it.
    values = quantise_planned_weight(entry, replace(site.linear, transposed=False), site.weight, group.smooth)
    name = f"{site.linear.weight}_static{entry.weight_bits}"
    return _Quantised(
        value=add_constant(model.graph, name, values),
        scale=add_constant(model.graph, f"{name}_scale", entry.weight_scale),
        zero=add_constant(model.graph, f"{name}_zero", np.zeros(entry.weight_scale.shape, np.int8)),
    )


def _store_bias(model: ir.Model, site: Site, entry: LinearPlan) -> ir.Value | None:
    parts = [part for part in (site.bias, entry.bias_delta) if part is not None]
    if not parts:
        return None
    return add_constant(model.graph, f"{site.linear.node}_bias_static", np.sum(parts, axis=0, dtype=np.float32))


def _multiply_integers(
    site: Site, activation: _Quantised, weight: _Quantised, bias: ir.Value | None, new: list[ir.Node]
) -> None:
    inputs = [activation.value, weight.value, activation.scale, weight.scale, activation.zero, weight.zero, bias]
    name = f"{site.linear.node}_int8"
    new.append(ir.node("MatMulIntegerToFloat", inputs, domain="com.microsoft", name=name))


def _multiply_dequantised(
    site: Site, activation: _Quantised, weight: _Quantised, bias: ir.Value | None, new: list[ir.Node]
) -> None:
    name = site.linear.node
    left = ir.node("DequantizeLinear", [activation.value, activation.scale, activation.zero], name=f"{name}_dq")
    right = ir.node("DequantizeLinear", [weight.value, weight.scale, weight.zero], {"axis": 1}, name=f"{name}_w_dq")
    product = ir.node("MatMul", [left.outputs[0], right.outputs[0]], name=f"{name}_qdq")
    new += [left, right, product]
    if bias is not None:
        product.outputs[0].shape, product.outputs[0].type = site.output.shape, site.output.type
        new.append(ir.node("Add", [product.outputs[0], bias], name=f"{name}_bias"))
