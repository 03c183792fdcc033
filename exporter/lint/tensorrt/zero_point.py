"""Integers are int8 around zero: no unsigned ones, no zero points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.moves import is_undone
from exporter.lint.pairs import (
    FIRST_AXIS,
    MOVES,
    RANGES,
    Quantiser,
    as_quantiser,
    dequantise,
    find_output_axis,
    find_quantise,
    is_sound,
    list_quantisers,
    read_axis,
    read_type,
    read_zero,
)
from exporter.lint.requantise import quantise_weight
from exporter.lint.rule import Note
from exporter.lint.saturation import can_hold, hold
from exporter.passes.graph import constant, opset

#: Types that int8 around zero can stand for.
_WIDTH_8 = frozenset({"int8", "uint8"})
#: "TensorRT only allows FP8, INT8, INT4, and FP4 quantization" (onnx-tensorrt), by numpy's and by ONNX's names.
_TAKEN = frozenset({"int8", "int4", "float8_e4m3fn", "float8e4m3fn", "float4_e2m1fn", "float4e2m1"})

_CURE = "quantise with symmetric int8 activations and weights (ONNX Runtime: ActivationSymmetric=True)"
_CURE_4_BIT = "quantise to symmetric int4, or to int8 (ONNX Runtime: QuantType.QInt4, is_symmetric=True)"


def check_type(model: ir.Model) -> Iterator[Note]:
    """Yield quantisers whose integers are of a type TensorRT does not take."""
    for quantiser in list_quantisers(model):
        word = read_type(quantiser)
        if word not in _TAKEN and word != "int32":  # int32 is a bias, which has a rule of its own
            yield Note(
                node=quantiser.name,
                what=f"its integers are {word}; TensorRT takes int8",
                cure=_CURE_4_BIT if word == "uint4" else _CURE,
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
    # Before any is changed: the type of a quantiser without a zero point is its neighbour's, and so is its range.
    found = [(quantiser, read_type(quantiser)) for quantiser in list_quantisers(model) if _can_move(quantiser)]
    for quantiser, word in found:
        if quantiser.node.op_type == "QuantizeLinear" and not _is_centred(quantiser, word):
            hold(model, quantiser)
    for quantiser, word in found:
        _rewrite(model, quantiser, word)
    if found:
        remove_dead(model)
    return len(found)


def _can_move(quantiser: Quantiser) -> bool:
    word = read_type(quantiser)
    if word not in _WIDTH_8 or not is_sound(quantiser) or (word == "int8" and not quantiser.has_offset):
        return False
    return _is_stored(quantiser.node) or _is_between_quantisers(quantiser.node)


def _is_stored(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None


def _is_between_quantisers(node: ir.Node) -> bool:
    """Whether the integers go from a QuantizeLinear to DequantizeLinear that undo it, by moves at most."""
    quantise = as_quantiser(node if node.op_type == "QuantizeLinear" else find_quantise(node.inputs[0]))
    return quantise is not None and is_undone(quantise.node) and can_hold(quantise)


def _is_centred(quantiser: Quantiser, word: str) -> bool:
    """Whether as many integers lie below zero as above: uint8 around 128."""
    scale = quantiser.scale
    return scale is not None and bool((read_zero(quantiser, scale) == RANGES[word][0] + 128).all())


def _rewrite(model: ir.Model, quantiser: Quantiser, word: str) -> None:
    node, scale, stored = quantiser.node, quantiser.scale, constant(quantiser.node.inputs[0])
    if scale is None:
        return
    if stored is not None and _is_stored(node):
        integers, scale = _move_weight(model, quantiser, stored, scale, word)
        node.replace_input_with(0, add_constant(model.graph, f"{node.outputs[0].name}_symmetric", integers))
    elif not _is_centred(quantiser, word):
        scale = _widen(quantiser, scale, word)
    _set_constants(model.graph, quantiser, scale)
    if node.op_type == "QuantizeLinear":
        _set_integers(node.outputs[0])


def _widen(quantiser: Quantiser, scale: NDArray[np.generic], word: str) -> NDArray[np.generic]:
    """Return the scale that holds the range of an activation on both sides of zero."""
    low, high = RANGES[word]
    offset = read_zero(quantiser, scale)
    wide = np.maximum(offset - low, high - offset) / np.float32(127)
    widened: NDArray[np.generic] = (scale.astype(np.float32) * wide).astype(scale.dtype)
    return widened


def _move_weight(
    model: ir.Model, quantiser: Quantiser, stored: NDArray[np.generic], scale: NDArray[np.generic], word: str
) -> tuple[NDArray[np.int8], NDArray[np.generic]]:
    """Return a weight's integers around zero and their scales.

    A weight with one scale gets one for each output: what symmetry costs in steps, that more than gives back.
    """
    middle = RANGES[word][0] + 128
    if _is_centred(quantiser, word):
        return (stored.astype(np.int16) - middle).astype(np.int8), scale
    if quantiser.per_channel:
        axis: int | None = read_axis(quantiser.node, stored.ndim)
    else:
        can_spread = stored.size and opset(model) >= FIRST_AXIS
        axis = _find_channels(quantiser.node.outputs[0], stored.ndim) if can_spread else None
    integers, found = quantise_weight(dequantise(quantiser, stored), axis, scale.dtype)
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
