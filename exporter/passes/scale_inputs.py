"""Factors put where they cost nothing: what comes before an input divides by them, its linears multiply.

In: a float graph, the linears that read each input, and what finds the factors. Out: the graph edited, and the factors.

What gives an input can divide it where it ends in constants: the weight of a norm, the columns of a linear (the half of
a gated feed-forward block that is not activated; the values of attention, one factor for all query heads that share a
value head). Where it does not (behind GELU or SiLU alone), the input keeps its scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from calibration.linears import Linear
from calibration.weights.blocks import FloatArray
from exporter.passes.graph import constant, made_by, permutation

# The places of weight and bias of each norm.
_NORMS: Mapping[str, tuple[int, ...]] = {
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (2, 3),
    "SkipSimplifiedLayerNormalization": (2,),
}
_ATTENTIONS = ("CachedAttention", "GroupQueryAttention")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The constants that an input can be divided in.

    ``divisors`` are values and the axis of theirs that holds the channels, ``channels`` int64 [K] the channel of
    theirs that each channel of the input comes from.
    """

    divisors: tuple[tuple[ir.Value, int], ...]
    channels: NDArray[np.int64]


#: Gives the factors of an input: its name, float32 [rows, K] of each linear, and the channel of each of its K.
FindFactors = Callable[[str, Sequence[tuple[Linear, FloatArray]], NDArray[np.int64]], FloatArray]


def scale_inputs(
    model: ir.Model, groups: Mapping[str, Sequence[Linear]], find: FindFactors
) -> Mapping[str, FloatArray]:
    """Edit ``model`` in place; return the factors [K] that inputs are divided by, without those left alone.

    Args:
        model: A float graph.
        groups: The linears that read each input.
        find: Finds the factors of one; 1 throughout leaves it alone. What it raises passes through.
    """
    nodes = {node.name: node for node in model.graph}
    found: dict[str, FloatArray] = {}
    for name, linears in groups.items():
        readers = [(nodes[linear.node].inputs[1], linear) for linear in linears]
        source = _find_source(nodes[linears[0].node].inputs[0], len(linears), linears[0].shape[0])
        if source is None or not all(_is_private(weight) for weight, _ in readers):
            continue
        scales = find(name, [(linear, _read_rows(weight, linear)) for weight, linear in readers], source.channels)
        if (scales == 1).all():
            continue
        divisor = np.ones(source.channels.max() + 1, np.float32)
        divisor[source.channels] = scales
        for value, axis in source.divisors:
            _multiply(value, np.reciprocal(divisor), axis)
        for weight, linear in readers:
            _multiply(weight, scales, 1 if linear.transposed else 0)
        found[name] = scales
    return found


def _find_source(value: ir.Value | None, readers: int, width: int) -> _Source | None:
    """Follow an input [..., width] back to constants that divide nothing else; None where there are none."""
    node = value.producer() if value is not None else None
    if value is None or node is None or len(value.uses()) != readers or value.is_graph_output():
        return None
    match node.op_type:
        case "Reshape" if _width(node.inputs[0]) == width:
            return _find_source(node.inputs[0], 1, width)
        case "Reshape":
            return _find_values(node.inputs[0], width)
        case "GroupQueryAttention":
            return _find_values(value, width)
        case "Mul":
            return _find_factor(node, width)
        case "Add":
            return _find_sum(node, width)
        case "MatMul" | "Gemm":
            return _find_columns(node, width)
        case norm if norm in _NORMS and value is node.outputs[0]:
            places = [place for place in _NORMS[norm] if place < len(node.inputs) and node.inputs[place] is not None]
            return _divide([(node.inputs[place], -1) for place in places], width)
        case _:
            return None


def _find_factor(node: ir.Node, width: int) -> _Source | None:
    for value in node.inputs:
        if constant(value) is not None:
            return _divide([(value, -1)], width)
    return next((found for value in node.inputs if (found := _find_source(value, 1, width)) is not None), None)


def _find_sum(node: ir.Node, width: int) -> _Source | None:
    """A sum with a constant is divided where both are."""
    for value, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
        added = _divide([(value, -1)], width) if constant(value) is not None else None
        found = _find_source(other, 1, width) if added is not None else None
        if added is not None and found is not None:
            return replace(found, divisors=(*found.divisors, *added.divisors))
    return None


def _find_columns(node: ir.Node, width: int) -> _Source | None:
    if constant(node.inputs[1]) is None:
        return None
    turned = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    bias = [(value, -1) for value in node.inputs[2:] if value is not None]
    return _divide([(node.inputs[1], 0 if turned else -1), *bias], width)


def _find_values(value: ir.Value | None, width: int) -> _Source | None:
    """Follow the output of attention to its values: each query head gives the channels of the head it shares."""
    while value is not None and len(value.uses()) == 1 and (reshape := made_by(value, "Reshape")) is not None:
        value = reshape.inputs[0]
    node = made_by(value, *_ATTENTIONS)
    if value is None or node is None or len(value.uses()) != 1 or value is not node.outputs[0]:
        return None
    heads, shared = _count_heads(node)
    given = node.inputs[2]
    turn = made_by(given, "Transpose")
    if turn is not None and permutation(turn) == (0, 2, 1, 3) and given is not None and len(given.uses()) == 1:
        given = turn.inputs[0]
    while given is not None and len(given.uses()) == 1 and (reshape := made_by(given, "Reshape")) is not None:
        given = reshape.inputs[0]
    if heads == 0 or width % heads:
        return None
    found = _find_source(given, 1, shared * width // heads)
    if found is None:
        return None
    each = found.channels.reshape(shared, -1)
    return replace(found, channels=np.repeat(each, heads // shared, axis=0).reshape(-1))


def _count_heads(node: ir.Node) -> tuple[int, int]:
    """Return (query heads, value heads); zeros where they are not fixed."""
    if node.op_type == "GroupQueryAttention":
        return node.attributes.get_int("num_heads", 0), node.attributes.get_int("kv_num_heads", 0)
    shapes = [value.shape if value is not None else None for value in (node.inputs[0], node.inputs[2])]
    counts = [int(shape[1]) if shape is not None and isinstance(shape[1], int) else 0 for shape in shapes]
    return (counts[0], counts[1]) if all(counts) else (0, 0)


def _divide(values: Sequence[tuple[ir.Value | None, int]], width: int) -> _Source | None:
    """Return the source that constants are, where each is read once and has a number for every channel."""
    found = []
    for value, axis in values:
        array = constant(value)
        if value is None or array is None or not _is_private(value) or array.ndim == 0 or array.shape[axis] != width:
            return None
        found.append((value, axis))
    return _Source(divisors=tuple(found), channels=np.arange(width))


def _is_private(value: ir.Value | None) -> bool:
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def _width(value: ir.Value | None) -> int | None:
    last = value.shape[-1] if value is not None and value.shape else None
    return last if isinstance(last, int) else None


def _read_rows(weight: ir.Value | None, linear: Linear) -> FloatArray:
    array = np.asarray(constant(weight), np.float32)
    return array if linear.transposed else array.T


def _multiply(value: ir.Value | None, factors: FloatArray, axis: int) -> None:
    array = constant(value)
    assert value is not None
    assert array is not None, "what is scaled is constant"
    shape = [1] * array.ndim
    shape[axis] = -1
    value.const_value = ir.tensor(np.asarray(array, np.float32) * factors.reshape(shape), name=value.name)
