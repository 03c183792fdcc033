"""The largest magnitude of every float value of a model over a dataset: what decides whether FP16 holds it.

In: an ONNX file. Out: which values to measure, the nodes that reduce each to two numbers inside the graph, and their
magnitude. Merging two measurements is taking the larger, in any order. Padded positions count: an infinity there turns
into NaN elsewhere. What fills masks does not: lowering brings it into range. Must not import torch or a runtime.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

#: What is below means "never attend", whatever its size.
MASK_BELOW = -1e9
_LARGEST, _SMALLEST = "::largest", "::smallest"


def list_floats(model: Path) -> tuple[str, ...]:
    """Return the names of the float32 values that the main graph of an ONNX file takes or computes, in its order.

    Values of an unknown type, sequences, and those that hold nothing, are left out. Where the file does not say its
    types, they are inferred, unless its weights are past 2 GB.
    """
    import onnx_ir as ir

    from calibration.infer_types import infer_types

    loaded = ir.load(model)
    if any(value.dtype is None for value in _list_values(loaded)):
        infer_types(loaded)
    tensors = (value for value in _list_values(loaded) if isinstance(value.type, ir.TensorType))
    floats = (value for value in tensors if value.dtype == ir.DataType.FLOAT and not _is_empty(value))
    return tuple(value.name for value in floats if value.name)


def make_reductions(names: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return (nodes, outputs), as ``onnx`` protos, that reduce each named value to its largest and smallest number."""
    import onnx

    nodes, outputs = [], []
    # ONNX Runtime computes what nobody reads from the last to the first, each after what it needs. In this order a
    # value is reduced, and freed, as soon as it is there; otherwise all live to the end: 930 MB for MiniLM, not 585.
    for name in reversed(names):
        for operator, suffix in (("ReduceMax", _LARGEST), ("ReduceMin", _SMALLEST)):
            node = onnx.helper.make_node(operator, [name], [name + suffix], name=name + suffix, keepdims=0)
            nodes.append(node)
            outputs.append(onnx.ValueInfoProto(name=name + suffix))
    return nodes, outputs


def read_magnitudes(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, float]:
    """Return the magnitude of each name from what its reductions gave."""
    return {name: _measure(float(values[name + _LARGEST]), float(values[name + _SMALLEST])) for name in names}


def merge_magnitudes(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the larger of both for each tensor of either; NaN is larger than anything."""
    return {name: _find_larger(first.get(name, 0.0), second.get(name, 0.0)) for name in (*first, *second)}


def _measure(largest: float, smallest: float) -> float:
    # Where a mask was added, its filling hides the smallest score; what the mask was added to is measured by itself.
    return _find_larger(_find_larger(largest, 0.0), 0.0 if smallest <= MASK_BELOW else -smallest)


def _find_larger(left: float, right: float) -> float:
    """max() of a NaN and a number is the one that stands first."""
    return math.nan if math.isnan(left) or math.isnan(right) else max(left, right)


def _list_values(model: ir.Model) -> Iterator[ir.Value]:
    yield from (value for value in model.graph.inputs if value.name not in model.graph.initializers)
    for node in model.graph:
        yield from node.outputs


def _is_empty(value: ir.Value) -> bool:
    return value.shape is not None and 0 in tuple(value.shape)
