"""Integer constants are weights: dequantised at once, and read by what computes with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from calibration.lower.edits import remove_dead
from exporter.lint.moves import list_ends, set_type, write_identity
from exporter.lint.pairs import (
    MOVES,
    WEIGHTED,
    Quantiser,
    as_quantiser,
    ends_in_floats,
    is_sound,
    list_quantisers,
    name_of,
)
from exporter.lint.rule import Note
from exporter.lint.tensorrt.bias import store_as_floats
from exporter.passes.graph import constant


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
        ends = list(list_ends(node.outputs[0]))
        found = as_quantiser(ends[0]) if ends else None
        if found is None or found.per_channel or not is_sound(found) or not _are_alike(ends):
            continue
        first = ir.node("DequantizeLinear", [node.inputs[0], *ends[0].inputs[1:]], name=f"{name_of(node)}_dq")
        first.outputs[0].type = ends[0].outputs[0].type
        node.graph.insert_before(node, first)
        node.replace_input_with(0, first.outputs[0])
        set_type(node.outputs[0], first.outputs[0].type)
        for end in ends:
            write_identity(end)
        count += 1
    if count:
        common.IdentityEliminationPass()(model)
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
        stored = constant(node.inputs[0]) if node.op_type in MOVES else None
        is_integer = stored is not None and stored.dtype in (np.int8, np.uint8)
        if is_integer and ends_in_floats(node.outputs[0]) and any(True for _ in list_ends(node.outputs[0])):
            yield node


def _are_alike(ends: list[ir.Node]) -> bool:
    """Whether all have the same scale and zero point."""
    first, *others = [[constant(value) for value in end.inputs[1:]] for end in ends]
    return all(
        len(first) == len(other) and all(_is_same(a, b) for a, b in zip(first, other, strict=True)) for other in others
    )


def _is_same(left: NDArray[np.generic] | None, right: NDArray[np.generic] | None) -> bool:
    return left is right or (left is not None and right is not None and np.array_equal(left, right))


def _list_small(model: ir.Model) -> Iterator[Quantiser]:
    for quantiser in list_quantisers(model):
        node = quantiser.node
        stored = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        is_integer = stored is not None and stored.dtype in (np.int8, np.uint8)
        if is_integer and not quantiser.is_blocked and not _is_weight(node.outputs[0]):
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
