"""The range a quantiser holds values to: part of what a graph computes, where its rounding is not.

ONNX Runtime's quantizer drops a Relu or Clip before a QuantizeLinear and leaves it to the range of the integers. A pair
that goes, or gets another range, leaves a Clip behind. Must not import a runtime.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant
from exporter.lint.pairs import (
    MOVES,
    RANGES,
    Quantiser,
    as_quantiser,
    is_sound,
    read_axis,
    read_type,
    read_zero,
    spread,
)
from exporter.passes.graph import opset, scalar

#: Operators whose results have ends of their own.
_ENDS = {"Softmax": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
#: From here the ends of Clip are inputs.
_CLIP_INPUTS = 11


def can_hold(quantiser: Quantiser) -> bool:
    """Whether the range is known, and can be written down."""
    source = quantiser.node.inputs[0]
    has_rank = source is not None and source.shape is not None
    return is_sound(quantiser) and read_type(quantiser) in RANGES and (has_rank or not quantiser.per_channel)


def hold(model: ir.Model, quantiser: Quantiser) -> ir.Value | None:
    """Let a QuantizeLinear read, and return, what it read held to its range: by a Clip where it may go further."""
    node, source, ends = quantiser.node, quantiser.node.inputs[0], _find_ends(quantiser)
    if source is None or ends is None or _stays_inside(source, quantiser, ends):
        return source
    new = _write_clip(model, quantiser, source, ends)
    for made in new:
        made.outputs[0].type, made.outputs[0].shape = source.type, source.shape
    node.graph.insert_before(node, new)
    node.replace_input_with(0, new[-1].outputs[0])
    return new[-1].outputs[0]


def _find_ends(quantiser: Quantiser) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the least and the greatest value for each scale."""
    scale, limits = quantiser.scale, RANGES.get(read_type(quantiser))
    if scale is None or limits is None:
        return None
    zero, steps = read_zero(quantiser, scale), scale.astype(np.float32)
    with np.errstate(over="ignore"):
        return (limits[0] - zero) * steps, (limits[1] - zero) * steps


def _stays_inside(
    value: ir.Value | None, quantiser: Quantiser, ends: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> bool:
    """Whether a value passes the ends by half a step at most, which is rounding."""
    low, high = _find_bounds(value)
    half = 0.0 if quantiser.scale is None else quantiser.scale.astype(np.float32) / 2
    return bool((low >= ends[0] - half).all() and (high <= ends[1] + half).all())


def _find_bounds(value: ir.Value | None) -> tuple[NDArray[np.float32] | float, NDArray[np.float32] | float]:
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in MOVES:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None:
        return -math.inf, math.inf
    if node.op_type == "Clip":
        return _read_clip(node, 1, "min", -math.inf), _read_clip(node, 2, "max", math.inf)
    quantiser = as_quantiser(node)
    has_ends = quantiser is not None and is_sound(quantiser) and not quantiser.per_channel
    ends = _find_ends(quantiser) if quantiser is not None and has_ends else None
    return ends or _ENDS.get(node.op_type, (-math.inf, math.inf))


def _read_clip(node: ir.Node, index: int, attribute: str, absent: float) -> float:
    if index < len(node.inputs) and node.inputs[index] is not None:
        found = scalar(node.inputs[index])
        return absent if found is None else found
    return node.attributes.get_float(attribute, absent)


def _write_clip(
    model: ir.Model, quantiser: Quantiser, source: ir.Value, ends: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> list[ir.Node]:
    name, kind = f"{quantiser.node.outputs[0].name}_range", source.dtype or ir.DataType.FLOAT
    if quantiser.per_channel and source.shape is not None:
        rank = len(source.shape)
        shaped = [spread(end, read_axis(quantiser.node, rank), rank) for end in ends]
    elif opset(model) < _CLIP_INPUTS:
        attributes = {"min": float(ends[0].reshape(())), "max": float(ends[1].reshape(()))}
        return [ir.node("Clip", [source], attributes, name=f"{name}_clip")]
    else:
        shaped = [end.reshape(()) for end in ends]
    with np.errstate(over="ignore"):
        low, high = (
            add_constant(model.graph, f"{name}_{word}", end.astype(kind.numpy()))
            for word, end in zip(("low", "high"), shaped, strict=True)
        )
    if not quantiser.per_channel:
        return [ir.node("Clip", [source, low, high], name=f"{name}_clip")]
    least = ir.node("Max", [source, low], name=f"{name}_max")
    return [least, ir.node("Min", [least.outputs[0], high], name=f"{name}_min")]
