"""Integers that are moved between their quantiser and the DequantizeLinear they end in. Must not import a runtime."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from calibration.lower.edits import take_over
from exporter.lint.pairs import are_alike, as_quantiser, ends_in_floats, name_of


def list_ends(integers: ir.Value) -> Iterator[ir.Node]:
    """Yield the DequantizeLinear that integers end in, through moves at most."""
    for use in integers.uses():
        if use.node.op_type == "DequantizeLinear":
            yield use.node
        else:
            for output in use.node.outputs:
                yield from list_ends(output)


def is_undone(quantise: ir.Node) -> bool:
    """Whether the integers of a QuantizeLinear end in nothing but DequantizeLinear with its own constants.

    Moves may stand between; not where there is a scale a channel, whose axis they could move.
    """
    if not ends_in_floats(quantise.outputs[0]):
        return False
    ends = list(list_ends(quantise.outputs[0]))
    found = [one for one in map(as_quantiser, (quantise, *ends)) if one is not None]
    is_direct = all(end.inputs[0] is quantise.outputs[0] for end in ends)
    return are_alike(found) and (is_direct or not found[0].per_channel)


def set_type(integers: ir.Value, kind: ir.TypeProtocol | None) -> None:
    """Give a value, and what moves make of it, another type."""
    integers.type = kind
    for use in integers.uses():
        if use.node.op_type != "DequantizeLinear":
            for output in use.node.outputs:
                set_type(output, kind)


def write_identity(node: ir.Node) -> None:
    """Let a quantiser pass what it reads."""
    passed = ir.node("Identity", [node.inputs[0]], name=f"{name_of(node)}_passed")
    node.graph.insert_before(node, passed)
    take_over(node.outputs[0], passed.outputs[0])
    node.graph.remove(node, safe=True)
