"""The cache of a decoder in float16 or int8: half or a quarter of what a long context keeps and reads.

In: a graph with GroupQueryAttention, and for int8 how large keys and values get. Out: the same graph, whose inputs
``past_key_values.*`` and outputs ``present.*`` have the narrower type. Must not import a runtime.

What ONNX Runtime 1.31's kernel for CPUs does, tried: int8 runs with a scale for each channel, and every token attends
to the rounded keys, so that numbers are the same bit by bit with a cache and without. float16 beside float32 queries
runs, but a prompt attends to its keys as they were before rounding, and a later token to the rounded ones: tokens may
differ where two are nearly as likely. Of 4 bits, which runs too, keys are off by a seventh of their range.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from calibration.cache_peaks import Peaks
from calibration.lower.edits import add_constant
from runtimes.errors import DataError, UnsupportedModel

Narrow = Literal["float16", "int8"]

_HIGHEST = 127
_TYPES = {"float16": ir.DataType.FLOAT16, "int8": ir.DataType.INT8}
# Of keys and of values: where GroupQueryAttention reads the past, gives the present, and reads the scales.
_PLACES = ((3, 1, 12), (4, 2, 13))
_INPUTS = 14


def narrow_cache(model: ir.Model, kind: Narrow, peaks: Peaks | None = None) -> int:
    """Edit ``model`` in place; return how many layers keep less.

    Args:
        model: A decoder whose attention is fused.
        kind: What keys and values are kept in.
        peaks: The largest magnitude of each channel, which int8 needs; what passes it is cut off.

    Raises:
        UnsupportedModel: no attention is fused, or one keeps no cache of its own.
        DataError: int8 without the peaks of a layer.
    """
    nodes = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
    if not nodes:
        cure = "fuse its attention, or leave the cache in float32"
        raise UnsupportedModel("no attention that keeps a narrower cache", where=model.graph.name, cure=cure)
    for node in nodes:
        if kind == "int8":
            _add_scales(model.graph, node, peaks or {})
        for past, present, _ in _PLACES:
            for value in (_read_past(node, past), node.outputs[present]):
                value.type = ir.TensorType(_TYPES[kind])
    return len(nodes)


def _add_scales(graph: ir.Graph, node: ir.Node, peaks: Peaks) -> None:
    node.resize_inputs(_INPUTS)
    for past, _, place in _PLACES:
        name = str(_read_past(node, past).name)
        if name not in peaks:
            raise DataError("nothing is known of how large it gets", where=name, cure="measure it on calibration data")
        # A channel that is always zero has no step; any does.
        steps = np.where(peaks[name] > 0, peaks[name] / _HIGHEST, 1).astype(np.float32)
        node.replace_input_with(place, add_constant(graph, f"{name}_scale", steps[None, :, None]))
    node.attributes["kv_cache_bit_width"] = ir.AttrInt64("kv_cache_bit_width", 8)
    for attribute in ("k_quant_type", "v_quant_type"):
        node.attributes[attribute] = ir.AttrString(attribute, "PER_CHANNEL")


def _read_past(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None or not value.is_graph_input():
        cure = "leave the cache in float32"
        raise UnsupportedModel("attention whose cache is no input of the model", where=node.name, cure=cure)
    return value
