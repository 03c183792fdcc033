"""The filling of a mask, -3.4e38, is no number to quantise: in its range every other value rounds to zero.

Stored as an integer it comes back as minus infinity, which times zero is NaN: ONNX Runtime's quantizer does that to
encoders whose mask is a product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.pairs import Quantiser, are_alike, as_quantiser, dequantise, have_one_type, is_sound, list_quantisers
from exporter.lint.rule import Note
from exporter.passes.graph import constant, made_by

#: No activation has steps of a million: what reaches so far fills a mask.
LARGEST_SCALE = 1e6


def check(model: ir.Model) -> Iterator[Note]:
    """Yield DequantizeLinear with the range of a mask."""
    for quantiser in _find(model):
        yield Note(
            node=quantiser.name,
            what="its range is that of a mask's filling, in which every other value rounds to zero",
            cure="leave masks, and what they are added to, in float",
        )


def keep_float(model: ir.Model) -> int:
    """Let the readers read floats: the value before the pair, or what a stored integer stands for; return how many."""
    found = list(_find(model))
    for quantiser in found:
        source = _find_floats(model.graph, quantiser)
        for use in list(quantiser.node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, source)
    if found:
        remove_dead(model)
    return len(found)


def _find(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        node, scale = quantiser.node, quantiser.scale
        if node.op_type != "DequantizeLinear" or scale is None or not is_sound(quantiser):
            continue
        if float(scale.max()) > LARGEST_SCALE and not node.outputs[0].is_graph_output() and _has_source(quantiser):
            yield quantiser


def _has_source(quantiser: Quantiser) -> bool:
    node = quantiser.node
    quantise = as_quantiser(made_by(node.inputs[0], "QuantizeLinear"))
    if quantise is None:
        return constant(node.inputs[0]) is not None
    return have_one_type(quantise.node.inputs[0], node.outputs[0]) and are_alike((quantise, quantiser))


def _find_floats(graph: ir.Graph, quantiser: Quantiser) -> ir.Value | None:
    node, stored = quantiser.node, constant(quantiser.node.inputs[0])
    quantise = made_by(node.inputs[0], "QuantizeLinear")
    if stored is None or quantiser.scale is None:
        return quantise.inputs[0] if quantise is not None else None
    limits = np.finfo(np.float32)
    floats = np.clip(dequantise(quantiser, stored), limits.min, limits.max)
    return add_constant(graph, f"{node.outputs[0].name}_float", floats.astype(quantiser.scale.dtype))
