"""Weights are stored as the integers they become: a QuantizeLinear on a constant keeps four times the bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.pairs import RANGES, Quantiser, is_sound, list_quantisers, read_axis, read_type, spread
from exporter.lint.rule import Note
from exporter.passes.graph import constant

_STORED = frozenset({"int8", "uint8"})


def check(model: ir.Model) -> Iterator[Note]:
    """Yield QuantizeLinear that reads a constant."""
    for quantiser in _find(model):
        yield Note(
            node=quantiser.name,
            what="the weight is stored in float and quantised when the plan is built: four times the bytes",
            cure="store the integers (TensorRT 8 alone wants the float weight)",
        )


def store_integers(model: ir.Model) -> int:
    """Store each such weight as integers; return how many."""
    found = list(_find(model))
    for quantiser in found:
        floats, node = constant(quantiser.node.inputs[0]), quantiser.node
        if floats is None or quantiser.scale is None:
            continue
        axis, kind = read_axis(node, floats.ndim), read_type(quantiser)
        low, high = RANGES[kind]
        # In float32, half to even, as QuantizeLinear says.
        steps = np.rint(floats.astype(np.float32) / spread(quantiser.scale, axis, floats.ndim))
        if quantiser.zero is not None:
            steps = steps + spread(quantiser.zero, axis, floats.ndim)
        output = node.outputs[0]
        name = output.name or node.name
        output.name = f"{name}_computed"
        integers = add_constant(model.graph, name, np.clip(steps, low, high).astype(kind))
        ir.convenience.replace_all_uses_with(output, integers)
    if found:
        remove_dead(model)
    return len(found)


def _find(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        node = quantiser.node
        is_stored = node.op_type == "QuantizeLinear" and constant(node.inputs[0]) is not None
        is_usual = read_type(quantiser) in _STORED and is_sound(quantiser)
        if is_stored and is_usual and not node.outputs[0].is_graph_output():
            yield quantiser
