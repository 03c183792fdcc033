"""The axis of a scale per channel: written down, on weights alone, and that of the outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.moves import is_undone
from exporter.lint.pairs import (
    Quantiser,
    as_quantiser,
    dequantise,
    describe,
    find_output_axis,
    find_quantise,
    is_sound,
    is_weight,
    list_quantisers,
    list_readers,
    read_axis,
    read_type,
)
from exporter.lint.requantise import quantise_weight
from exporter.lint.rule import Note
from exporter.lint.saturation import can_hold, hold
from exporter.passes.graph import constant


def check_missing(model: ir.Model) -> Iterator[Note]:
    """Yield scales per channel without an axis: ONNX means 1, parsers of TensorRT before that took 0."""
    for quantiser in _list_without_axis(model):
        yield Note(
            node=quantiser.name,
            what="it has a scale a channel and no axis: ONNX means axis 1, and TensorRT up to 10.1 took 0",
            cure="write the axis down",
        )


def write_missing(model: ir.Model) -> int:
    """Write down the axis ONNX means, or the only one that fits; return how often."""
    count = 0
    for quantiser in _list_without_axis(model):
        axis = _find_meant_axis(quantiser)
        if axis is not None:
            quantiser.node.attributes["axis"] = ir.AttrInt64("axis", axis)
            count += 1
    return count


def check_activation(model: ir.Model) -> Iterator[Note]:
    """Yield activations with several scales."""
    for quantiser in _list_activations(model):
        count = quantiser.scale.size if quantiser.scale is not None else 0
        yield Note(
            node=quantiser.name,
            what=f"an activation has {count} scales; TensorRT takes one a tensor",
            cure="quantise activations per tensor",
        )


def use_one_scale(model: ir.Model) -> int:
    """Give each such activation its largest scale, each channel still held to its range; return how often."""
    found = [quantiser for quantiser in _list_activations(model) if _can_join(quantiser)]
    for quantiser in found:
        if quantiser.scale is None:
            continue
        if quantiser.node.op_type == "QuantizeLinear":
            hold(model, quantiser)
        node, name = quantiser.node, quantiser.node.outputs[0].name
        node.resize_inputs(3)
        node.replace_input_with(1, add_constant(model.graph, f"{name}_one_scale", quantiser.scale.max().reshape(())))
        node.replace_input_with(2, add_constant(model.graph, f"{name}_one_zero", np.zeros((), np.int8)))
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
                what=f"its scales lie along axis {axis}, the outputs of {describe(reader)} on {wanted}",
                cure=f"quantise the weight along axis {wanted}",
            )


def turn_weight(model: ir.Model) -> int:
    """Quantise weights again, for each reader along the axis of its outputs; return how many were."""
    turned: dict[tuple[ir.Node, int], ir.Value] = {}
    for quantiser, reader, wanted in list(_list_weights(model)):
        node, stored = quantiser.node, constant(quantiser.node.inputs[0])
        if stored is None or stored.dtype != np.int8 or quantiser.has_offset or not is_sound(quantiser):
            continue
        if read_axis(node, stored.ndim) == wanted:
            continue
        if (node, wanted) not in turned:
            turned[node, wanted] = _turn(model.graph, quantiser, stored, wanted)
        reader.replace_input_with(1, turned[node, wanted])
    if turned:
        remove_dead(model)
    return len(turned)


def _turn(graph: ir.Graph, quantiser: Quantiser, stored: NDArray[np.generic], axis: int) -> ir.Value:
    """Return the weight dequantised from integers with their scales along another axis."""
    node, kind = quantiser.node, np.float32 if quantiser.scale is None else quantiser.scale.dtype
    integers, scale = quantise_weight(dequantise(quantiser, stored), axis, np.dtype(kind))
    name = f"{node.outputs[0].name}_turned"
    inputs = [
        add_constant(graph, name, integers),
        add_constant(graph, f"{name}_scale", scale),
        add_constant(graph, f"{name}_zero", np.zeros(scale.shape, np.int8)),
    ]
    new = ir.node("DequantizeLinear", inputs, {"axis": axis}, name=f"{quantiser.name}_turned_{axis}")
    new.outputs[0].type, new.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
    node.graph.insert_before(node, new)
    return new.outputs[0]


def _list_without_axis(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        stored = constant(quantiser.node.inputs[0])
        is_vector = stored is not None and stored.ndim == 1
        if quantiser.per_channel and "axis" not in quantiser.node.attributes and not is_vector:
            yield quantiser


def _find_meant_axis(quantiser: Quantiser) -> int | None:
    """ONNX's 1 where it fits or nothing says otherwise; a tool that meant TensorRT's 0 fits there alone."""
    stored = constant(quantiser.node.inputs[0])
    if stored is None or quantiser.scale is None:
        return 1
    fitting = [axis for axis, length in enumerate(stored.shape) if length == quantiser.scale.size]
    return 1 if 1 in fitting else fitting[0] if len(fitting) == 1 else None


def _list_activations(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        if quantiser.per_channel and not is_weight(quantiser.node):
            yield quantiser


def _can_join(quantiser: Quantiser) -> bool:
    node = quantiser.node
    quantise = as_quantiser(node if node.op_type == "QuantizeLinear" else find_quantise(node.inputs[0]))
    is_plain = read_type(quantiser) == "int8" and not quantiser.has_offset
    return is_plain and quantise is not None and is_undone(quantise.node) and can_hold(quantise)


def _list_weights(model: ir.Model) -> Iterator[tuple[Quantiser, ir.Node, int]]:
    """Yield constant integers with a scale a channel, each weighted operator that reads them, and the axis it wants."""
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
