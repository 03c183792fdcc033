"""Biases are float: TensorRT takes only activation types, and an int32 bias behind a DequantizeLinear is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from calibration.lower.edits import add_constant, remove_dead
from exporter.lint.pairs import Quantiser, dequantise, is_sound, list_quantisers, read_type
from exporter.lint.rule import Note
from exporter.passes.graph import constant


def check(model: ir.Model) -> Iterator[Note]:
    """Yield DequantizeLinear of int32."""
    for quantiser in _find(model):
        yield Note(
            node=quantiser.name,
            what="an int32 bias is dequantised; TensorRT takes float biases alone",
            cure="store the bias as float (ONNX Runtime: QuantizeBias=False)",
        )


def store_floats(model: ir.Model) -> int:
    """Store each such bias as the floats it stands for; return how many."""
    return store_as_floats(model, list(_find(model)))


def store_as_floats(model: ir.Model, found: Sequence[Quantiser]) -> int:
    """Put floats in the place of dequantised constants, where these can be computed; return how many."""
    count = 0
    for quantiser in found:
        integers, node = constant(quantiser.node.inputs[0]), quantiser.node
        output = node.outputs[0]
        if integers is None or quantiser.scale is None or not is_sound(quantiser) or output.is_graph_output():
            continue
        floats = dequantise(quantiser, integers).astype(quantiser.scale.dtype)
        name = output.name or node.name
        output.name = f"{name}_computed"
        ir.convenience.replace_all_uses_with(output, add_constant(model.graph, name, floats))
        count += 1
    if count:
        remove_dead(model)
    return count


def _find(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        if quantiser.node.op_type == "DequantizeLinear" and read_type(quantiser) == "int32":
            yield quantiser
