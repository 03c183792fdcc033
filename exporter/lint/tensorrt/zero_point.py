"""Integers are int8 around zero: no unsigned ones, no zero points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.pairs import (
    MOVES,
    Quantiser,
    ends_in_floats,
    find_output_axis,
    find_quantise,
    is_sound,
    list_quantisers,
    read_axis,
    read_type,
    spread,
)
from exporter.lint.requantise import quantise_weight
from exporter.lint.rule import Note
from exporter.passes.graph import constant

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}
#: "TensorRT only allows FP8, INT8, INT4, and FP4 quantization" (onnx-tensorrt), by numpy's and by ONNX's names.
_TAKEN = frozenset({"int8", "int4", "float8_e4m3fn", "float8e4m3fn", "float4_e2m1fn", "float4e2m1"})


def check_type(model: ir.Model) -> Iterator[Note]:
    """Yield quantisers whose integers are of a type TensorRT does not take."""
    for quantiser in list_quantisers(model):
        word = read_type(quantiser)
        if word not in _TAKEN and word != "int32":  # int32 is a bias, which has a rule of its own
            yield Note(
                node=quantiser.name,
                what=f"its integers are {word}; TensorRT takes int8",
                cure="quantise with symmetric int8 activations and weights (ONNX Runtime: ActivationSymmetric=True)",
            )


def check_zero(model: ir.Model) -> Iterator[Note]:
    """Yield quantisers of a taken type with a zero point that is not zero."""
    for quantiser in list_quantisers(model):
        if quantiser.zero is not None and quantiser.has_offset and read_type(quantiser) in _TAKEN:
            values = quantiser.zero.astype(np.float32).reshape(-1)
            yield Note(
                node=quantiser.name,
                what=f"its zero point is {values[np.flatnonzero(values)[0]]:g}; TensorRT quantises symmetrically alone",
                cure="quantise with symmetric ranges (ONNX Runtime: ActivationSymmetric=True, WeightSymmetric=True)",
            )


def make_symmetric(model: ir.Model) -> int:
    """Rewrite what :func:`check_type` and :func:`check_zero` find; return how many quantisers changed.

    uint8 around 128 becomes int8 around 0 with the same values. Other activations get the scale that holds their range
    on both sides of zero, at most half as fine as it was; weights are quantised again, channel by channel.
    """
    # Types are read before any is changed: that of a quantiser without a zero point is its neighbour's.
    found = [(quantiser, read_type(quantiser)) for quantiser in list_quantisers(model)]
    changed = sum(_rewrite(model.graph, quantiser, word) for quantiser, word in found)
    if changed:
        remove_dead(model)
    return changed


def _rewrite(graph: ir.Graph, quantiser: Quantiser, word: str) -> int:
    scale = quantiser.scale
    if word not in _LIMITS or scale is None or not is_sound(quantiser):
        return 0
    if word == "int8" and not quantiser.has_offset:
        return 0
    zero = np.zeros(scale.shape, word) if quantiser.zero is None else quantiser.zero
    stored = constant(quantiser.node.inputs[0])
    if stored is not None and quantiser.node.op_type == "DequantizeLinear":
        integers, scale = _move_weight(quantiser, stored, scale, zero)
        name = f"{quantiser.node.outputs[0].name}_symmetric"
        quantiser.node.replace_input_with(0, add_constant(graph, name, integers))
    elif _is_between_quantisers(quantiser.node):
        scale = _widen(scale, zero)
    else:
        return 0
    _set_constants(graph, quantiser, scale)
    if quantiser.node.op_type == "QuantizeLinear":
        _set_integers(quantiser.node.outputs[0])
    return 1


def _is_between_quantisers(node: ir.Node) -> bool:
    """Whether the integers go from a QuantizeLinear to DequantizeLinear, by moves at most."""
    quantise = node if node.op_type == "QuantizeLinear" else find_quantise(node.inputs[0])
    return quantise is not None and ends_in_floats(quantise.outputs[0])


def _widen(scale: NDArray[np.generic], zero: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the scale that holds the range of an activation on both sides of zero."""
    low, high = _LIMITS[zero.dtype.name]
    offset = zero.astype(np.float32).reshape(scale.shape)
    if (offset == low + 128).all():  # uint8 around 128
        return scale
    wide = np.maximum(offset - low, high - offset) / np.float32(127)
    widened: NDArray[np.generic] = (scale.astype(np.float32) * wide).astype(scale.dtype)
    return widened


def _move_weight(
    quantiser: Quantiser, stored: NDArray[np.generic], scale: NDArray[np.generic], zero: NDArray[np.generic]
) -> tuple[NDArray[np.int8], NDArray[np.generic]]:
    """Return a weight's integers around zero and their scales.

    A weight with one scale gets one for each output: what symmetry costs in steps, that more than gives back.
    """
    middle = _LIMITS[zero.dtype.name][0] + 128
    if (zero.astype(np.int16) == middle).all():
        return (stored.astype(np.int16) - middle).astype(np.int8), scale
    along = read_axis(quantiser.node, stored.ndim) if quantiser.per_channel else 0
    steps = stored.astype(np.float32) - spread(zero, along, stored.ndim)
    axis = along if quantiser.per_channel else _find_channels(quantiser.node.outputs[0], stored.ndim)
    integers, found = quantise_weight(steps * spread(scale, along, stored.ndim), axis, scale.dtype)
    if axis is None:
        return integers, found.reshape(scale.shape)
    quantiser.node.attributes["axis"] = ir.AttrInt64("axis", axis)
    return integers, found


def _find_channels(weight: ir.Value, rank: int) -> int | None:
    """Return the axis of a weight's outputs, or of a table's rows, where every reader agrees on one."""
    axes = {
        0 if use.node.op_type == "Gather" and use.idx == 0 and use.node.attributes.get_int("axis", 0) == 0
        else find_output_axis(use.node, use.idx, rank)
        for use in weight.uses()
    }  # fmt: skip
    return axes.pop() if len(axes) == 1 and rank > 1 else None


def _set_constants(graph: ir.Graph, quantiser: Quantiser, scale: NDArray[np.generic]) -> None:
    node, name = quantiser.node, quantiser.node.outputs[0].name
    node.resize_inputs(3)
    node.replace_input_with(1, add_constant(graph, f"{name}_symmetric_scale", scale))
    node.replace_input_with(2, add_constant(graph, f"{name}_symmetric_zero", np.zeros(scale.shape, np.int8)))
    if node.op_type == "QuantizeLinear":
        node.attributes.pop("output_dtype", None)


def _set_integers(value: ir.Value) -> None:
    value.type = ir.TensorType(ir.DataType.INT8)
    for use in value.uses():
        if use.node.op_type in MOVES and use.idx == 0:
            for output in use.node.outputs:
                _set_integers(output)
