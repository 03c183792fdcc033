"""The axis of a scale per channel: written down, on weights alone, and that of the outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant
from exporter.lint.pairs import (
    Quantiser,
    find_output_axis,
    is_weight,
    list_quantisers,
    list_readers,
    name_of,
    read_axis,
    spread,
)
from exporter.lint.rule import Note
from exporter.passes.graph import constant, remove_dead


def check_missing(model: ir.Model) -> Iterator[Note]:
    """Yield scales per channel without an axis: ONNX means 1, TensorRT takes 0."""
    for quantiser in list_quantisers(model):
        if quantiser.per_channel and "axis" not in quantiser.node.attributes:
            yield Note(
                node=quantiser.name,
                what="it has a scale a channel and no axis: ONNX means axis 1, TensorRT takes 0",
                cure="write the axis down",
            )


def write_missing(model: ir.Model) -> int:
    """Write down the axis ONNX means; return how often."""
    found = [q for q in list_quantisers(model) if q.per_channel and "axis" not in q.node.attributes]
    for quantiser in found:
        quantiser.node.attributes["axis"] = ir.AttrInt64("axis", 1)
    return len(found)


def check_activation(model: ir.Model) -> Iterator[Note]:
    """Yield activations with several scales."""
    for quantiser in list_quantisers(model):
        if quantiser.per_channel and not is_weight(quantiser.node):
            count = quantiser.scale.size if quantiser.scale is not None else 0
            yield Note(
                node=quantiser.name,
                what=f"an activation has {count} scales; TensorRT takes one a tensor",
                cure="quantise activations per tensor",
            )


def use_one_scale(model: ir.Model) -> int:
    """Give each such activation its largest scale; return how often."""
    found = [q for q in list_quantisers(model) if q.per_channel and not is_weight(q.node)]
    for quantiser in found:
        if quantiser.scale is None or (quantiser.zero is not None and quantiser.zero.any()):
            continue
        node, name = quantiser.node, quantiser.node.outputs[0].name
        kind = quantiser.zero.dtype if quantiser.zero is not None else np.dtype(np.int8)
        node.resize_inputs(3)
        node.replace_input_with(1, add_constant(model.graph, f"{name}_one_scale", quantiser.scale.max().reshape(())))
        node.replace_input_with(2, add_constant(model.graph, f"{name}_one_zero", np.zeros((), kind)))
        node.attributes.pop("axis", None)
    return len(found)


def check_weight(model: ir.Model) -> Iterator[Note]:
    """Yield weights whose scales lie along another axis than the outputs, or are not as many as it is long."""
    for quantiser, reader, wanted in _list_weights(model):
        stored = constant(quantiser.node.inputs[0])
        if stored is None or quantiser.scale is None:
            continue
        axis = read_axis(quantiser.node, stored.ndim)
        if not 0 <= axis < stored.ndim or stored.shape[axis] != quantiser.scale.size:
            what = f"it has {quantiser.scale.size} scales along axis {axis} of a weight {list(stored.shape)}"
            yield Note(node=quantiser.name, what=what, cure="quantise the weight again")
        elif axis != wanted:
            yield Note(
                node=quantiser.name,
                what=f"its scales lie along axis {axis}, the outputs of {reader.op_type} {name_of(reader)} on {wanted}",
                cure=f"quantise the weight along axis {wanted}",
            )


def turn_weight(model: ir.Model) -> int:
    """Quantise weights again, along the axis of the outputs; return how many."""
    changed = 0
    for quantiser, _, wanted in list(_list_weights(model)):
        node, stored = quantiser.node, constant(quantiser.node.inputs[0])
        if stored is None or quantiser.scale is None or stored.dtype != np.int8:
            continue
        axis = read_axis(node, stored.ndim)
        is_odd = not 0 <= axis < stored.ndim or stored.shape[axis] != quantiser.scale.size
        if is_odd or axis == wanted or (quantiser.zero is not None and quantiser.zero.any()):
            continue
        floats = stored.astype(np.float32) * spread(quantiser.scale, axis, stored.ndim)
        others = tuple(n for n in range(stored.ndim) if n != wanted)
        largest = np.abs(floats).max(axis=others) / np.float32(127)
        scale = np.where(largest > 0, largest, 1).astype(quantiser.scale.dtype)
        integers = np.clip(np.rint(floats / spread(scale, wanted, stored.ndim)), -127, 127).astype(np.int8)
        name = f"{node.outputs[0].name}_turned"
        node.resize_inputs(3)
        node.replace_input_with(0, add_constant(model.graph, name, integers))
        node.replace_input_with(1, add_constant(model.graph, f"{name}_scale", scale))
        node.replace_input_with(2, add_constant(model.graph, f"{name}_zero", np.zeros(scale.shape, np.int8)))
        node.attributes["axis"] = ir.AttrInt64("axis", wanted)
        changed += 1
    if changed:
        remove_dead(model)
    return changed


def _list_weights(model: ir.Model) -> Iterator[tuple[Quantiser, ir.Node, int]]:
    """Yield constant integers with a scale a channel, the weighted operator that reads them, and the axis it wants."""
    for quantiser in list_quantisers(model):
        stored = constant(quantiser.node.inputs[0])
        if quantiser.node.op_type != "DequantizeLinear" or not quantiser.per_channel or stored is None:
            continue
        # A weight turned on its way is another rule's: see ``transposed``.
        direct = {use.node for use in quantiser.node.outputs[0].uses()}
        for reader, index in list_readers(quantiser.node.outputs[0]):
            wanted = find_output_axis(reader, index, stored.ndim)
            if wanted is not None and reader in direct:
                yield quantiser, reader, wanted
                break
