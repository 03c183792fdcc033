"""The cache of a decoder in int8: a quarter of what a long context keeps and reads.

In: a graph with GroupQueryAttention, and how large keys and values get. Out: the same graph, whose inputs
``past_key_values.*`` and outputs ``present.*`` are int8. Must not import a runtime.

What ONNX Runtime 1.31 does on CPUs, tried: its kernel takes int8 with a scale for each channel, and every token attends
to the rounded keys, so that numbers are the same bit by bit with a cache and without. Of 4 bits, which it takes too,
keys are off by a seventh of their range. It has no kernel for float16: it puts a cast of the whole cache before and
behind each attention, and fails where past and present are not one buffer (tests/unit/exporter/passes).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from calibration.cache_peaks import Peaks
from calibration.lower.edits import add_constant
from runtimes.errors import DataError, UnsupportedModel

_HIGHEST = 127
# Of keys and of values: where GroupQueryAttention reads the past, gives the present, and reads the scales.
_PLACES = ((3, 1, 12), (4, 2, 13))
_INPUTS = 14


def narrow_cache(model: ir.Model, peaks: Peaks) -> int:
    """Edit ``model`` in place; return how many layers keep less.

    Args:
        model: A decoder whose attention is fused.
        peaks: The largest magnitude of each channel; what passes it is cut off.

    Raises:
        UnsupportedModel: no attention is fused, or one keeps no cache of its own.
        DataError: the peaks of a layer are not given.
    """
    nodes = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
    if not nodes:
        cure = "leave the cache in fp32, or export the checkpoint that the graph was made from"
        raise UnsupportedModel("no attention that keeps a narrower cache", where=model.graph.name, cure=cure)
    for node in nodes:
        _add_scales(model.graph, node, peaks)
        for past, present, _ in _PLACES:
            for value in (_read_past(node, past), node.outputs[present]):
                value.type = ir.TensorType(ir.DataType.INT8)
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
        cure = "leave the cache in fp32"
        raise UnsupportedModel("attention whose cache is no input of the model", where=node.name, cure=cure)
    return value
