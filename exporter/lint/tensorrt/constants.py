"""Integer constants are weights: dequantised at once, and read by what computes with them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from calibration.lower.edits import remove_dead
from exporter.lint.moves import list_ends, set_type, write_identity
from exporter.lint.pairs import (
    MOVES,
    WEIGHTED,
    Quantiser,
    are_alike,
    as_quantiser,
    ends_in_floats,
    is_byte,
    list_quantisers,
    name_of,
)
from exporter.lint.rule import Note
from exporter.lint.tensorrt.bias import store_as_floats
from exporter.passes.graph import constant
from exporter.passes.identities import remove_identities


def check_moved(model: ir.Model) -> Iterator[Note]:
    """Yield operators that move integer constants before these are dequantised."""
    for node in _list_moves(model):
        yield Note(
            node=name_of(node),
            what=f"{node.op_type} moves an integer constant; TensorRT takes one before DequantizeLinear alone",
            cure="dequantise the constant first (ONNX Runtime: leave Gather out of op_types_to_quantize)",
        )


def dequantise_first(model: ir.Model) -> int:
    """Dequantise such constants before they are moved; return how many operators now move floats."""
    count = 0
    for node in list(_list_moves(model)):
        ends = _list_ends(node)
        found = [one for one in map(as_quantiser, ends) if one is not None]
        if found[0].per_channel or not are_alike(found):
            continue
        first = ir.node("DequantizeLinear", [node.inputs[0], *ends[0].inputs[1:]], name=f"{name_of(node)}_dq")
        first.outputs[0].type = ends[0].outputs[0].type
        node.graph.insert_before(node, first)
        node.replace_input_with(0, first.outputs[0])
        for output in node.outputs:
            set_type(output, first.outputs[0].type)
        for end in ends:
            write_identity(end)
        count += 1
    if count:
        remove_identities(model)
        remove_dead(model)
    return count


def check_small(model: ir.Model) -> Iterator[Note]:
    """Yield dequantised constants that are no weights."""
    for quantiser in _list_small(model):
        yield Note(
            node=quantiser.name,
            what="it dequantises a constant that no product and no Gather reads; TensorRT takes integers as weights",
            cure="leave it in float (ONNX Runtime: op_types_to_quantize=['MatMul', 'Gemm', 'Conv'])",
        )


def store_small(model: ir.Model) -> int:
    """Store each such constant as the floats it stands for; return how many."""
    return store_as_floats(model, list(_list_small(model)))


def _list_moves(model: ir.Model) -> Iterator[ir.Node]:
    for node in list(model.graph.all_nodes()):
        if node.op_type not in MOVES or not is_byte(constant(node.inputs[0])):
            continue
        if all(map(ends_in_floats, node.outputs)) and _list_ends(node):
            yield node


def _list_ends(node: ir.Node) -> list[ir.Node]:
    return [end for output in node.outputs for end in list_ends(output)]


def _list_small(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        node = quantiser.node
        stored = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        if is_byte(stored) and not quantiser.is_blocked and not _is_weight(node.outputs[0]):
            yield quantiser


def _is_weight(floats: ir.Value) -> bool:
    """Whether a product reads it, or a Gather takes rows that are chosen at run time: a table of embeddings."""
    for use in floats.uses():
        kind = use.node.op_type
        if kind in WEIGHTED and use.idx < 2:
            return True
        if kind == "Gather" and use.idx == 0 and constant(use.node.inputs[1]) is None:
            return True
        is_passed = use.idx == 0 and (kind in MOVES or kind == "Cast")
        if is_passed and any(_is_weight(output) for output in use.node.outputs):
            return True
    return False
