"""Biases are float: TensorRT takes only activation types, and an int32 bias behind a DequantizeLinear is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant
from exporter.lint.pairs import Quantiser, list_quantisers, read_axis, spread
from exporter.lint.rule import Note
from exporter.passes.graph import constant, remove_dead


def check(model: ir.Model) -> Iterator[Note]:
    """Yield int32 constants behind a DequantizeLinear."""
    for quantiser in _find(model):
        yield Note(
            node=quantiser.name,
            what="an int32 bias is dequantised; TensorRT takes float biases alone",
            cure="store the bias as float (ONNX Runtime: QuantizeBias=False)",
        )


def store_floats(model: ir.Model) -> int:
    """Store each such bias as the floats it stands for; return how many."""
    found = list(_find(model))
    for quantiser in found:
        integers, node = constant(quantiser.node.inputs[0]), quantiser.node
        if integers is None or quantiser.scale is None:
            continue
        # A bias has one axis: its scales lie along it whatever the attribute says.
        axis = 0 if integers.ndim == 1 else read_axis(node, integers.ndim)
        floats = (integers.astype(np.float32) * spread(quantiser.scale, axis, integers.ndim)).astype(
            quantiser.scale.dtype
        )
        output = node.outputs[0]
        name = output.name or node.name
        output.name = f"{name}_computed"
        ir.convenience.replace_all_uses_with(output, add_constant(model.graph, name, floats))
        model.graph.remove(node, safe=True)
    if found:
        remove_dead(model)
    return len(found)


def _find(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        stored = constant(quantiser.node.inputs[0])
        is_inner = quantiser.node.op_type == "DequantizeLinear" and not quantiser.node.outputs[0].is_graph_output()
        has_offset = quantiser.zero is not None and bool(quantiser.zero.any())
        is_known = stored is not None and stored.dtype == np.int32 and quantiser.scale is not None
        if is_inner and is_known and not has_offset:
            yield quantiser
