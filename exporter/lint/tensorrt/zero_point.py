"""Integers are int8 around zero: no unsigned ones, no zero points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.lower.edits import add_constant
from exporter.lint.pairs import MOVES, Quantiser, list_quantisers, read_axis, spread
from exporter.lint.rule import Note
from exporter.passes.graph import constant, remove_dead

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


def check_type(model: ir.Model) -> Iterator[Note]:
    """Yield quantisers whose integers are not int8."""
    for quantiser in list_quantisers(model):
        word = _read_type(quantiser)
        if word not in ("int8", "int32"):  # int32 is a bias, which has a rule of its own
            yield Note(
                node=quantiser.name,
                what=f"its integers are {word}; TensorRT takes int8",
                cure="quantise with symmetric int8 activations and weights (ONNX Runtime: ActivationSymmetric=True)",
            )


def check_zero(model: ir.Model) -> Iterator[Note]:
    """Yield int8 quantisers with a zero point that is not zero."""
    for quantiser in list_quantisers(model):
        if _read_type(quantiser) == "int8" and quantiser.zero is not None and quantiser.zero.any():
            first = quantiser.zero.reshape(-1)[np.flatnonzero(quantiser.zero)[0]]
            yield Note(
                node=quantiser.name,
                what=f"its zero point is {int(first)}; TensorRT supports symmetric quantisation alone",
                cure="quantise with symmetric ranges (ONNX Runtime: ActivationSymmetric=True, WeightSymmetric=True)",
            )


def make_symmetric(model: ir.Model) -> int:
    """Rewrite what :func:`check_type` and :func:`check_zero` find; return how many quantisers changed.

    uint8 around 128 becomes int8 around 0 with the same values. Other activations get the scale that holds their range
    on both sides of zero, at most half as fine as it was; weights are quantised again, channel by channel.
    """
    changed = sum(_rewrite(model.graph, quantiser) for quantiser in list(list_quantisers(model)))
    if changed:
        remove_dead(model)
    return changed


def _read_type(quantiser: Quantiser) -> str:
    if quantiser.zero is not None:
        return quantiser.zero.dtype.name
    integers = quantiser.node.inputs[0] if quantiser.node.op_type == "DequantizeLinear" else quantiser.node.outputs[0]
    # Without a zero point ONNX means uint8 in QuantizeLinear.
    return integers.dtype.name.lower() if integers is not None and integers.dtype is not None else "uint8"


def _rewrite(graph: ir.Graph, quantiser: Quantiser) -> int:
    word = _read_type(quantiser)
    if word not in _LIMITS or quantiser.scale is None or (word == "int8" and not _has_offset(quantiser)):
        return 0
    zero = np.zeros(quantiser.scale.shape, word) if quantiser.zero is None else quantiser.zero
    stored = constant(quantiser.node.inputs[0])
    if stored is not None and quantiser.node.op_type == "DequantizeLinear":
        return _rewrite_weight(graph, quantiser, stored, zero)
    if not _is_between_quantisers(quantiser.node):
        return 0
    scale = _find_scale(quantiser.scale, zero)
    _set_constants(graph, quantiser, scale)
    if quantiser.node.op_type == "QuantizeLinear":
        _set_integers(quantiser.node.outputs[0])
    return 1


def _has_offset(quantiser: Quantiser) -> bool:
    return quantiser.zero is not None and bool(quantiser.zero.any())


def _is_between_quantisers(node: ir.Node) -> bool:
    """Whether the integers go from a QuantizeLinear to DequantizeLinear, by moves at most."""
    if node.op_type == "QuantizeLinear":
        return not node.outputs[0].is_graph_output() and _ends_in_floats(node.outputs[0])
    value = node.inputs[0]
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "QuantizeLinear":
            return _is_between_quantisers(producer)
        if producer.op_type not in MOVES:
            return False
        value = producer.inputs[0]
    return False


def _ends_in_floats(value: ir.Value) -> bool:
    for use in value.uses():
        if use.node.op_type in MOVES and not any(output.is_graph_output() for output in use.node.outputs):
            if not all(_ends_in_floats(output) for output in use.node.outputs):
                return False
        elif use.node.op_type != "DequantizeLinear":
            return False
    return True


def _find_scale(scale: NDArray[np.generic], zero: NDArray[np.generic]) -> NDArray[np.generic]:
    low, high = _LIMITS[zero.dtype.name]
    offset = zero.astype(np.float32)
    if (offset == low + 128).all():  # uint8 around 128
        return scale
    wide = np.maximum(offset - low, high - offset) / np.float32(127)
    widened: NDArray[np.generic] = (scale.astype(np.float32) * wide).astype(scale.dtype)
    return widened


def _rewrite_weight(
    graph: ir.Graph, quantiser: Quantiser, stored: NDArray[np.generic], zero: NDArray[np.generic]
) -> int:
    if quantiser.scale is None:
        return 0
    axis = read_axis(quantiser.node, stored.ndim) if quantiser.scale.size > 1 else 0
    low = _LIMITS[zero.dtype.name][0]
    if (zero.astype(np.int16) == low + 128).all():
        integers, scale = (stored.astype(np.int16) - (low + 128)).astype(np.int8), quantiser.scale
    else:
        offset = spread(zero, axis, stored.ndim)
        floats = (stored.astype(np.float32) - offset) * spread(quantiser.scale, axis, stored.ndim)
        others = tuple(n for n in range(stored.ndim) if n != axis or quantiser.scale.size == 1)
        largest = np.abs(floats).max(axis=others) / np.float32(127)
        scale = np.where(largest > 0, largest, 1).astype(quantiser.scale.dtype).reshape(quantiser.scale.shape)
        steps = np.rint(floats / spread(scale, axis, stored.ndim))
        integers = np.clip(steps, -127, 127).astype(np.int8)
    name = f"{quantiser.node.outputs[0].name}_symmetric"
    quantiser.node.replace_input_with(0, add_constant(graph, name, integers))
    _set_constants(graph, quantiser, scale)
    return 1


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
        if use.node.op_type in MOVES:
            for output in use.node.outputs:
                _set_integers(output)
